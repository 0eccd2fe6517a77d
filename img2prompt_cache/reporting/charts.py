"""Charts of a report as plain data: what is drawn, and the table that says the same in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Cell: TypeAlias = str | int | float | None

FEWEST_BINS, MOST_BINS = 5, 40
MOST = 1e12
"""No value of a chart is larger; what is comes of damage."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie between two bounds.

    Attributes
    ----------
    title, x_label : str
    edges : tuple of float, length b + 1
    counts : tuple of int, length b
    marks : dict of str to float
        Values that are marked by a line, by what they are.
    of : str
        What is counted: ``"prompts"``.
    """

    title: str
    x_label: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    marks: dict[str, float] = field(default_factory=dict)
    of: str = "rows"

    @property
    def header(self) -> list[str]:
        """Names of the table's columns."""
        return ["from", "to", self.of]

    @property
    def rows(self) -> list[list[Cell]]:
        """The table."""
        return [
            [low, high, count] for (low, high), count in zip(pairwise(self.edges), self.counts, strict=True)
        ]

    @property
    def described(self) -> str:
        """The chart in a sentence, for those who cannot see it."""
        most = int(np.argmax(self.counts)) if self.counts else 0
        if not self.counts:
            return f"Histogram: {self.title}. No values."
        return (
            f"Histogram: {self.title}. {sum(self.counts)} {self.of} between {self.edges[0]:g} and "
            f"{self.edges[-1]:g}; most of them, {self.counts[most]}, between {self.edges[most]:g} and "
            f"{self.edges[most + 1]:g}."
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """A named curve: values of y at x, of equal length."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """Curves with one pair of axes.

    Attributes
    ----------
    title, x_label, y_label : str
    curves : tuple of Curve
    log_x : bool
        Whether the x axis is logarithmic.
    marks : dict of str to float
        Values of x that are marked by a line, by what they are.
    diagonal : bool
        Whether y = x is drawn, as where what was expected is compared with what came.
    joined : bool
        Whether the values are joined by lines, instead of standing as points.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_x: bool = False
    marks: dict[str, float] = field(default_factory=dict)
    diagonal: bool = False
    joined: bool = True

    @property
    def header(self) -> list[str]:
        """Names of the table's columns."""
        return ["curve", self.x_label, self.y_label]

    @property
    def rows(self) -> list[list[Cell]]:
        """The table."""
        return [[curve.name, x, y] for curve in self.curves for x, y in zip(curve.x, curve.y, strict=True)]

    @property
    def described(self) -> str:
        """The chart in a sentence, for those who cannot see it."""
        ends = "; ".join(
            f"{curve.name} from {curve.y[0]:.4g} to {curve.y[-1]:.4g}" for curve in self.curves if curve.y
        )
        return f"Curves: {self.title}. {self.y_label} by {self.x_label}: {ends}."


@dataclass(frozen=True, slots=True)
class Cloud:
    """Words whose size tells how often they occur: a word cloud."""

    title: str
    counts: dict[str, int]

    @property
    def header(self) -> list[str]:
        """Names of the table's columns."""
        return ["word", "prompts"]

    @property
    def rows(self) -> list[list[Cell]]:
        """The table."""
        return [[word, count] for word, count in self.counts.items()]

    @property
    def described(self) -> str:
        """The chart in a sentence, for those who cannot see it."""
        first = ", ".join(f"{word} ({count})" for word, count in list(self.counts.items())[:10])
        return f"Word cloud: {self.title}. The most frequent are {first}."


Chart: TypeAlias = Histogram | Curves | Cloud


def histogram(
    title: str,
    x_label: str,
    values: ArrayLike,
    *,
    of: str = "rows",
    bins: int | Sequence[float] | None = None,
    marks: Mapping[str, float] | None = None,
) -> Histogram:
    """Count values in bins of equal width, or between given edges; values beyond these count as the last.

    Parameters
    ----------
    title, x_label, of
        As for `Histogram`.
    values : array_like of float
        Those that are not finite, or beyond `MOST`, are left out.
    bins : int or sequence of float, optional
        How many bins, or their edges; Sturges' rule if None, and whole numbers get bins of whole width.
    marks : mapping of str to float, optional
    """
    array = np.asarray(values, np.float64).ravel()
    array = array[np.abs(array) <= MOST]
    if not len(array):
        return Histogram(title, x_label, (), (), dict(marks or {}), of)
    if bins is None or isinstance(bins, int):
        wanted = bins or int(np.clip(np.ceil(np.log2(len(array)) * 2), FEWEST_BINS, MOST_BINS))
        low, high = float(array.min()), float(array.max())
        if np.array_equal(array, np.round(array)):
            step = max(1, int(np.ceil((high - low + 1) / wanted)))
            edges = np.arange(low, high + step + 1, step) if high > low else np.array([low, low + 1])
            edges = edges[: int(np.searchsorted(edges, high, side="right")) + 1]
        elif high - low > 1e-9 * max(abs(low), abs(high)):
            edges = np.linspace(low, high, wanted + 1)
        else:
            edges = np.array([low - 0.5, low + 0.5])
    else:
        edges = np.asarray(bins, np.float64)
    counts, edges = np.histogram(np.clip(array, edges[0], edges[-1]), edges)
    return Histogram(title, x_label, tuple(edges.tolist()), tuple(counts.tolist()), dict(marks or {}), of)
