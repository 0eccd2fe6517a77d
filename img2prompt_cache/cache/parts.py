"""Parts: immutable HDF5 files, each one column for a fixed range of rows.

A part is written under a hidden temporary name in its own folder, closed, hashed, flushed to disk and
renamed, so that a file with a part's name is always whole. Datasets are contiguous and carry no time
stamps: the same values give the same bytes, and a numeric dataset can be memory-mapped by its offset.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from img2prompt_cache.cache.identity import BYTES, Identity
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.files import Replacement, hash_file

Values: TypeAlias = NDArray[Any]
"""Numbers of a dataset; only the manifest says of which dtype."""


class PartFile:
    """One part being written; nothing has its final name until `commit`.

    Used as a context manager: leaving it without `commit` removes the temporary file.

    Parameters
    ----------
    path : pathlib.Path
        The file; its folder is made if it is not there.
    identity : Identity, optional
        What the part is. A file without it is no part of a cache, or one of schema 1.
    tidy : bool
        As for `Replacement`. A cache is tidied up once, by whoever locks it.
    """

    def __init__(self, path: Path, identity: Identity | None = None, *, tidy: bool = False) -> None:
        self._block = identity.block() if identity else b""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._new = Replacement(path, tidy=tidy)
        with ExitStack() as undo:
            undo.callback(self._new.discard)
            # HDF5 crashes the process when it cannot write its own file (a full disk); Python raises OSError.
            self._raw = self._new.temporary.open("r+b")
            try:
                self._file: h5py.File | None = h5py.File(self._raw, "w", userblock_size=len(self._block))
            except Exception:
                self._raw.close()
                raise  # after an interrupt HDF5 may still use the file, which is closed with the last of both
            undo.pop_all()  # `__exit__` does it from now on

    @property
    def _open(self) -> h5py.File:
        if self._file is None:
            raise ValueError("the part is closed")
        return self._file

    def create(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Reserve a contiguous dataset, filled later by `write`; dtype ``"text"`` is UTF-8 strings."""
        kind = h5py.string_dtype("utf-8") if dtype == "text" else dtype
        self._open.create_dataset(name, shape, dtype=kind, track_times=False)

    def describe(self, name: str, **attributes: str) -> None:
        """Attach attributes to a dataset."""
        self._open[name].attrs.update(attributes)

    def write(self, name: str, start: int, values: Values) -> None:
        """Write `values` at rows `start … start + len(values)` of dataset `name`."""
        self._open[name][start : start + len(values)] = values

    def read(self, name: str, row: int) -> Values:
        """Read back one row written before."""
        values: Values = self._open[name][row]
        return values

    def write_text(self, name: str, values: list[str]) -> None:
        """Write a whole dataset of UTF-8 strings, shape (len(values),)."""
        self.create(name, (len(values),), "text")
        if values:
            self._open[name][...] = np.array(values, dtype=object)

    def commit(self) -> tuple[int, str]:
        """Close, hash, flush and rename the part.

        Returns
        -------
        size : int
            Bytes of the file.
        sha256 : str
            64 hex digits over its bytes.
        """
        self._open.close()
        self._file = None
        self._raw.seek(0)
        self._raw.write(self._block)
        self._raw.close()
        sha256, size = hash_file(self._new.temporary), self._new.temporary.stat().st_size
        self._new.commit()
        return size, sha256

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # On a full disk closing fails as writing did, which is the error to be told.
        with suppress(OSError, RuntimeError):
            if self._file is not None:
                self._file.close()
        self._file = None
        with suppress(OSError):
            self._raw.close()
        self._new.discard()


def map_values(
    path: Path, name: str, shape: tuple[int, ...], dtype: str, identity: Identity | None = None
) -> Values:
    """Memory-map a numeric dataset of a part, read-only.

    Parameters
    ----------
    path : pathlib.Path
        The part.
    name : str
        The dataset in it.
    shape, dtype, identity
        What the manifest says it is; anything else is refused.

    Returns
    -------
    numpy.ndarray, shape `shape`, dtype `dtype`

    Raises
    ------
    Img2PromptError
        As `locate`.
    """
    if 0 in shape:
        return np.empty(shape, dtype)
    return map_at(path, name, shape, dtype, locate(path, name, shape, dtype, identity))


