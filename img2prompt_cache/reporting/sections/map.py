"""The section on the map: prompts and images on a plane, near ones near each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.standardise import mean_and_scale
from img2prompt_cache.progress import Callback, warn
from img2prompt_cache.reporting.projection import cluster, name_clusters, project
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.tables import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.reporting.material import Material

NAME = "map"
TITLE = "Map"

LONGEST = 120
MOST_PROGRAMS = 7
"""Programs that have a colour of their own; the others share one."""
LEVELS = 5
"""Steps of the colours of scores."""


@dataclass(frozen=True, slots=True)
class View:
    """Places of the points on one plane.

    Attributes
    ----------
    title, method : str
        What is near to what, and how they were placed.
    x, y : list of float
        0…1, to three digits.
    """

    title: str
    method: str
    x: list[float]
    y: list[float]


@dataclass(frozen=True, slots=True)
class Named:
    """A cluster or a program: its name, how many points it has, and their mean cosine where it is known."""

    name: str
    points: int
    cosine: float | None


@dataclass(frozen=True, slots=True)
class MapSection:
    """Prompts and images on planes.

    Attributes
    ----------
    of : int
        Rows that could have been drawn.
    rows : list of int
    ids, prompts : list of str
    views : list of View
        Of the prompts, and of the images.
    clusters, programs : list of Named
    cluster, program : list of int
        Of each point; −1 for none.
    run : str
        The run whose cosines are shown; empty where there is none.
    score : list of float or None
        Cosine of its prediction, for points that were held out.
    level : list of int
        The fifth of the scores that it is in, 0 the lowest; −1 for none.
    notes : list of str
    """

    of: int
    rows: list[int]
    ids: list[str]
    prompts: list[str]
    views: list[View]
    clusters: list[Named]
    programs: list[Named]
    cluster: list[int]
    program: list[int]
    run: str
    score: list[float | None]
    level: list[int]
    notes: list[str]

    @property
    def shown(self) -> list[int]:
        """Rows whose pictures are shown, all in one."""
        return self.rows


def gather(material: Material, tell: Callback) -> MapSection | None:
    """Make the data of the section; None without embeddings of prompts.

    Raises
    ------
    Img2PromptError
        If a part is damaged, or a value is not finite.
    """
    cache, target = material.cache, material.target
    if cache is None or target is None:
        return None
    prompted = {*material.rows.prompted}
    features = next((c for c in cache.manifest.of_kind("features") if c.rows == cache.rows), None)
    missing = cache.missing([] if features is None else [features])
    good = [row for row in material.rows.good if row in prompted and row not in missing]
    drawn = {*material.measured}
    rows = [row for row in good if row in drawn]
    if len(rows) < 2:
        return None
    cache.require_undamaged([target])
    places = np.array(rows, np.int64)
    notes: list[str] = []
    vectors = _finite(cache.values(target, places), target.folder)
    views = [_view(vectors, "Prompts, by their embeddings", material.seed)]
    if features is not None:
        try:
            cache.require_undamaged([features])
            values = _finite(cache.values(features, places), features.folder)
            mean, scale = mean_and_scale(values)
            views.append(
                _view(unit((values - mean) / scale), f"Images, by features of {features.spec}", material.seed)
            )
        except Img2PromptError as error:
            notes.append(f"there is no map of images: {error}")
            warn(tell, notes[-1])
    prompts = [material.rows.prompts[row] for row in rows]
    label = cluster(vectors, material.seed)
    run, score = _scores(material, rows, notes)
    programs, program = _programs([material.rows.found_in[row] for row in rows], score)
    return MapSection(
        of=len(good),
        rows=rows,
        ids=[material.rows.ids[row] for row in rows],
        prompts=[shorten(prompt, LONGEST) for prompt in prompts],
        views=views,
        clusters=_named(name_clusters(prompts, label), label.tolist(), score),
        programs=programs,
        cluster=label.tolist(),
        program=program,
        run=run,
        score=score,
        level=levels(score),
        notes=notes,
    )


def levels(score: list[float | None]) -> list[int]:
    """Say which fifth of the known scores each is in, 0 the lowest; −1 where it is not known."""
    known = [value for value in score if value is not None]
    if not known:
        return [-1] * len(score)
    edges = np.quantile(known, np.linspace(0, 1, LEVELS + 1)[1:-1])
    return [-1 if value is None else int(np.searchsorted(edges, value, side="right")) for value in score]


def _view(vectors: NDArray[np.float32], title: str, seed: int) -> View:
    places, method = project(vectors, seed)
    x, y = (np.round(places[:, axis].astype(np.float64), 3).tolist() for axis in (0, 1))
    return View(title, method, x, y)


def _scores(material: Material, rows: list[int], notes: list[str]) -> tuple[str, list[float | None]]:
    """Give the best run and its cosine of each row that it held out."""
    board = material.board
    if board is None or not board.runs:
        return "", [None] * len(rows)
    try:
        held = load_validation(board.best.folder, board.best)
    except Img2PromptError as error:
        notes.append(f"there are no scores: {error}")
        return "", [None] * len(rows)
    known = dict(zip(held.ids, held.cosine.tolist(), strict=True))
    return board.best.name, [known.get(material.rows.ids[row]) for row in rows]


def _programs(found_in: list[str], score: list[float | None]) -> tuple[list[Named], list[int]]:
    """Number the programs, the most frequent first; the rarest are one."""
    counts = Counter(filter(None, found_in))
    if len(counts) < 2:
        return [], [-1] * len(found_in)
    names = [name for name, _ in counts.most_common(MOST_PROGRAMS)]
    number = {name: names.index(name) if name in names else len(names) for name in counts}
    if len(counts) > len(names):
        names.append("others")
    program = [number.get(name, -1) for name in found_in]
    return _named(names, program, score), program


def _named(names: list[str], label: list[int], score: list[float | None]) -> list[Named]:
    found = []
    for number, name in enumerate(names):
        inside = [value for each, value in zip(label, score, strict=True) if each == number]
        known = [value for value in inside if value is not None]
        found.append(Named(name, len(inside), float(np.mean(known)) if known else None))
    return found


def _finite(values: NDArray[np.float32], folder: str) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise Img2PromptError(f"{folder} holds NaN or infinity; `verify()` tells whether a part was changed")
    return values
