"""Distilling: a small mlp on one cheap backbone learns from a run, and is kept as a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn, choose_features
from img2prompt_cache.data.feature_blocks import select_blocks, widths
from img2prompt_cache.data.splits import Split
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.blend import rows_of, split_of
from img2prompt_cache.fitting.fit import finite
from img2prompt_cache.fitting.lessons import Lessons, load_lessons, recipe
from img2prompt_cache.fitting.record import keep_run
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.distil import Distil
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.flops import operations
from img2prompt_cache.models.backbones.taps import split_spec
from img2prompt_cache.numerics.metrics import mean_cosine
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.names import reserve_run
from img2prompt_cache.runs.run import Run, load_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.manifest import Column


def fit_distil(
    cache: Cache,
    teacher: Path,
    folder: Path | None = None,
    *,
    features: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    refit: bool = True,
    overwrite: bool = False,
) -> tuple[Path, Run]:
    """Teach a small mlp what a run knows, and keep it as a run of the same split and target.

    The rows that score the student have no say in what it learns. Of the teacher only the recipe is taken,
    its heads and their settings, which were chosen without these rows. For each fold it is fitted anew on the
    rows fitted on: by inner folds of these, so that the student learns from predictions for rows that the
    teacher has not seen; and on all of them, for images without a prompt. Predictions that were saved with
    the teacher would not do, not even those by folds: what it said of the training rows it said knowing the
    targets of the others.

    Parameters
    ----------
    cache : Cache
        The one the teacher was fitted on.
    teacher : pathlib.Path
        A run.
    folder : pathlib.Path, optional
        Where the student goes; a readable name in the cache's `runs` if absent.
    features : tuple of str
        Backbones of the student; the one that takes the fewest operations if empty.
    settings : mapping, optional
        `share`, and settings of the mlp.
    seed : int
        Of the student, and of the teacher's folds.
    refit : bool
        Fit the saved student again on all rows, with what the first one chose.
    overwrite : bool
        Replace the run that is there, once the new one is whole.

    Returns
    -------
    folder : pathlib.Path
    run : Run
        Its metrics also hold `teacher`, the cosine of the teacher fitted as above, and `plain`, that of the
        same mlp taught by none.

    Raises
    ------
    UsageError
        If the teacher cannot teach, a setting or backbone is unknown, or the folder is taken.
    Img2PromptError
        If the teacher is damaged, or the cache is not the one it was fitted on.
    """
    run = load_run(teacher)
    if run.fold_metrics and not refit:
        raise UsageError("--no-refit keeps the head of the training side, but a teacher by folds has several")
    student = finite(dict(settings or {}))
    own = {"share": student.pop("share")} if "share" in student else {}
    head: Any = make_head(Distil.name, **own, teacher=teacher.resolve().name, student=student, seed=seed)
    make_head("mlp", **student)
    recipe(run, -1, seed)
    columns = choose_features(cache, features or cheapest(cache))
    specs = [column.spec for column in columns]
    with reserve_run(folder, cache.folder, Distil.name, specs, overwrite=overwrite) as place:
        return place, _fit(cache, teacher, run, head, columns, place, refit=refit)


def _fit(
    cache: Cache,
    teacher: Path,
    run: Run,
    head: Distil,
    columns: tuple[Column, ...],
    folder: Path,
    *,
    refit: bool,
) -> Run:
    started = time.perf_counter()
    said = load_validation(teacher, run)
    lessons = load_lessons(cache, run, columns, rows_of(run, said))
    data = lessons.data
    split = split_of(teacher, run, said, data)
    trial = teach(lessons, split, head, run)
    saved = told = trial.head
    if refit:
        # The folds may have chosen differently: the saved head chooses anew, as it does in `fit`.
        anew = head if split.folds > 1 else clone(head).set_params(**told.chosen)
        everything = np.arange(len(data.rows))
        saved, _ = lessons.give(anew, recipe(run, -1, head.seed), split, everything)
        told = saved if split.folds > 1 else told
    return keep_run(
        folder,
        cache,
        saved,
        told,
        data,
        split,
        trial.predictions,
        trial.chosen,
        features=tuple(UsedColumn.of(column) for column in columns),
        target=run.target,
        metrics={"leakage_gap": None, "teacher": trial.teacher, "plain": trial.plain},
        seconds=time.perf_counter() - started,
        refit=refit,
        rows=(len(data.rows) if refit else len(split.train)) + len(lessons.more),
        rows_per_second=trial.rows_per_second,
    )


@dataclass(frozen=True, slots=True)
class Taught:
    """What a student said of held-out rows, fold after fold, as in `trial.Trial`; and how good others are.

    Attributes
    ----------
    head, chosen, predictions, rows_per_second
        See `trial.Trial`.
    teacher, plain : float
        Mean cosine of the teacher, and of the same mlp taught by none.
    """

    head: Distil
    chosen: list[dict[str, Any]]
    predictions: NDArray[np.float32]
    rows_per_second: float
    teacher: float
    plain: float


def teach(lessons: Lessons, split: Split, head: Distil, run: Run) -> Taught:
    """For each fold of a split fit a teacher and a student on the other rows, and predict the fold.

    Raises
    ------
    Img2PromptError
        If a prediction is not finite.
    """
    y, X = lessons.data.y, select_blocks(lessons.data.X, lessons.student)
    student, teacher, plain = (np.empty_like(y) for _ in range(3))
    chosen, seconds = [], 0.0
    for number, (train, held) in enumerate(split.sides):
        learnt, taught_by = lessons.give(head, recipe(run, number, head.seed), split, train)
        began = time.perf_counter()
        student[held] = learnt.predict(X[held])
        seconds += time.perf_counter() - began
        teacher[held] = taught_by.predict(select_blocks(lessons.data.X, lessons.teacher)[held])
        groups, ours = split.inner_groups(train), widths(lessons.student)
        untaught = clone(head).fit(X[train], y[train], groups=groups, widths=ours)
        plain[held] = untaught.predict(X[held])
        chosen.append(learnt.chosen)
    held = split.validation
    if not np.isfinite(student[held]).all():
        raise Img2PromptError("distil predicts NaN or infinity with these settings; no run was kept")
    return Taught(
        head=learnt,
        chosen=chosen,
        predictions=student[held],
        rows_per_second=len(held) / seconds,
        teacher=mean_cosine(teacher[held], y[held]),
        plain=mean_cosine(plain[held], y[held]),
    )


def cheapest(cache: Cache) -> tuple[str, ...]:
    """Find the backbone that takes the fewest operations for an image, by its spec.

    Raises
    ------
    UsageError
        If there are several and one cannot be loaded, to count them.
    """
    specs = [column.spec for column in cache.manifest.of_kind("features")]
    if len(specs) < 2:
        return tuple(specs)
    bases = dict.fromkeys(split_spec(spec)[0] for spec in specs)
    try:
        counts = {base: operations(load_backbone(base)) for base in bases}
    except Img2PromptError as error:
        raise UsageError(
            f"which backbone is the cheapest cannot be told ({error}); name the student's with --features: "
            f"{', '.join(specs)}"
        ) from None
    base = min(bases, key=counts.__getitem__)
    return (base if base in specs else next(spec for spec in specs if split_spec(spec)[0] == base),)
