"""What every source of this package has in common: a root, its options, and files below a folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from img2prompt_cache.sources.base import Listing, SourceOptions
from img2prompt_cache.sources.reading import read_below


@dataclass(frozen=True)
class FileSource(ABC):
    """What every source of this package has in common: a root, its options, and files below a folder.

    Parameters
    ----------
    root : pathlib.Path
        Absolute.
    options : SourceOptions
        With `format` set to the name of the source.
    notes : tuple of str
        What was worth saying when the format was chosen.
    detected : bool
        Whether the format was told by the files, and not named by the user.
    """

    root: Path
    options: SourceOptions
    notes: tuple[str, ...] = ()
    detected: bool = False

    takes: ClassVar[frozenset[str]] = frozenset()
    """The options, `format` aside, that mean something to this source."""

    @classmethod
    @abstractmethod
    def detects(cls, root: Path) -> bool:
        """Say whether a file or folder looks like this source."""

    @property
    def folder(self) -> Path:
        """The folder that uris are relative to: the root, or the one the root lies in."""
        return self.root.parent if self.root.is_file() else self.root

    @property
    def settings(self) -> dict[str, str]:
        """The options that were set, as text; see `reopen_source`."""
        return {key: str(value) for key, value in asdict(self.options).items() if value is not None}

    @abstractmethod
    def list(self) -> Listing:
        """List every row."""

    def read(self, uri: str) -> bytes:
        """Give the bytes of the file `uri`."""
        return read_below(self.folder, uri)
