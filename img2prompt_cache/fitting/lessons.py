"""Lessons: what a student learns from a teacher that is fitted for it on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import used_column
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.feature_blocks import block_ranges, select_blocks, widths
from img2prompt_cache.data.splits import Split
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.blend import takes_views
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.heads.distil import Distil
from img2prompt_cache.numerics.blending import best_weights, mix, overlaps
from img2prompt_cache.runs.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.feature_blocks import Ranges


def recipe(run: Run, fold: int, seed: int) -> Blend:
    """Make of a run an unfitted teacher: its heads, or its one head, with the settings chosen for a fold.

    How much each head counts is left open: it was found on the rows that are to score the student.

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
        If it cannot be fitted anew: a run that was taught itself.
    Img2PromptError
        If it is not what was saved.
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
            f"the teacher's run.json is not what was saved: {error!r}; fit it again"
        ) from None
    if Distil.name in names:
        raise UsageError("--teacher: it was taught itself; name the run that taught it")
    if any(make_head(name).texts for name in names):
        raise UsageError("--teacher: a head that compares images with texts cannot teach; name another run")
    return Blend(kept, seed=seed)


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """Rows to teach from.

    Attributes
    ----------
    data : Dataset
        Rows with a prompt; features of the student and the teacher, joined.
    more : as `data.X`
        The same features of rows without a prompt.
    student, teacher : tuple of (int, int)
        The ranges [start, stop) of these features that each takes.
    """

    data: Dataset
    more: Any
    student: Ranges
    teacher: Ranges

    def give(
        self, student: Distil, teacher: Blend, split: Split, rows: NDArray[np.int64]
    ) -> tuple[Distil, Blend]:
        """Fit a teacher on some rows, and a student on the same rows and on what the teacher says.

        Parameters
        ----------
        student, teacher
            Stay as they are; copies are fitted.
        split : Split
        rows : numpy.ndarray, int64
            Of `data`. Nothing of its other rows is looked at.
        """
        groups = split.inner_groups(rows)
        y = self.data.y[rows]
        seen, taught_on = select_blocks(self.data.X, self.teacher)[rows], widths(self.teacher)
        predictions, _ = teacher.out_of_fold(seen, y, groups=groups, widths=taught_on)
        weights = best_weights(overlaps(predictions, y))
        fitted: Blend = clone(teacher).set_params(weights=weights.tolist())
        fitted.fit(seen, y, groups=groups, widths=taught_on)
        more = None
        if len(self.more):
            more = (
                select_blocks(self.more, self.student),
                fitted.predict(select_blocks(self.more, self.teacher)),
            )
        learnt: Distil = clone(student)
        learnt.fit(
            select_blocks(self.data.X, self.student)[rows],
            y,
            groups=groups,
            widths=widths(self.student),
            taught=mix(predictions, weights),
            more=more,
        )
        return learnt, fitted


def load_lessons(
    cache: Cache, run: Run, columns: tuple[Column, ...], only: Sequence[str] | None = None
) -> Lessons:
    """Read the rows of a cache that a student on some columns can learn from, and its teacher.

    Parameters
    ----------
    cache : Cache
    run : Run
        The teacher.
    columns : tuple of Column
        The student's.
    only : sequence of str, optional
        From `ensemble.rows_of`; of images without a prompt all are read.

    Raises
    ------
    UsageError
        If a column of the teacher is not cached.
    Img2PromptError
        If one is not the one it was fitted on.
    """
    target = used_column(cache, run.target, _ADVICE, "targets")
    seen = tuple(used_column(cache, use, _ADVICE) for use in run.features)
    joined = tuple({column.spec: column for column in (*columns, *seen)}.values())
    members = recipe(run, -1, 0).members
    views = any(takes_views(member["head"], member["settings"]) for member in members)
    data = load_dataset(cache, joined, target, only=only, views=views)
    try:
        more = load_dataset(cache, joined, with_prompt=False).X
    except UsageError:  # there are none
        more = data.X[:0]
    place = block_ranges((column.spec, math.prod(column.shape)) for column in joined)
    ranges = [[place[column.spec] for column in taken] for taken in (columns, seen)]
    return Lessons(data, more, *ranges)


_ADVICE = "A student learns only from a run of this cache as it is: fit the teacher again."
