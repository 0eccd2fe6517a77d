"""The gallery: pictures of a cache with their prompts, searched by predicted and by true embeddings."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.prediction.cached_rows import best_first, predict_rows, target_column, target_rows
from img2prompt_cache.reporting.pictures import picture, sample
from img2prompt_cache.reporting.rows import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.columns import UsedColumn
    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.runs.run import Run

    F32 = NDArray[np.float32]

MOST_ROWS = 50_000
"""Rows of a cache that the gallery has; of more, so many are drawn at random."""
STEP = 128
"""Rows that are predicted between two looks at what waits."""
KEPT_BYTES = 32 << 20
"""Of pictures that are kept in memory."""
SIDES = (256, 1024)
"""Pixels of the longer side of a picture: in a list, and alone."""


@dataclass(slots=True, eq=False)
class _Predicted:
    """What a run predicts for the rows of the gallery, as far as that is done."""

    vectors: F32
    known: NDArray[np.bool_]
    done: int = 0
    broken: str = ""


class Gallery:
    """The usable rows of a cache: pictures, prompts, and embeddings to search by.

    Parameters
    ----------
    cache : Cache
    seed : int
        Of the rows that are drawn where there are too many.

    Attributes
    ----------
    shown : numpy.ndarray, int64, shape (n,)
        Row numbers in the cache, ascending.
    """

    def __init__(self, cache: Cache, seed: int = 0) -> None:
        self._cache = cache
        self.rows = Rows.of_cache(cache)
        self.shown = np.array(sample(self.rows.good, MOST_ROWS, seed), np.int64)
        self.total = len(self.rows.good)
        self._predicted: OrderedDict[tuple[str, str], _Predicted] = OrderedDict()
        self._true: dict[str, F32] = {}
        self._lock = Lock()
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self.shown)

    @cached_property
    def _places(self) -> dict[int, int]:
        return {row: at for at, row in enumerate(self.shown.tolist())}

    def has(self, row: int) -> bool:
        """Whether a row of the cache is in the gallery."""
        return row in self._places

    def thumbnail(self, row: int, side: int) -> bytes:
        """Make a small picture of a row, as WebP. Safe in threads.

        Raises
        ------
        ImageError
            If the image cannot be read any more, has changed, or it is not known what was cached.
        """
        key = (row, side)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = picture(self.rows.image(row), side).thumbnail
        with self._lock:
            self._kept_bytes += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._kept_bytes > KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return made

    def progress(self, run: Run) -> float:
        """Tell for which part of the rows the run has predicted, 0…1."""
        found = self._predicted.get(_key(run))
        return 0.0 if found is None else found.done / max(1, len(self))

    def problem(self, run: Run) -> str:
        """Tell why the run cannot predict for these rows; empty if it can."""
        found = self._predicted.get(_key(run))
        return found.broken if found else ""

    def alike(self, run: Run, vectors: F32, k: int) -> list[list[tuple[int, float]]]:
        """Find the rows whose prediction is nearest to each vector: row numbers and cosines, best first.

        None until the run has predicted for every row.
        """
        found = self._predicted.get(_key(run))
        if found is None or found.done < len(self):
            return [[] for _ in vectors]
        return [self._best(cosines, found.known, k) for cosines in vectors @ found.vectors.T]

    def near(self, run: Run, vector: F32, k: int) -> list[tuple[int, float]]:
        """Find the rows whose own prompt is nearest to a vector: row numbers and cosines, best first.

        Raises
        ------
        Img2PromptError
            If the targets of the cache are not those that the run was fitted on.
        """
        vectors = self._targets(run.target)
        return self._best(vectors @ vector, np.isfinite(vectors[:, 0]), k)

    def cosine(self, run: Run, row: int, vector: F32) -> float | None:
        """Give the cosine of the embedding of a row's own prompt with a vector; None where it has none."""
        value = float(self._targets(run.target)[self._places[row]] @ vector)
        return value if np.isfinite(value) else None

    def predict_some(self, run: Run, head: Head) -> bool:
        """Predict for some more rows; False where all is done, or cannot be."""
        found = self._predicted.get(_key(run))
        if found is None:
            shape = (len(self), run.target.width)
            found = _Predicted(np.zeros(shape, np.float32), np.zeros(len(self), bool))
            self._predicted[_key(run)] = found
            while len(self._predicted) > 4:
                self._predicted.popitem(last=False)
        if found.broken or found.done >= len(self):
            return False
        at = slice(found.done, found.done + STEP)
        try:
            vectors, _, whole = predict_rows(self._cache, run.features, head, self.shown[at])
            if whole.any():
                found.vectors[at][whole] = vectors
                found.known[at] = whole
        except Img2PromptError as error:
            found.broken = str(error)
            return False
        found.done = min(found.done + STEP, len(self))
        return True

    def _targets(self, target: UsedColumn) -> F32:
        """Give the embeddings of the prompts of all rows, shape (n, t); NaN where a row has none."""
        if target.spec not in self._true:
            self._cache.require_undamaged([target_column(self._cache, target)])
            self._true = {target.spec: target_rows(self._cache, target, self.shown)}
        return self._true[target.spec]

    def _best(self, cosines: F32, known: NDArray[np.bool_], k: int) -> list[tuple[int, float]]:
        scores = np.where(known, cosines, -np.inf)
        return [(int(self.shown[at]), float(min(1.0, scores[at]))) for at in best_first(scores, k).tolist()]


def _key(run: Run) -> tuple[str, str]:
    return run.name, run.head_sha256
