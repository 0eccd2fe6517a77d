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
    from numpy.typing import NDArray
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
    found: list[Image.Image] = []
    try:
        if run.home is not None:
            rows = Rows.of_cache(Cache(run.home))
            held = {*load_validation(run.folder, run).ids}
            others = [row for row, name in enumerate(rows.ids) if name not in held]
            found = [picture for _, picture in read_pictures(rows, IMAGES, others or None)]
    except Img2PromptError:
        found = []
    return found or [render(scene) for scene in sample_scenes(IMAGES, SEED + 1)]


def measure_loss(parts: RunParts, exact: Path, short: Path) -> Loss:
    """Compare two graphs of a run on held-out images.

    Parameters
    ----------
    parts : RunParts
    exact, short : pathlib.Path
        The graph in float32, and the other.
    """
    true, pixels = _held_out(parts)
    if true is None:
        pixels = prepare(parts, golden_pictures(parts.run).pictures)
    vectors = [run_file(path, pixels)[VECTORS] for path in (exact, short)]
    between = cosine(*vectors)
    change = None
    if true is not None:
        before, after = (float(cosine(each, true).mean()) for each in vectors)
        change = after - before
    return Loss(len(between), change, float(between.mean()), float(between.min()), exact.stat().st_size)


def _held_out(parts: RunParts) -> tuple[np.ndarray | None, dict[str, NDArray[np.uint8]]]:
    """Read held-out images of a run as its graph takes them, and the embeddings of their prompts.

    None, and no images, where that cannot be done.
    """
    run = parts.run
    if run.home is None:
        return None, {}
    try:
        cache = Cache(run.home)
        rows = Rows.of_cache(cache)
        held = {*load_validation(run.folder, run).ids}
        places = [row for row, name in enumerate(rows.ids) if name in held]
        # Images are brought to their size one by one: all of them as they are may not fit into memory.
        read = {
            row: prepare(parts, [picture])
            for row, picture in read_pictures(rows, min(HELD_OUT, len(places)), places)
        }
        if not read:
            return None, {}
        read = dict(sorted(read.items()))
        true = np.asarray(cache.values(target_column(cache, run.target), np.array([*read])), np.float32)
    except Img2PromptError:
        return None, {}
    good = np.flatnonzero(np.isfinite(true).all(axis=1))
    if not len(good):
        return None, {}
    pixels = [*read.values()]
    found = [pixels[at] for at in good]
    return true[good], {name: np.concatenate([each[name] for each in found]) for name in found[0]}
