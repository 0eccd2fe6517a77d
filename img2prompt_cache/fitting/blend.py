"""Ensembles: a blend of runs that were scored on the same rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.data.feature_blocks import block_ranges
from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.evaluate import Evaluation
from img2prompt_cache.fitting.members import Member, aligned, join_features, load_members
from img2prompt_cache.fitting.memory import hold_rows
from img2prompt_cache.fitting.nested import can_be_nested, nested_products
from img2prompt_cache.fitting.outside import OutsideMember, read_outside
from img2prompt_cache.fitting.record import DescribedRows, FittedHead, Reported, keep_run
from img2prompt_cache.fitting.run_rows import load_rows
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.numerics.blending import (
    ablation,
    agreement,
    best_weights,
    cross_weights,
    inner_products,
    mix,
)
from img2prompt_cache.numerics.bootstrap import paired_difference, split_widening
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.progress import Callback, ignore
from img2prompt_cache.runs.folder import load_head
from img2prompt_cache.runs.names import reserve_run
from img2prompt_cache.runs.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.reader import Cache

FOLDS = 5
"""Grouped folds of the held-out rows, on which weights are found and scored."""


def fit_blend(
    cache: Cache,
    runs: Sequence[Run],
    folder: Path | None = None,
    *,
    outside: Sequence[OutsideMember] = (),
    seed: int = 0,
    memory: str | int | None = None,
    overwrite: bool = False,
    tell: Callback = ignore,
) -> Run:
    """Blend runs and keep the blend as a run, which works without its members.

    The metrics are those of a blend whose weights were found on other grouped folds of the held-out rows than
    the row that is scored; the weights that are saved were found on all of them. Members by folds are fitted
    again on inner folds for that, unless one takes long to fit; see `nested_products`.

    Parameters
    ----------
    cache : Cache
        The one that the members were fitted on.
    runs : sequence of Run
        The members: of one split and target, two at least with those of `outside`, and one of them a run.
    folder : pathlib.Path, optional
        Where the run goes; a readable name in the cache's `runs` if absent.
    outside : sequence of OutsideMember
        Members that another program fitted. Their predictions for held-out rows are taken at their word.
    seed : int
        Of the folds.
    memory : str or int, optional
        How much memory rows may take where members are fitted again; see `hold_rows`.
    overwrite : bool
        Replace the run in `folder`, once the new one is complete.
    tell : callable
        Told where rows are read when they are used.

    Raises
    ------
    UsageError
        If the members are too few or may not be blended, or the folder is taken.
    Img2PromptError
        If a member is damaged, or does not fit the cache.
    """
    started = time.perf_counter()
    members = load_members(cache, runs, [each.name for each in outside])
    features = join_features(members)
    specs = [use.spec for use in features]
    with reserve_run(folder, cache.folder, Blend.name, specs, overwrite=overwrite) as place:
        return keep_run(place, cache, _fit(cache, members, outside, features, seed, started, memory, tell))


def _fit(
    cache: Cache,
    members: list[Member],
    outside: Sequence[OutsideMember],
    features: tuple[UsedColumn, ...],
    seed: int,
    started: float,
    memory: str | int | None,
    tell: Callback,
) -> FittedHead:
    smallest = min(members, key=lambda member: sum(member.run.widths))
    try:
        data, split = load_rows(cache, smallest.run, smallest.held, _ADVICE, hold=False)
    except UsageError:
        raise
    except Img2PromptError as error:
        raise Img2PromptError(f"{error}; `refit_members=True` fits the members of a blend again") from None
    rows = split.validation
    groups, targets = split.inner_groups(rows), np.asarray(data.y[rows])
    ids = list(data.ids.take(rows))
    others = [read_outside(each, ids, targets, groups) for each in outside]
    predictions = [aligned(member, ids, targets) for member in members]
    predictions += [each.predictions for each in others]
    fold = split.fold[rows] if split.folds > 1 else _folds(groups, seed)
    known = inner_products(predictions, targets)
    columns = (*features, *(each.column for each in others))
    place = block_ranges((use.spec, use.width) for use in columns)
    records: list[dict[str, Any]] = [
        {
            "run": member.name,
            "head": member.run.head,
            "settings": member.run.settings,
            "columns": [list(place[use.spec]) for use in member.run.features],
        }
        for member in members
    ]
    records += [{**each.record, "columns": [list(place[each.column.spec])]} for each in others]
    by_fold = [
        _chosen(records, members, ids[int(np.argmax(fold == number))]) for number in range(fold.max() + 1)
    ]
    inner = None
    if not others and can_be_nested(records, split) and len({member.run.train_on for member in members}) == 1:
        values = sum(use.width for use in features) + data.y.shape[1]
        hold = hold_rows(Blend(records), len(data.rows), values, memory, tell=tell)
        joined, _ = load_rows(cache, smallest.run, smallest.held, _ADVICE, features, hold=hold)
        inner = nested_products(by_fold, joined, split, seed)
    weights, by_weights = best_weights(known), cross_weights(known, fold, inner)
    history = ablation(known, fold, weights, inner)
    for record, told in zip(records, history, strict=True):
        record |= {"cosine": told["cosine"], "without": told["without"]}
    mixed = mix(predictions, by_weights[fold])
    best = max(predictions, key=lambda each: cosine(each, targets).mean())
    total = len(split.train) + len(rows)
    beyond = paired_difference(
        cosine(mixed, targets),
        cosine(best, targets),
        split.groups[rows],
        widening=split_widening(fold, total),
    )
    heads = [load_head(member.run.folder, member.run) for member in members]
    heads += [each.head for each in others]
    widths = tuple(use.width for use in columns)
    head = Blend(records, seed=seed).from_fitted(heads, weights, widths, history)
    chosen = [
        {
            "members": [{**record, **member} for record, member in zip(records, at, strict=True)],
            "weights": each,
        }
        for at, each in zip(by_fold, by_weights.tolist(), strict=True)
    ]
    return FittedHead(
        head=head,
        evaluation=Evaluation(
            head,
            chosen,
            mixed,
            rows_per_second=None,
            signals={"agreement": agreement(predictions, by_weights[fold])},
        ),
        data=data,
        split=split,
        described=DescribedRows.of(split, data, members[0].run.target.fingerprint),
        reported=Reported.of(head),
        features=columns,
        target=members[0].run.target,
        refit=all(member.run.refit for member in members),
        rows=min(member.run.rows for member in members),
        seconds=time.perf_counter() - started,
        metrics={
            "beyond_best": beyond[0],
            "beyond_best_ci95": beyond[1] and list(beyond[1]),
            **({"nested": float(inner is not None)} if split.folds > 1 else {}),
        },
        made_of=tuple(member.run for member in members),
    )


def _chosen(records: list[dict[str, Any]], members: list[Member], row: str) -> list[dict[str, Any]]:
    """Give the members with the settings that each chose for the fold in which a row was held out.

    Those that another program fitted come last, and have none.
    """
    found = []
    for record, member in zip(records, members, strict=False):
        number = int(member.held.fold[member.held.ids.index(row)])
        metrics = member.run.fold_metrics
        chosen = metrics[number]["chosen"] if metrics else {}
        found.append({**record, "settings": {**record["settings"], **chosen}})
    return [*found, *records[len(members) :]]


def _folds(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    count = len(np.unique(groups))
    if count < 2:
        raise UsageError(
            f"the {len(groups)} rows that the members were scored on are one group of near-identical prompts "
            "or images, so no weights can be scored; fit the members with a larger `holdout`",
            parameter="members",
        )
    return k_folds(groups, min(FOLDS, count), seed)


_ADVICE = "Runs are blended only on the cache they were fitted on: fit them again on this one."
