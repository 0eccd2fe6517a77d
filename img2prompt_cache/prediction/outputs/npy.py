"""NumPy's ``.npy``, with the names of its rows beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from img2prompt_cache.destination import begins_with
from img2prompt_cache.prediction.outputs.base import Columns, Prompts, Vectors, Writer, plain
from img2prompt_cache.prediction.outputs.text import quoted
from img2prompt_cache.sources.owntables import FURTHER_COLUMNS
from img2prompt_cache.tables import guard_cell

_HEADER = rb"\x93NUMPY\x01\x00(?s:..)\{'descr': '<f4', 'fortran_order': False, 'shape': \(\d+, \d+\)"
_NAMES = rb"row,imgId(?:,(?:%s))*\r?\n" % "|".join(FURTHER_COLUMNS).encode()


class NpyWriter(Writer):
    """``.npy`` with ``.ids.csv`` beside it: raw rows, with the header rewritten at the end.

    Further columns stand in ``.ids.csv``, as JSON; which ones is settled by the first rows.
    """

    keeps_columns = True

    @classmethod
    def finals(cls, path: Path) -> tuple[Path, ...]:
        """The names of the rows come first, so that no array ever lies there without them."""
        return (path.with_suffix(".ids.csv"), path)

    @classmethod
    def is_ours(cls, path: Path) -> bool:
        """Compare the headers; an array without the names of its rows beside it is another program's."""
        if path.name.endswith(".ids.csv"):
            return begins_with(path, _NAMES)
        return begins_with(path, _HEADER) and cls.is_ours(path.with_suffix(".ids.csv"))

    def _begin(self) -> None:
        names, values = self._new
        self._names = self._text(names)
        self._values = self._open.enter_context(self._new[values].temporary.open("wb"))
        self._rows = 0
        self._header()

    def _header(self) -> None:
        # NumPy pads the header so that a longer first axis still fits into the same bytes.
        shape = (self._rows, self._dim)
        np.lib.format.write_array_header_1_0(
            self._values, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )

    def _append(
        self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None, columns: Columns
    ) -> None:
        if not self._rows:
            self._name_columns(columns)
        self._values.write(vectors.data)
        cells = [guard_cell(name) for name in ids]
        self.guarded += sum(cell != name for cell, name in zip(cells, ids, strict=True))
        for at, cell in enumerate(cells):
            values = [quoted(json.dumps(plain(column[at]))) for column in columns.values()]
            self._names.write(",".join([str(self._rows + at), quoted(cell), *values]) + "\n")
        self._rows += len(ids)

    def _name_columns(self, columns: Columns) -> None:
        self._names.write(",".join(["row", "imgId", *columns]) + "\n")

    def _finish(self) -> None:
        if not self._rows:
            self._name_columns({})
        self._values.seek(0)
        self._header()
