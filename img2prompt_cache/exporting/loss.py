"""What fewer bits cost: an exported graph against the same in float32, on held-out images of its run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.exporting.fewer_bits import IMAGES
from img2prompt_cache.exporting.golden import SEED, golden_pictures, prepare, read_pictures, run_file
from img2prompt_cache.exporting.run_module import VECTORS
from img2prompt_cache.images.scenes.picture import render
from img2prompt_cache.images.scenes.words import sample_scenes
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.prediction.cached_rows import target_column
from img2prompt_cache.reporting.rows import Rows
from img2prompt_cache.runs.held_out import load_validation

if TYPE_CHECKING:
    from PIL import Image

    from img2prompt_cache.exporting.run_graph import RunParts
    from img2prompt_cache.runs.run import Run

HELD_OUT = 200
"""Held-out images that are compared."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What fewer bits cost.

    Attributes
    ----------
    images : int
        Held-out images that were compared; where none could be read, other ones, without a score.
    change : float or None
        Of the mean cosine with the true embeddings, below 0 where it is worse; None where none could be read.
    mean, least : float
        Cosine between the vectors of both graphs.
    bytes : int
        Of the graph in float32.
    """

    images: int
    change: float | None
    mean: float
    least: float
    bytes: int


def calibration_pictures(run: Run) -> list[Image.Image]:
    """Read images of a run, from all over its cache, to measure ranges on; draw some where none are there.

    None is held out, so that they say nothing of those; but of a run by folds, which holds out every row.
    """
    found: list[tuple[int, Image.Image]] = []
    try:
        if run.home is not None:
            rows = Rows.of_cache(Cache(run.home))
            held = {*load_validation(run.folder, run).ids}
            others = [row for row, name in enumerate(rows.ids) if name not in held]
            found = read_pictures(rows, IMAGES, others or None)
    except Img2PromptError:
        found = []
    if found:
        return [picture for _, picture in found]
    return [render(scene) for scene in sample_scenes(IMAGES, SEED + 1)]


def measure_loss(parts: RunParts, exact: Path, short: Path) -> Loss:
    """Compare two graphs of a run on held-out images, a few at a time.

    Parameters
    ----------
    parts : RunParts
    exact, short : pathlib.Path
        The graph in float32, and the other.
    """
    true, pictures = _held_out(parts.run)
    if not pictures:
        pictures = golden_pictures(parts.run).pictures
    vectors = []
    for path in (exact, short):
        found = []
        for start in range(0, len(pictures), 8):  # pixels of all of them need not fit into memory
            found.append(run_file(path, prepare(parts, pictures[start : start + 8]))[VECTORS])
        vectors.append(np.concatenate(found))
    between = cosine(*vectors)
    change = None
    if true is not None:
        before, after = (float(cosine(each, true).mean()) for each in vectors)
        change = after - before
    return Loss(len(pictures), change, float(between.mean()), float(between.min()), exact.stat().st_size)


def _held_out(run: Run) -> tuple[np.ndarray | None, list[Image.Image]]:
    """Read held-out images of a run, and the embeddings of their prompts; none where that cannot be done."""
    if run.home is None:
        return None, []
    try:
        cache = Cache(run.home)
        rows = Rows.of_cache(cache)
        held = {*load_validation(run.folder, run).ids}
        places = [row for row, name in enumerate(rows.ids) if name in held]
        found = read_pictures(rows, min(HELD_OUT, len(places)), places)
        if not found:
            return None, []
        column = target_column(cache, run.target)
        true = np.asarray(cache.values(column, np.array([row for row, _ in found])), np.float32)
    except Img2PromptError:
        return None, []
    good = np.flatnonzero(np.isfinite(true).all(axis=1))
    return (true[good], [found[at][1] for at in good]) if len(good) else (None, [])
