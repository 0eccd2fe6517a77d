"""The base class of sources whose files hold many images each: on this disk, or copied here one by one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.errors import ImageError
from img2prompt_cache.sources.files import FileSource
from img2prompt_cache.sources.remote import Listed, RemoteRoot, keep_listing, told_as
from img2prompt_cache.sources.scan import shards
from img2prompt_cache.sources.stamps import stamp_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ATTEMPTS = 10


@dataclass(frozen=True)
class PackedSource(FileSource):
    """One file, or a folder of files, each with many images: a uri is the file, ``#`` and the place in it.

    Parameters
    ----------
    root : pathlib.Path or RemoteRoot
    """

    root: Path | RemoteRoot  # type: ignore[assignment] # it is never assigned to

    packed: ClassVar[bool] = True
    suffix: ClassVar[str]
    """The ending of its files."""

    @property
    def folder(self) -> Path:
        """The folder to which uris are relative; a remote root has none."""
        if isinstance(self.root, RemoteRoot):
            raise ImageError(f"cannot be read: {self.root} holds no single files")
        return super().folder

    def file_names(self) -> list[str]:
        """List the files, relative to the folder, in code-point order."""
        if isinstance(self.root, RemoteRoot):
            return self.root.names(self.suffix)
        return shards(self.root, self.suffix)

    def locate(self, name: str) -> Path:
        """Give the path of a file; of a remote one that of its copy, which is made if it is missing."""
        return self.root.locate(name) if isinstance(self.root, RemoteRoot) else self.folder / name

    def shown(self, name: str) -> str:
        """Name a file in messages."""
        if isinstance(self.root, RemoteRoot):
            return self.root.url_of(name)
        return str(self.folder / name)

    def read(self, uri: str) -> bytes:
        """Read the bytes of one image."""
        name, place = self._split(uri)
        piece = self._peek(name, place)
        if piece is not None:
            return piece
        for attempt in range(1, _ATTEMPTS + 1):
            path = self.locate(name)
            try:
                return self._read(path, place)
            except ImageError:
                # Another process may have made room for its own copies meanwhile.
                if path.exists() or not isinstance(self.root, RemoteRoot) or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def stamps(self, uris: pa.ChunkedArray) -> NDArray[np.int64]:
        """Look up what tells whether the file that holds each image has changed.

        Parameters
        ----------
        uris : pyarrow.ChunkedArray
            n strings, of the listing.

        Returns
        -------
        numpy.ndarray, int64, shape (n, 2)
            As `stamp_files` or `RemoteRoot.stamps` gives them. Images in one file have the same.
        """
        files = pc.replace_substring_regex(uris, "#[^#]*$", "").combine_chunks().dictionary_encode()
        names = files.dictionary.to_pylist()
        if isinstance(self.root, RemoteRoot):
            found = self.root.stamps(names)
        else:
            found = stamp_files(self.folder, names)
        stamps: NDArray[np.int64] = found[files.indices.to_numpy()]
        return stamps

    def listed(self, name: str) -> Listed:
        """List one file; what a remote one lists is kept."""

        def make() -> Listed:
            path = self.locate(name)
            with told_as(path, self.shown(name)):
                return self._list_file(path, name, prefix)

        prefix = f"{name[: -len(self.suffix)]}/" if self.root.is_dir() else ""
        if not isinstance(self.root, RemoteRoot) or not self.root.key_of(name)[-1]:
            return make()
        return keep_listing((*self.root.key_of(name), name, prefix, *sorted(self.settings.items())), make)

    def _peek(self, name: str, place: str) -> bytes | None:
        """Read an image without a copy of its file, where that is possible and better."""
        return None

    @abstractmethod
    def _list_file(self, path: Path, name: str, prefix: str) -> Listed:
        """List the images of a file, with ids that begin with `prefix` where rows have no other name."""

    @abstractmethod
    def _split(self, uri: str) -> tuple[str, str]:
        """Divide a uri into the name of a file and the place in it; refuse any other."""

    @abstractmethod
    def _read(self, path: Path, place: str) -> bytes:
        """Read the image at a place of a file."""
