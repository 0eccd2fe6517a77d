"""Kaggle's submission, a ``.csv``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from img2prompt_cache.destination import begins_with
from img2prompt_cache.prediction.outputs.base import Columns, Prompts, Vectors, Writer
from img2prompt_cache.prediction.outputs.text import quoted, shortest
from img2prompt_cache.tables import guard_cell

_PLAIN = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?|-[A-Za-z0-9_.-]+")
"""Ids that stay as they are: numbers, and a hyphen before what has no call, reference or operator in it."""


class CsvWriter(Writer):
    """Kaggle's submission format, one line a value."""

    @classmethod
    def is_ours(cls, path: Path) -> bool:
        """Compare the header."""
        return begins_with(path, rb"imgId_eId,val\r?\n")

    def _begin(self) -> None:
        self._file = self._text(self._path)
        self._file.write("imgId_eId,val\n")

    def _append(
        self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None, columns: Columns
    ) -> None:
        for name, values in zip(ids, shortest(vectors), strict=True):
            cell = f"{name}_" if _PLAIN.fullmatch(name) else guard_cell(f"{name}_")
            self.guarded += cell != f"{name}_"
            field = quoted(cell)
            # A quoted name takes the number in before its closing quote.
            start, end = (field[:-1], '"') if field.startswith('"') else (field, "")
            self._file.write("".join([f"{start}{i}{end},{value}\n" for i, value in enumerate(values)]))
