"""Kaggle's submission, a ``.csv``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from img2prompt_cache.destination import begins_with
from img2prompt_cache.prediction.outputs.base import Columns, Prompts, Vectors, Writer
from img2prompt_cache.prediction.outputs.text import quoted, shortest
from img2prompt_cache.tables import guard_cell

_PLAIN = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?|-[A-Za-z0-9_.-]+")
"""Ids that stay as they are: numbers, and a hyphen before what has no call, reference or operator in it."""


class CsvWriter(Writer):
    """Kaggle's submission format, one line a value.

    A submission lacks no row: see `complete`.

    Attributes
    ----------
    filled : list of str
        Images so far that have the mean in the file, because there was no prediction for them.
    """

    keeps_every_image: ClassVar[bool] = True

    def __init__(self, path: Path, dim: int) -> None:
        super().__init__(path, dim)
        self.filled: list[str] = []
        self._expected: Iterator[str] = iter(())
        self._mean: Callable[[], Vectors] | None = None
        self._mean_values: list[str] = []
        self._verbatim = False

    def complete(self, ids: Iterable[str], mean: Callable[[], Vectors], *, verbatim: bool = False) -> None:
        """Give every image a row, with the mean for those that there is no prediction for.

        Parameters
        ----------
        ids : iterable of str
            imgId of every image that the file has to have, in order. It is read as rows are written, and the
            rows must come in this order.
        mean : callable
            Gives the mean, shape (dim,); it is called where one is missing.
        verbatim : bool
            Write ids as they are, also those that a spreadsheet would compute.
        """
        self._expected, self._mean, self._verbatim = iter(ids), mean, verbatim

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
            if self._mean is not None:
                self._fill(until=name)
            self._write_image(name, values)

    def _finish(self) -> None:
        if self._mean is not None:
            self._fill()

    def _fill(self, until: str | None = None) -> None:
        """Write the mean for all images before the one named, or all that are left."""
        for name in self._expected:
            if name == until:
                return
            if self._mean is not None and not self._mean_values:
                (self._mean_values,) = shortest(np.asarray(self._mean(), "<f4").reshape(1, self._dim))
            self._write_image(name, self._mean_values)
            self.filled.append(name)
        if until is not None:
            raise ValueError(f"{until} was not expected, or not here")

    def _write_image(self, name: str, values: list[str]) -> None:
        plain = self._verbatim or _PLAIN.fullmatch(name)
        cell = f"{name}_" if plain else guard_cell(f"{name}_")
        self.guarded += cell != f"{name}_"
        field = quoted(cell)
        # A quoted name takes the number in before its closing quote.
        start, end = (field[:-1], '"') if field.startswith('"') else (field, "")
        self._file.write("".join([f"{start}{i}{end},{value}\n" for i, value in enumerate(values)]))
