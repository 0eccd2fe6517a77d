"""The teacher of a student: a run whose heads are fitted anew on the rows that the student learns from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import used_column
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.feature_blocks import block_ranges, select_blocks, select_widths
from img2prompt_cache.data.splits import Split
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.run_rows import needs_views
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.heads.distil import Distil
from img2prompt_cache.heads.out_of_fold import mixed_rows, predict_all
from img2prompt_cache.heads.outside import Outside
from img2prompt_cache.numerics.blending import best_weights, inner_products
from img2prompt_cache.runs.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.feature_blocks import Ranges


def teacher_from_run(run: Run, fold: int, seed: int) -> Blend:
    """Make an unfitted teacher of a run: a blend of its heads, with the settings chosen for a fold.

    The weights of the heads are left open: those of the run were found on the rows that score the student.

    Parameters
    ----------
    run : Run
    fold : int
        −1 for the settings of the saved head.
    seed : int
        Of the folds that the weights are found on.

    Raises
    ------
    UsageError
        If the run cannot be fitted anew: it was distilled itself, or takes texts.
    Img2PromptError
        If its record is damaged.
    """
    try:
        chosen = run.fold_metrics[fold]["chosen"] if run.fold_metrics and fold >= 0 else {}
        settings = {**run.settings, **chosen}
        whole = [{"head": run.head, "settings": settings}]
        members = settings["members"] if run.head == Blend.name else whole
        kept = [
            {key: member[key] for key in ("head", "settings", "columns") if key in member}
            for member in members
        ]
        names = [str(member["head"]) for member in kept]
    except (LookupError, TypeError) as error:
        raise Img2PromptError(
            f"run.json of the teacher {run.name} is not what was saved: {error!r}; fit it again"
        ) from None
    if Distil.name in names:
        raise UsageError(
            f"`teacher`: {run.name} was distilled itself; name the run that taught it", parameter="teacher"
        )
    if Outside.name in names:
        raise UsageError(
            f"`teacher`: a member of {run.name} was fitted by another program, which cannot be fitted again "
            "on other rows; name another run",
            parameter="teacher",
        )
    if any(make_head(name).texts for name in names):
        raise UsageError(
            f"`teacher`: {run.name} has a head that compares images with texts, which cannot teach; name "
            "another run",
            parameter="teacher",
        )
    return Blend(kept, seed=seed)


@dataclass(frozen=True, slots=True, eq=False)
class TeacherData:
    """The rows that a student learns from, with the features of the student and of its teacher.

    Attributes
    ----------
    data : Dataset
        Rows with a prompt; all features, concatenated.
    unlabelled : as `data.X`
        The same features of rows without a prompt.
    student, teacher : sequence of (int, int)
        The ranges [start, stop) of the features that each takes.
    """

    data: Dataset
    unlabelled: Any
    student: Ranges
    teacher: Ranges

    def fit_pair(
        self, student: Distil, teacher: Blend, split: Split, rows: NDArray[np.int64]
    ) -> tuple[Distil, Blend]:
        """Fit a teacher on some rows, and a student on the same rows and on what the teacher predicts.

        Parameters
        ----------
        student, teacher
            Stay as they are; copies are fitted.
        split : Split
        rows : numpy.ndarray, int64
            Of `data`. Its other rows are not used in any way.

        Returns
        -------
        student : Distil
        teacher : Blend
        """
        teacher = clone(teacher).use_device(student.device)
        groups, y = split.inner_groups(rows), self.data.training_targets[rows]
        X = select_blocks(self.data.X, self.teacher)[rows]
        widths = select_widths(self.data.widths, self.teacher)
        predictions, _ = teacher.out_of_fold(X, y, groups=groups, widths=widths)
        weights = best_weights(inner_products(predictions, self.data.y[rows]))
        fitted: Blend = clone(teacher).set_params(weights=weights.tolist())
        fitted.fit(X, y, groups=groups, widths=widths)
        more = None
        if len(self.unlabelled):
            taught = predict_all(fitted, select_blocks(self.unlabelled, self.teacher), y.shape[1])
            more = select_blocks(self.unlabelled, self.student), taught
        learnt: Distil = clone(student)
        learnt.fit(
            select_blocks(self.data.X, self.student)[rows],
            y,
            groups=groups,
            widths=select_widths(self.data.widths, self.student),
            taught=mixed_rows(predictions, weights),
            more=more,
        )
        return learnt, fitted


def load_teacher_data(
    cache: Cache,
    run: Run,
    columns: tuple[Column, ...],
    only: Sequence[str] | None = None,
    *,
    hold: Callable[[int], bool] = lambda values: True,
) -> TeacherData:
    """Read the rows of a cache that a student can learn from, with its features and its teacher's.

    Parameters
    ----------
    cache : Cache
    run : Run
        The teacher.
    columns : tuple of Column
        The student's features.
    only : sequence of str, optional
        Ids of the rows with a prompt to read, from `ids_of`. All rows without a prompt are read.
    hold : callable
        Takes the number of values of a row, and says whether rows are held in memory; see `hold_rows`.

    Raises
    ------
    UsageError
        If a column of the teacher is not cached.
    Img2PromptError
        If one is not the one that it was fitted on.
    """
    target = used_column(cache, run.target, _ADVICE, "targets")
    seen = tuple(used_column(cache, use, _ADVICE) for use in run.features)
    joined = tuple({column.spec: column for column in (*columns, *seen)}.values())
    members = teacher_from_run(run, -1, 0).members
    views = any(needs_views(member["head"], member["settings"]) for member in members)
    held = hold(sum(math.prod(column.shape) for column in (*joined, target) if column.kind != "trunk"))
    data = load_dataset(cache, joined, target, only=only, views=views, train_on=run.train_on, hold=held)
    try:
        unlabelled = load_dataset(cache, joined, with_prompt=False, hold=held).X
    except UsageError:  # there are none
        unlabelled = data.X[:0]
    place = block_ranges((column.spec, math.prod(column.shape)) for column in joined)
    ranges = [[place[column.spec] for column in taken] for taken in (columns, seen)]
    return TeacherData(data, unlabelled, *ranges)


_ADVICE = "A student learns only from a run of this cache as it is: fit the teacher again."
