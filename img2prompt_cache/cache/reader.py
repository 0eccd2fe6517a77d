"""A cache: a folder with a manifest and columns of parts, opened for reading."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.manifest import KINDS, Column, Kind, Manifest, Part
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.mapped import MappedColumn
from img2prompt_cache.cache.parts import read_text
from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.files import hash_file

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

ROW_COLUMNS = ("imgId", "uri", "prompt", "sha256", "status", "reason")
OK, FAILED = "ok", "failed"
VIEW = "cache.h5"


@dataclass(frozen=True, slots=True)
class Damage:
    """A part that is not what the manifest says it is."""

    file: str
    reason: str


class Cache:
    """A cache opened for reading; it sees the manifest as it was when opened, and never waits for a writer.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's folder.

    Raises
    ------
    UsageError
        If there is no cache.
    Img2PromptError
        If its manifest is damaged, or of a newer schema.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: Manifest = load_manifest(folder)

    @property
    def rows(self) -> int:
        """How many rows are cached."""
        return self.manifest.rows

    def column(self, kind: Kind, spec: str) -> Column:
        """Find a column that holds every row.

        Raises
        ------
        UsageError
            If there is none of this spec, or it is not complete yet.
        """
        column = self.manifest.column(kind, spec)
        if column is None:
            names = [c.spec for c in self.manifest.of_kind(kind)]
            if not names:
                raise UsageError(f"{self.folder} has no {kind} column; run `img2prompt-cache extract`")
            raise unknown(f"{kind} column", spec, names)
        if column.rows < self.rows:
            raise UsageError(
                f"{spec} is cached for {column.rows} of {self.rows} rows; run `img2prompt-cache extract "
                f"--cache {self.folder}` to finish it"
            )
        return column

    def text(self, *names: str) -> dict[str, list[str]]:
        """Read text columns of every row: `ROW_COLUMNS` or the user's own, each a list of `rows` strings."""
        columns: dict[str, list[str]] = {name: [] for name in names}
        datasets = [self._dataset_of(name) for name in names]
        for part in self.manifest.columns[0].parts:
            read = read_text(self.path(part), datasets, part.stop - part.start)
            for name, dataset in zip(names, datasets, strict=True):
                columns[name] += read[dataset]
        return columns

    def table(self, *names: str) -> pa.Table:
        """Read text columns of every row as `text` does, into an Arrow table: a tenth of the memory."""
        import pyarrow as pa

        datasets = [self._dataset_of(name) for name in names]
        chunks: list[list[pa.Array]] = [[] for _ in names]
        for part in self.manifest.columns[0].parts:
            read = read_text(self.path(part), datasets, part.stop - part.start)
            for column, dataset in zip(chunks, datasets, strict=True):
                column.append(pa.array(read[dataset], pa.string()))
        return pa.table([pa.chunked_array(column, pa.string()) for column in chunks], names=list(names))

    def _dataset_of(self, name: str) -> str:
        if name in ROW_COLUMNS:
            return name
        if name in self.manifest.extra:
            return extra_dataset(name)
        raise unknown("column", name, [*self.manifest.extra, *ROW_COLUMNS])

    def values(self, column: Column, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Read a numeric column into memory: all of it, or `rows` in their order; float32 (n, *shape)."""
        return self.mapped(column).load() if rows is None else gather(self.folder, column, rows)

    def mapped(self, column: Column, dtype: str = "float32") -> MappedColumn:
        """Map a numeric column: rows are read when they are asked for. For what does not fit into memory."""
        return MappedColumn(self.folder, column, dtype)

    def missing(self, columns: list[Column]) -> set[int]:
        """Rows that any of these columns could not compute, though their image was once good."""
        return {row for column in columns for part in column.parts for row in part.missing}

    def path(self, part: Part) -> Path:
        """Where a part lies."""
        return self.folder / part.file

    def verify(self) -> list[Damage]:
        """Re-hash every part.

        Returns
        -------
        list of Damage
            What is missing, of another size or of another hash; empty if the cache is whole.
        """
        damaged = []
        for column in self.manifest.columns:
            for part in column.parts:
                reason = damage_of(self.folder, part)
                if reason:
                    damaged.append(Damage(part.file, reason))
        return damaged

    def unknown(self) -> list[str]:
        """Name the files among the parts that the manifest does not record, as paths inside the folder.

        They are never read: a stranger's file, a part that an interrupted pass left and that extract will
        write over, or parts newer than a manifest that was brought back from a copy.
        """
        recorded = {part.file for column in self.manifest.columns for part in column.parts}
        found = []
        for kind in KINDS:
            for path, folders, files in os.walk(self.folder / kind):
                home = Path(path)
                names = [*files, *(name for name in folders if (home / name).is_symlink())]
                found += [(home / name).relative_to(self.folder).as_posix() for name in names]
        found += [path.name for path in self.folder.glob("*.h5") if path.name != VIEW]
        return sorted(name for name in found if name not in recorded and not name.endswith(".tmp"))

    def require_undamaged(self, columns: list[Column]) -> None:
        """Refuse to compute from parts whose size or hash is not the recorded one.

        Raises
        ------
        Img2PromptError
            Naming the first damaged part.
        """
        for column in columns:
            require_whole(self.folder, column.parts)


def damage_of(folder: Path, part: Part) -> str | None:
    """Say what is wrong with a part's file; None if it is the one recorded."""
    path = folder / part.file
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return "it is not a plain file"
        if status.st_size != part.bytes:
            return f"{status.st_size} bytes instead of {part.bytes}"
        return None if hash_file(path) == part.sha256 else "its bytes have changed"
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def require_whole(folder: Path, parts: Iterable[Part]) -> None:
    """Refuse parts whose size or hash is not the recorded one.

    Raises
    ------
    Img2PromptError
        Naming the first damaged part.
    """
    for part in parts:
        reason = damage_of(folder, part)
        if reason:
            raise Img2PromptError(
                f"{folder / part.file} is damaged: {reason}. `img2prompt-cache repair --cache {folder}` "
                "computes what is damaged anew."
            )


def gather(folder: Path, column: Column, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read rows of a numeric column, part by part.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's folder.
    column : Column
        With the parts these rows lie in.
    rows : numpy.ndarray, int64, shape (n,)
        Row numbers in any order, repeats allowed.

    Returns
    -------
    numpy.ndarray, float32, shape (n, *column.shape)
    """
    return MappedColumn(folder, column)[rows]


def extra_dataset(name: str) -> str:
    """Name the dataset that keeps a column of the user's own table."""
    return f"extra.{name}"