def map_at(
    path: Path,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    offset: int,
    mode: Literal["r", "c"] = "r",
) -> Values:
    """Memory-map a dataset as `map_values` does, where `locate` has said before at which offset it begins.

    With the mode ``"c"``, copy on write, the array can be changed, and the file cannot.
    """
    try:
        mapped = np.memmap(path, dtype=dtype, mode=mode, offset=offset, shape=shape)
    except (OSError, ValueError):
        locate(path, name, shape, dtype)  # says what is wrong
        raise
    return mapped.view(np.ndarray)  # is indexed faster than a numpy.memmap


class Loader:
    """Reads whole numeric datasets of parts, as fast as files can be read.

    Parts of one shape that begin with the same bytes are laid out in the same way, so HDF5 is asked about the
    first of them only.
    """

    def __init__(self) -> None:
        self._heads: dict[tuple[str, tuple[int, ...], str, int], bytes] = {}

    def read(self, path: Path, name: str, out: Values, identity: Identity | None = None) -> None:
        """Read a dataset into an array of its shape and dtype, of the part that it must be.

        Raises
        ------
        Img2PromptError
            As `locate`.
        """
        kind = (name, out.shape, out.dtype.name, identity is not None and identity.schema)
        head = self._heads.get(kind)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            locate(path, name, out.shape, out.dtype.name, identity)  # says what is wrong
            raise
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123
            skipped = 0
            if identity:
                skipped = len(identity.block())
                identity.require_block(path, file.read(BYTES))
                file.seek(skipped)
            if head is None or file.read(len(head)) != head:
                offset = locate(path, name, out.shape, out.dtype.name)
                file.seek(skipped)
                head = file.read(offset - skipped)
                if offset + out.nbytes == path.stat().st_size:  # nothing but the values follows
                    self._heads[kind] = head
            if file.readinto(out.data.cast("B")) != out.nbytes:
                raise foreign(path, "the file is too short")


def locate(
    path: Path, name: str, shape: tuple[int, ...], dtype: str, identity: Identity | None = None
) -> int:
    """Find where in its file a numeric dataset of a part begins.

    Raises
    ------
    Img2PromptError
        If the file is not such a part: unreadable, another one, not contiguous, another shape or type, or a
        dataset that lies elsewhere (an external file, a link, a virtual dataset).
    """
    with opened(path, identity) as file:
        dataset = own_dataset(file, path, name)
        if dataset.shape != shape or dataset.dtype != np.dtype(dtype):
            raise foreign(
                path, f"{name} is {dataset.dtype} {dataset.shape}, the manifest says {dtype} {shape}"
            )
        offset: int | None = dataset.id.get_offset()
        if offset is None:
            raise foreign(path, f"{name} is not stored in one piece")
    if offset + np.dtype(dtype).itemsize * int(np.prod(shape)) > path.stat().st_size:
        raise foreign(path, "the file is too short")
    return offset


@contextmanager
def opened(path: Path, identity: Identity | None) -> Iterator[h5py.File]:
    """Open a part for reading; whatever is wrong with it is one error that names it."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise foreign(path, "it is not a plain file")
    try:
        if identity:
            identity.require(path)
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError:
        raise Img2PromptError(f"{path} is missing. {_ADVICE}") from None
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # what h5py raises on damaged bytes
        raise Img2PromptError(f"{path} cannot be read as HDF5 ({error}). {_ADVICE}") from None


def own_dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """Give a dataset that lies in the file itself."""
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise foreign(path, f"{name} is missing or a link")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise foreign(path, f"{name} is not a plain dataset")
    return dataset


def foreign(path: Path, why: str) -> Img2PromptError:
    """Give the error for a file that is no part of ours."""
    return Img2PromptError(f"{path} is not a part this cache wrote: {why}. {_ADVICE}")


_ADVICE = "`cache.verify()` names what is damaged."
