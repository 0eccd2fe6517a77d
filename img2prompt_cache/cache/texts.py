"""Texts of many rows: a sequence of strings kept as one Arrow array, which takes a fraction of the memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice
from operator import eq, ne
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

BLOCK = 4096
"""Texts that are strings at a time."""


class Texts(Sequence[str]):
    """Strings that never change: 8 bytes and those of the UTF-8 text each, where `str` takes 60 and more.

    Parameters
    ----------
    values : pyarrow.LargeStringArray
        Without nulls.
    """

    def __init__(self, values: pa.LargeStringArray) -> None:
        self._values = values

    @classmethod
    def of(cls, values: Iterable[str]) -> Texts:
        """Keep strings as texts; texts stay as they are."""
        if isinstance(values, cls):
            return values
        left, writer = iter(values), TextWriter()
        while some := list(islice(left, BLOCK)):
            writer.add(some)
        return writer.texts()

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Texts: ...

    def __getitem__(self, index: int | slice) -> str | Texts:
        """Give one text, or some of them."""
        if isinstance(index, slice):
            return Texts.of(self.take(np.arange(*index.indices(len(self)))))
        text: str = self._values[range(len(self))[index]].as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from self._values[start : start + BLOCK].to_pylist()

    def __eq__(self, other: object) -> bool:
        """Whether a sequence holds the same strings in the same order."""
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, islice(self, 3)))
        return f"Texts({len(self):,}: {shown}{', …' if len(self) > 3 else ''})"

    def take(self, rows: Rows) -> Iterator[str]:
        """Iterate over the texts of some rows, in their order."""
        for start in range(0, len(rows), BLOCK):
            yield from self._values.take(rows[start : start + BLOCK]).to_pylist()

    def label_distinct(self) -> Rows:
        """Give equal texts the same number, and others another: int64, shape (n,)."""
        order = sort_rows([self])  # a dictionary would take a second copy, and a table of hashes
        before = chain([None], self.take(order))
        new = np.fromiter(map(ne, before, self.take(order)), bool, len(self))
        label = np.empty(len(self), np.int64)
        label[order] = np.cumsum(new)
        return label


class TextWriter:
    """Texts being put together: their bytes grow in place, so that there is never a second copy of them."""

    def __init__(self) -> None:
        self._bytes, self._stops = bytearray(), array("q", [0])

    def add(self, values: Iterable[str]) -> None:
        """Append some strings."""
        encoded = [value.encode() for value in values]
        self._stops.extend(islice(accumulate(map(len, encoded), initial=self._stops[-1]), 1, None))
        self._bytes += b"".join(encoded)

    def texts(self) -> Texts:
        """Give the texts, of which there may be no more then."""
        import pyarrow as pa

        stops, data = pa.py_buffer(self._stops), pa.py_buffer(self._bytes)
        return Texts(pa.LargeStringArray.from_buffers(len(self._stops) - 1, stops, data))


def sort_rows(columns: Sequence[Texts]) -> Rows:
    """Order rows by their texts in the first column, where these are equal in the second, and so on.

    Parameters
    ----------
    columns : sequence of Texts, length n

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
        The rows, in the order in which Python sorts strings, which is that of their UTF-8 bytes.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names = [str(number) for number in range(len(columns))]
    table = pa.table([column._values for column in columns], names=names)
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in names])
    return np.asarray(order).view(np.int64)
