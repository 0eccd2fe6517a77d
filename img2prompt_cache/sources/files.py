"""The base class of the sources in this package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import pyarrow as pa

from img2prompt_cache.sources.base import Listing, SourceOptions
from img2prompt_cache.sources.reading import read_below
from img2prompt_cache.sources.scan import Walk
from img2prompt_cache.sources.stamps import stamp_files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Walks: TypeAlias = list[Walk]


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
    why : str
        Why it has this format, for people.
    """

    root: Path
    options: SourceOptions
    notes: tuple[str, ...] = ()
    detected: bool = False
    why: str = ""
    _walks: Walks = field(default_factory=list, repr=False, compare=False)

    takes: ClassVar[frozenset[str]] = frozenset()
    """The options, except `format`, that this source uses."""
    packed: ClassVar[bool] = False
    """Whether one file holds many images; see `packed.PackedSource`."""

    @classmethod
    @abstractmethod
    def recognise(cls, walk: Walk) -> str:
        """Say which file makes a file or folder look like this source; empty if it does not look like it.

        Parameters
        ----------
        walk : Walk
            Of the file or folder; it finds what is below it.
        """

    @property
    def folder(self) -> Path:
        """The folder to which uris are relative: the root, or the folder of the root if that is a file."""
        return self.root.parent if self.root.is_file() else self.root

    def take_walk(self) -> Walk:
        """Give the walk of the detection, so that a tree is walked once; after that, a new one each time."""
        return self._walks.pop() if self._walks else Walk(self.root)

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

    def stamps(self, uris: pa.ChunkedArray) -> NDArray[np.int64]:
        """Look up the size and time of last change of the file that holds each image.

        Parameters
        ----------
        uris : pyarrow.ChunkedArray
            n strings, of the listing.

        Returns
        -------
        numpy.ndarray, int64, shape (n, 2)
            As `stamp_files` gives them.
        """
        return stamp_files(self.folder, uris.to_pylist())
