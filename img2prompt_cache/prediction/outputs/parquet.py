"""Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from img2prompt_cache.prediction.outputs.base import Columns, Prompts, Vectors, Writer, records
from img2prompt_cache.sources.owntables import FURTHER_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa


class ParquetWriter(Writer):
    """A parquet table; whether it has prompts is settled by the first rows."""

    keeps_prompts = True
    keeps_columns = True
    _group_rows: ClassVar[int] = 4096

    @classmethod
    def is_ours(cls, path: Path) -> bool:
        """Compare the columns."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            names = pq.read_schema(path).names
        except pa.ArrowException:
            return False
        return names[:2] == ["imgId", "embedding"] and {*names[2:]} <= {"prompts", *FURTHER_COLUMNS}

    def _begin(self) -> None:
        self._parquet: Any = None
        self._waiting: list[pa.Table] = []

    def _append(
        self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None, columns: Columns
    ) -> None:
        self._waiting.append(self._table(ids, vectors, prompts, columns))
        if sum(len(table) for table in self._waiting) >= self._group_rows:
            self._flush()

    def _table(
        self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None, columns: Columns
    ) -> pa.Table:
        import pyarrow as pa

        found = {
            "imgId": pa.array(ids, pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self._dim),
        }
        found |= {name: pa.array(values) for name, values in columns.items()}
        if prompts is not None:
            record = pa.struct([("prompt", pa.string()), ("cosine", pa.float32())])
            found["prompts"] = pa.array([records(nearest) for nearest in prompts], pa.list_(record))
        return pa.table(found)

    def _flush(self) -> None:
        """Write the waiting rows as one row group: many small ones make a large, slow file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.concat_tables(self._waiting)
        if self._parquet is None:
            self._parquet = self._open.enter_context(
                pq.ParquetWriter(self._new[self._path].temporary, table.schema, use_dictionary=["imgId"])
            )
        self._parquet.write_table(table)
        self._waiting.clear()

    def _finish(self) -> None:
        if self._parquet is None and not self._waiting:
            self._waiting.append(self._table([], np.empty((0, self._dim), np.float32), None, {}))
        if self._waiting:
            self._flush()
