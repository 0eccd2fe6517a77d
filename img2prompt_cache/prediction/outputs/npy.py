"""NumPy's ``.npy``, with the names of its rows beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from img2prompt_cache.destination import begins_with
from img2prompt_cache.prediction.outputs.base import Prompts, Vectors, Writer
from img2prompt_cache.prediction.outputs.text import quoted
from img2prompt_cache.tables import guard_cell

_HEADER = rb"\x93NUMPY\x01\x00(?s:..)\{'descr': '<f4', 'fortran_order': False, 'shape': \(\d+, \d+\)"


class NpyWriter(Writer):
    """``.npy`` with ``.ids.csv`` beside it: raw rows, with the header rewritten at the end."""

    @classmethod
    def finals(cls, path: Path) -> tuple[Path, ...]:
        """The names of the rows come first, so that no array ever lies there without them."""
        return (path.with_suffix(".ids.csv"), path)

    @classmethod
    def is_ours(cls, path: Path) -> bool:
        """Compare the headers; an array without the names of its rows beside it is another program's."""
        if path.name.endswith(".ids.csv"):
            return begins_with(path, rb"row,imgId\r?\n")
        return begins_with(path, _HEADER) and cls.is_ours(path.with_suffix(".ids.csv"))

    def _begin(self) -> None:
        names, values = self._new
        self._names = self._text(names)
        self._values = self._open.enter_context(self._new[values].temporary.open("wb"))
        self._rows = 0
        self._names.write("row,imgId\n")
        self._header()

    def _header(self) -> None:
        # NumPy pads the header so that a longer first axis still fits into the same bytes.
        shape = (self._rows, self._dim)
        np.lib.format.write_array_header_1_0(
            self._values, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )

    def _append(self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None) -> None:
        self._values.write(vectors.data)
        cells = [guard_cell(name) for name in ids]
        self.guarded += sum(cell != name for cell, name in zip(cells, ids, strict=True))
        self._names.writelines(f"{row},{quoted(cell)}\n" for row, cell in enumerate(cells, self._rows))
        self._rows += len(ids)

    def _finish(self) -> None:
        self._values.seek(0)
        self._header()
