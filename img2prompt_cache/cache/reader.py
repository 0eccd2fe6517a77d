"""A cache: a folder with a manifest and columns of parts, opened for reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.arrays import find_kind, whole_array
from img2prompt_cache.cache.damage import (
    Damage,
    damage_of,
    find_damage,
    require_undamaged,
    size_damage_of,
    unrecorded_files,
)
from img2prompt_cache.cache.manifest import MANY_PARTS, Column, Kind, Manifest, Part
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.mapped import MappedColumn
from img2prompt_cache.cache.part_text import read_rows_part
from img2prompt_cache.cache.writer import find_writer
from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.tables import Records, counted, data_frame, html_table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray
    from torch import Tensor

OK, FAILED, REMOVED = "ok", "failed", "removed"
"""What `status` says of a row. A removed row was good once; its values stay, and nothing uses them."""
_FINISH = "run `extract()` to finish it"


class Cache:
    """A cache opened for reading; it sees the manifest as it was when opened, and never waits for a writer.

    Parameters
    ----------
    folder : str or pathlib.Path
        The cache's folder.

    Raises
    ------
    UsageError
        If there is no cache.
    Img2PromptError
        If its manifest is damaged, or of a newer schema.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest: Manifest = load_manifest(self.folder)

    def __repr__(self) -> str:
        return (
            f"Cache({str(self.folder)!r}, {counted(self.rows, 'row', 'rows', ',')}, "
            f"{counted(len(self.manifest.columns), 'column', 'columns')})"
        )

    def _repr_html_(self) -> str:
        records = self.columns
        names = list(records[0])
        return html_table(names, [[record[name] for name in names] for record in records], repr(self))

    @property
    def rows(self) -> int:
        """How many rows are cached."""
        return self.manifest.rows

    @property
    def columns(self) -> Records:
        """What is cached, for each column: its name, kind, shape, dtype and size on disk in bytes."""
        return Records(
            {
                "name": column.spec or "rows",
                "kind": column.kind,
                "shape": [column.rows, *column.shape],
                "dtype": column.dtype,
                "bytes": column.bytes,
            }
            for column in self.manifest.columns
        )

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
            parameter = "encoder" if kind == "targets" else "features"
            error = (
                unknown(f"{kind} column", spec, names, parameter=parameter)
                if names
                else UsageError(f"{self.folder} has no {kind} column; `extract()` adds one")
            )
            if writer := find_writer(self.folder):
                told = f"{writer} is writing this cache: if it adds {spec}, wait for it to end"
                raise UsageError(f"{told}; {error}", parameter=error.parameter)
            raise error
        if column.rows < self.rows:
            writer = find_writer(self.folder)
            raise UsageError(
                f"{spec} is cached for {column.rows} of {counted(self.rows, 'row', 'rows')}; "
                + (f"{writer} is writing this cache: wait for it to end" if writer else _FINISH)
            )
        return column

    def text(self, *names: str) -> dict[str, list[str]]:
        """Read text columns of every row.

        Parameters
        ----------
        *names : str
            Of `ROW_COLUMNS` or of the user's own table.

        Returns
        -------
        dict of str to list of str
            For each name, one string for each row.

        Raises
        ------
        UsageError
            If there is no such column.
        Img2PromptError
            If a part cannot be read.
        """
        columns: dict[str, list[str]] = {name: [] for name in names}
        for _, read in self.text_by_part(*names):
            for name, values in read.items():
                columns[name] += values
        return columns

    def text_by_part(self, *names: str) -> Iterator[tuple[Part, dict[str, list[str]]]]:
        """Read text columns as `text` does, of one part of the rows after the other."""
        datasets = self._datasets(names)
        for part in self.manifest.columns[0].parts:
            read = read_rows_part(self.folder, self.manifest.columns[0], part, datasets)
            yield part, {name: read[dataset] for name, dataset in zip(names, datasets, strict=True)}

    def table(self, *names: str) -> pa.Table:
        """Read text columns of every row as `text` does, into an Arrow table: a tenth of the memory."""
        import pyarrow as pa

        chunks: dict[str, list[pa.Array]] = {name: [] for name in names}
        for _, read in self.text_by_part(*names):
            for name, values in read.items():
                chunks[name].append(pa.array(values, pa.string()))
        return pa.table({name: pa.chunked_array(arrays, pa.string()) for name, arrays in chunks.items()})

    def _datasets(self, names: Sequence[str]) -> list[str]:
        known = self.manifest.row_datasets
        for name in names:
            if name not in known:
                raise unknown("column", name, known)
        return [known[name] for name in names]

    def values(self, column: Column, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Read a numeric column into memory.

        Parameters
        ----------
        column : Column
        rows : numpy.ndarray, int64, shape (n,), optional
            Row numbers in any order, repeats allowed; every row if absent.

        Returns
        -------
        numpy.ndarray, float32, shape (n, *column.shape)
            NaN where a row has no value.

        Raises
        ------
        IndexError
            If there is no such row.
        Img2PromptError
            If a part is not what the manifest says.
        """
        mapped = self.mapped(column)
        return mapped.load() if rows is None else mapped[rows]

    def mapped(self, column: Column, dtype: str = "float32") -> MappedColumn:
        """Map a numeric column that need not fit into memory: rows are read when they are asked for."""
        return MappedColumn(self.folder, column, dtype)

    def numpy(self, spec: str, kind: str | None = None) -> NDArray[Any]:
        """Give a whole column as an array for code of your own, row for row as `pandas` has them.

        Parameters
        ----------
        spec : str
            Of a backbone or an encoder, as `columns` lists it.
        kind : str, optional
            ``"features"``, ``"targets"``, ``"trunk"`` or ``"views"``. Needed for the text tower of a CLIP
            model whose image tower is cached, too: ``"targets"``.

        Returns
        -------
        numpy.ndarray, shape (rows, …)
            float16 for features, trunks and views, float32 for targets, and for what is stored in int8.
            Read-only, and memory-mapped where the column is one part. NaN where a row has no value: its image
            could not be read, or it has no prompt.

        Raises
        ------
        UsageError
            If there is no such column, or it is not complete.
        Img2PromptError
            If a part is not what the manifest says; `verify` also finds changed values.
        """
        found = whole_array(self.folder, self._numeric(spec, kind), "r")
        found.flags.writeable = False
        return found

    def torch(self, spec: str, kind: str | None = None) -> Tensor:
        """Give a column as `numpy` does, as a tensor on the CPU; changes to it stay in memory."""
        from torch import from_numpy

        return from_numpy(whole_array(self.folder, self._numeric(spec, kind), "c"))

    def pandas(self) -> pd.DataFrame:
        """Give a data frame with a line for each row: `ROW_COLUMNS`, then the columns of your own table.

        All are texts. Rows with a `status` other than ``"ok"`` are of no use, and without a `prompt` there is
        no target.

        Raises
        ------
        Img2PromptError
            If pandas is not installed, or a part cannot be read.
        """
        data_frame([])  # says what to install
        found: pd.DataFrame = self.table(*self.manifest.row_datasets).to_pandas()
        return found

    def _numeric(self, spec: str, kind: str | None) -> Column:
        return self.column(find_kind(self.manifest, spec, kind), spec)

    def missing(self, columns: list[Column]) -> set[int]:
        """Give the rows that one of these columns lacks, though their image could be read at first."""
        return {row for column in columns for part in column.parts for row in part.missing}

    def lacking(self) -> dict[str, int]:
        """Count the images that could not be read again, for each column that lacks any; removed ones aside.

        Raises
        ------
        Img2PromptError
            If a part of the rows is damaged.
        """
        columns = self.manifest.columns
        rows, counts = columns[0], dict.fromkeys((column.folder for column in columns), 0)
        for number, part in enumerate(rows.parts):
            lacks = {c.folder: c.parts[number].missing for c in columns if number < len(c.parts)}
            if any(lacks.values()):
                status = read_rows_part(self.folder, rows, part, ["status"])["status"]
                for folder, missing in lacks.items():
                    counts[folder] += sum(status[row - part.start] != REMOVED for row in missing)
        return {folder: count for folder, count in counts.items() if count}

    def path(self, part: Part) -> Path:
        """Where a part lies."""
        return self.folder / part.file

    def verify(self) -> list[Damage]:
        """Re-hash every part.

        Returns
        -------
        list of Damage
            What is missing, of another size or hash, or another part; empty if the cache is whole.
        """
        return find_damage(self.folder, self.manifest, damage_of)

    def check_sizes(self) -> list[Damage]:
        """Compare the size of every part with the recorded one, without reading any.

        Returns
        -------
        list of Damage
            What is missing, of another size or no plain file. A part of the recorded size may be damaged all
            the same: `verify` reads it.
        """
        return find_damage(self.folder, self.manifest, size_damage_of)

    def crowded(self) -> list[str]:
        """Name the columns that have more than `MANY_PARTS` parts, by their folders.

        Only caches that version 0.1 made, that are not finished, or of as many sources have any. This library
        reads them; other readers of `cache.h5` may silently find parts of them empty.
        """
        return [column.folder for column in self.manifest.columns if len(column.parts) > MANY_PARTS]

    def unrecorded(self) -> list[str]:
        """List the files among the parts that the manifest does not record.

        They are never read. It may be a file of somebody else, a part that an interrupted pass left and the
        next one replaces, or a part newer than a manifest that was restored from a copy.

        Returns
        -------
        list of str
            Paths inside the folder, sorted. Temporary files do not count.
        """
        return unrecorded_files(self.folder, self.manifest)

    def require_undamaged(self, columns: list[Column]) -> None:
        """Refuse to compute from parts whose size or hash is not the recorded one.

        Raises
        ------
        Img2PromptError
            Naming the first damaged part.
        """
        for column in columns:
            require_undamaged(self.folder, column, column.parts)
