"""Distillation: a small mlp on the features of one cheap backbone learns from a run, and is kept as a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn, choose_features
from img2prompt_cache.data.feature_blocks import select_blocks, select_widths
from img2prompt_cache.data.splits import Split, is_test_set
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.config import finite, plain_settings
from img2prompt_cache.fitting.evaluate import Evaluation, require_finite
from img2prompt_cache.fitting.memory import hold_rows
from img2prompt_cache.fitting.record import DescribedRows, FittedHead, Reported, keep_run
from img2prompt_cache.fitting.run_rows import ids_of, split_of
from img2prompt_cache.fitting.teacher import TeacherData, load_teacher_data, teacher_from_run
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.distil import Distil
from img2prompt_cache.heads.out_of_fold import predict_all
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.flops import operations
from img2prompt_cache.models.backbones.taps import model_of, split_spec
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.numerics.row_blocks import in_blocks
from img2prompt_cache.progress import Callback, ignore, task
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.names import reserve_run
from img2prompt_cache.runs.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.manifest import Column
    from img2prompt_cache.data.column_rows import ColumnRows
    from img2prompt_cache.data.feature_blocks import AnyFeatures
    from img2prompt_cache.heads.base import Head


def fit_distil(
    cache: Cache,
    teacher: Run,
    folder: Path | None = None,
    *,
    features: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    refit: bool = True,
    memory: str | int | None = None,
    overwrite: bool = False,
    device: str = "auto",
    tell: Callback = ignore,
) -> Run:
    """Teach a small mlp what a run knows, and keep it as a run of the same split and target.

    The student never learns anything from the rows that score it. Only the heads of the teacher and their
    settings are used, and these were chosen without those rows. For each fold the teacher is fitted anew on
    the other rows: by inner folds, so that the student learns from predictions for rows that the teacher has
    not seen; and on all of them, to predict the images without a prompt. The predictions saved with the
    teacher cannot be used: those by folds were made by heads that had seen the targets of the scored rows.

    Parameters
    ----------
    cache : Cache
        The one that the teacher was fitted on.
    teacher : Run
    folder : pathlib.Path, optional
        Where the student goes; a readable name in the cache's `runs` if absent.
    features : tuple of str
        Backbones of the student; the one that takes the fewest operations if empty.
    settings : mapping, optional
        `share`, and settings of the mlp.
    seed : int
        Of the student, and of the teacher's folds.
    refit : bool
        Fit the saved student again on all rows, with the settings that the first one chose; never where the
        teacher was scored on a test set.
    memory : str or int, optional
        How much memory rows may take; see `hold_rows`.
    overwrite : bool
        Replace the run in `folder`, once the new one is complete.
    device : str
        Where the student is fitted, and the heads of the teacher that compute with torch.
    tell : callable
        Told every fit as a step of the task ``"fit"``.

    Returns
    -------
    Run
        Its metrics also hold `teacher`, the cosine of the teacher fitted as above, and `plain`, the cosine of
        the same mlp without a teacher.

    Raises
    ------
    UsageError
        If the teacher cannot teach, a setting or backbone is unknown, or the folder is taken.
    Img2PromptError
        If the teacher is damaged, or the cache is not the one that it was fitted on.
    """
    if teacher.fold_metrics and not refit:
        raise UsageError(
            "`refit=False` keeps the head of the training side, but a teacher by folds has several",
            parameter="refit",
        )
    request = distil_request(teacher, settings, seed, refit=refit)
    refit = refit and not is_test_set(str(teacher.split["strategy"]))  # a test set stays unseen
    student = finite(settings)
    own = {"share": student.pop("share")} if "share" in student else {}
    head: Any = make_head(Distil.name, **own, teacher=teacher.name, student=student, seed=seed)
    head.use_device(device)
    make_head("mlp", **student)
    teacher_from_run(teacher, -1, seed)
    columns = choose_features(cache, features or cheapest(cache))
    specs = [column.spec for column in columns]
    with reserve_run(folder, cache.folder, Distil.name, specs, overwrite=overwrite) as place:
        fitted = _fit(cache, teacher, head, columns, memory, refit=refit, tell=tell)
        return keep_run(place, cache, replace(fitted, request=request))


def distil_request(
    teacher: Run, settings: Mapping[str, Any] | None, seed: int, *, refit: bool
) -> dict[str, Any]:
    """Give what a student was asked for as JSON values, without what a run records elsewhere."""
    return {
        "head": Distil.name,
        "teacher": teacher.name,
        "teacher_sha256": teacher.head_sha256,
        "settings": plain_settings(settings or {}),
        "seed": seed,
        "refit": refit,
    }


def _fit(
    cache: Cache,
    run: Run,
    head: Distil,
    columns: tuple[Column, ...],
    memory: str | int | None,
    *,
    refit: bool,
    tell: Callback,
) -> FittedHead:
    started = time.perf_counter()
    held = load_validation(run.folder, run)
    teacher = teacher_from_run(run, -1, head.seed)

    def hold(values: int) -> bool:
        return hold_rows(head, cache.rows, values, memory, teacher=teacher, tell=tell)

    lessons = load_teacher_data(cache, run, columns, ids_of(run, held), hold=hold)
    data = lessons.data
    split = split_of(cache, run, held, data)
    with task(tell, "fit", split.folds + refit) as advance:
        scores = evaluate_student(lessons, split, head, run, advance)
        saved = scores.student.head
        if refit:
            # The folds may have chosen different settings: the saved head then chooses anew, as in `fit`.
            anew = head if split.folds > 1 else clone(head).set_params(**saved.chosen)
            everything = np.arange(len(data.rows))
            saved, _ = lessons.fit_pair(anew, teacher, split, everything)
            advance(1)
    return FittedHead(
        head=saved,
        evaluation=scores.student,
        data=data,
        split=split,
        described=DescribedRows.of(split, data, run.target.fingerprint),
        reported=Reported.of(saved if split.folds > 1 else scores.student.head),
        features=tuple(UsedColumn.of(column) for column in columns),
        target=run.target,
        refit=refit,
        rows=(len(data.rows) if refit else len(split.train)) + len(lessons.unlabelled),
        seconds=time.perf_counter() - started,
        metrics={"teacher": scores.teacher, "plain": scores.plain},
        made_of=(run,),
    )


@dataclass(frozen=True, slots=True, eq=False)
class StudentScores:
    """A student's predictions for held-out rows, and how good others are on the same rows.

    Attributes
    ----------
    student : Evaluation
    teacher, plain : float
        Mean cosine of the teacher, and of the same mlp without a teacher.
    """

    student: Evaluation
    teacher: float
    plain: float


def evaluate_student(
    lessons: TeacherData,
    split: Split,
    head: Distil,
    run: Run,
    advance: Any = lambda fits: None,
) -> StudentScores:
    """For each fold of a split, fit a teacher and a student on the other rows and predict the fold.

    Parameters
    ----------
    lessons : TeacherData
    split : Split
        Of its rows.
    head : Distil
        Stays as it is; copies of it are fitted.
    run : Run
        The teacher.
    advance : callable
        Called with 1 after each fold.

    Raises
    ------
    Img2PromptError
        If a prediction is not finite.
    """
    y, X = lessons.data.y, select_blocks(lessons.data.X, lessons.student)
    rows, width = split.validation, y.shape[1]
    student = np.empty((len(rows), width), np.float32)
    teacher, plain = np.empty(len(rows)), np.empty(len(rows))
    chosen, seconds = [], 0.0
    for number, (train, held) in enumerate(split.sides):
        learnt, taught_by = lessons.fit_pair(head, teacher_from_run(run, number, head.seed), split, train)
        began = time.perf_counter()
        place = np.searchsorted(rows, held)
        student[place] = predict_all(learnt, X[held], width)
        seconds += time.perf_counter() - began
        theirs = select_blocks(lessons.data.X, lessons.teacher)
        teacher[place] = _cosines(taught_by, theirs[held], y[held])
        groups, ours = split.inner_groups(train), select_widths(lessons.data.widths, lessons.student)
        known = lessons.data.training_targets[train]
        untaught = clone(head).fit(X[train], known, groups=groups, widths=ours)
        plain[place] = _cosines(untaught, X[held], y[held])
        chosen.append(learnt.chosen)
        advance(1)
    require_finite(head.name, student)
    return StudentScores(
        student=Evaluation(learnt, chosen, student, len(rows) / seconds),
        teacher=float(teacher.mean()),
        plain=float(plain.mean()),
    )


def _cosines(head: Head, X: AnyFeatures, y: NDArray[np.float32] | ColumnRows) -> NDArray[np.float64]:
    """Score predictions block by block, shape (n,)."""
    return np.concatenate([cosine(*both) for _, both in in_blocks([predict_all(head, X, y.shape[1]), y])])


def cheapest(cache: Cache) -> tuple[str, ...]:
    """Find the backbone that takes the fewest operations for an image, by its spec.

    Raises
    ------
    UsageError
        If there are several, and one cannot be loaded to count its operations.
    """
    specs = [column.spec for column in cache.manifest.of_kind("features")]
    if len(specs) < 2:
        return tuple(specs)
    bases = {split_spec(column.spec)[0]: model_of(column) for column in cache.manifest.of_kind("features")}
    try:
        counts = {base: operations(load_backbone(model)) for base, model in bases.items()}
    except Img2PromptError as error:
        raise UsageError(
            f"the cheapest backbone cannot be determined ({error}); name the student's with `features`: "
            f"{', '.join(specs)}",
            parameter="features",
        ) from None
    base = min(bases, key=counts.__getitem__)
    return (base if base in specs else next(spec for spec in specs if split_spec(spec)[0] == base),)
