"""The base class of the sources in this package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from img2prompt_cache.sources.base import Listing, SourceOptions
from img2prompt_cache.sources.reading import read_below


@dataclass(frozen=True)
class FileSource(ABC):
    """A source with a root, options, and image files below a folder.

    Parameters
    ----------
    root : pathlib.Path
        Absolute.
    options : SourceOptions
        With `format` set to the name of the source.
    notes : tuple of str
        Notes from the detection of the format.
    detected : bool
        Whether the format was detected, and not given by the user.
    """

    root: Path
    options: SourceOptions
    notes: tuple[str, ...] = ()
    detected: bool = False

    takes: ClassVar[frozenset[str]] = frozenset()
    """The options, except `format`, that this source uses."""

    @classmethod
    @abstractmethod
    def detects(cls, root: Path) -> bool:
        """Check whether a file or folder looks like this source."""

    @property
    def folder(self) -> Path:
        """The folder to which uris are relative: the root, or the folder of the root if that is a file."""
        return self.root.parent if self.root.is_file() else self.root

    @property
    def settings(self) -> dict[str, str]:
        """The options that were set, as text; see `reopen_source`."""
        return {key: str(value) for key, value in asdict(self.options).items() if value is not None}

    @abstractmethod
    def list(self) -> Listing:
        """List every row."""

    def read(self, uri: str) -> bytes:
        """Read the bytes of the file `uri`."""
        return read_below(self.folder, uri)
