"""Ensembles: a blend of runs that were scored on the same rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.data.columns import UsedColumn, used_column
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.feature_blocks import block_ranges
from img2prompt_cache.data.groups import prompt_groups
from img2prompt_cache.data.splits import Split, k_folds
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.record import keep_run
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.numerics.blending import ablation, best_weights, cross_weights, mix, overlaps
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.runs.folder import load_head
from img2prompt_cache.runs.held_out import Validation, load_validation
from img2prompt_cache.runs.leaderboard import compare
from img2prompt_cache.runs.names import find_runs, reserve_run
from img2prompt_cache.runs.run import Run, load_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.reader import Cache

FOLDS = 5
"""Grouped folds of the hold-out that weights are found and scored on."""


@dataclass(frozen=True, slots=True)
class Member:
    """A run that may be blended.

    Attributes
    ----------
    folder : pathlib.Path
    run : Run
    held : Validation
        What it said about the rows it was not fitted on.
    """

    folder: Path
    run: Run
    held: Validation

    @property
    def name(self) -> str:
        """What it is called."""
        return self.folder.resolve().name


def fit_blend(
    cache: Cache,
    folders: Sequence[Path],
    folder: Path | None = None,
    *,
    seed: int = 0,
    overwrite: bool = False,
) -> tuple[Path, Run]:
    """Blend runs and keep the blend as a run, which needs its members no more.

    The metrics are those of a blend whose weights were found on other grouped folds of the hold-out than the
    row that is scored; the weights that are kept were found on all of it.

    Parameters
    ----------
    cache : Cache
        The one the members were fitted on.
    folders : sequence of pathlib.Path
        The members, two at least, of one split and target.
    folder : pathlib.Path, optional
        Where the run goes; a readable name in the cache's `runs` if absent.
    seed : int
        Of the folds.
    overwrite : bool
        Replace the run that is there, once the new one is whole.

    Returns
    -------
    folder : pathlib.Path
    run : Run

    Raises
    ------
    UsageError
        If the members are too few or may not be blended, or the folder is taken.
    Img2PromptError
        If a member is damaged, or does not fit the cache.
    """
    started = time.perf_counter()
    members = load_members(cache, folders)
    features = join_features(members)
    specs = [use.spec for use in features]
    with reserve_run(folder, cache.folder, Blend.name, specs, overwrite=overwrite) as place:
        return place, _fit(cache, members, features, place, seed, started)


def _fit(
    cache: Cache,
    members: list[Member],
    features: tuple[UsedColumn, ...],
    folder: Path,
    seed: int,
    started: float,
) -> Run:
    first = members[0].run
    data, split = load_rows(cache, min(members, key=lambda member: sum(member.run.widths)))
    rows = split.validation
    groups = split.inner_groups(rows)
    targets = data.y[rows]
    ids = [data.ids[row] for row in rows]
    predictions = [aligned(member, ids, targets) for member in members]
    fold = split.fold[rows] if split.folds > 1 else _folds(groups, seed)
    known = overlaps(predictions, targets)
    weights, by_weights = best_weights(known), cross_weights(known, fold)
    mixed = mix(predictions, by_weights[fold])
    history = ablation(known, fold, weights)
    place = block_ranges((use.spec, use.width) for use in features)
    records = [
        {
            "run": member.name,
            "head": member.run.head,
            "settings": member.run.settings,
            "columns": [list(place[use.spec]) for use in member.run.features],
            "cosine": record["cosine"],
            "without": record["without"],
        }
        for member, record in zip(members, history, strict=True)
    ]
    heads = [load_head(member.folder, member.run) for member in members]
    widths = tuple(use.width for use in features)
    head = Blend(records, seed=seed).from_fitted(heads, weights, widths, history)
    chosen = [
        {"members": _chosen(records, members, ids[int(np.argmax(fold == number))]), "weights": each.tolist()}
        for number, each in enumerate(by_weights)
    ]
    return keep_run(
        folder,
        cache,
        head,
        head,
        data,
        split,
        mixed,
        chosen,
        features=features,
        target=first.target,
        metrics={"leakage_gap": None},
        seconds=time.perf_counter() - started,
        refit=all(member.run.refit for member in members),
        rows=min(member.run.rows for member in members),
    )


def _chosen(records: list[dict[str, Any]], members: list[Member], row: str) -> list[dict[str, Any]]:
    """Give the members with the settings that each chose for the fold in which a row was held out."""
    found = []
    for record, member in zip(records, members, strict=True):
        number = int(member.held.fold[member.held.ids.index(row)])
        metrics = member.run.fold_metrics
        chosen = metrics[number]["chosen"] if metrics else {}
        found.append({**record, "settings": {**record["settings"], **chosen}})
    return found


def load_members(cache: Cache, folders: Sequence[Path]) -> list[Member]:
    """Read the runs to blend, and check that they may be.

    Raises
    ------
    UsageError
        If there are fewer than two, one is named twice or is a blend, or one was scored on another split or
        target than the first; the message names it.
    Img2PromptError
        If the validation predictions of one are missing or damaged.
    """
    if len(folders) < 2:
        raise UsageError(f"a blend takes two runs or more: --members RUN,RUN{_candidates(cache)}")
    resolved = [folder.resolve() for folder in folders]
    twice = next((folder for folder in resolved if resolved.count(folder) > 1), None)
    if twice:
        raise UsageError(f"--members names {twice.name} twice")
    runs = [load_run(folder) for folder in folders]
    first = runs[0]
    for folder, run in zip(resolved, runs, strict=True):
        if run.head == Blend.name:
            names = ",".join(str(member.get("run")) for member in run.settings.get("members", ()))
            raise UsageError(f"--members: {folder.name} is a blend itself; name its members instead: {names}")
        for what, one, other in (
            ("target", run.target.fingerprint, first.target.fingerprint),
            ("split", run.split["digest"], first.split["digest"]),
        ):
            if one != other:
                raise UsageError(
                    f"--members: {folder.name} was scored on another {what} than {resolved[0].name}; "
                    f"blend runs of one {what}"
                )
    return [
        Member(folder, run, load_validation(folder, run)) for folder, run in zip(folders, runs, strict=True)
    ]


def _candidates(cache: Cache) -> str:
    if not find_runs(cache.folder):
        return f"; {cache.folder} has no runs yet, make them with `fit()`"
    names = [run.name for run in compare(cache).runs if run.head != Blend.name]
    return f"; those of the newest run's split and target: {', '.join(names)}"


def join_features(members: Sequence[Member]) -> tuple[UsedColumn, ...]:
    """List the columns of all members, each once, in the order they are met.

    Raises
    ------
    UsageError
        If two members were fitted on unlike columns of one spec.
    """
    met: dict[str, tuple[UsedColumn, str]] = {}
    for member in members:
        for use in member.run.features:
            known, name = met.setdefault(use.spec, (use, member.name))
            if known.fingerprint != use.fingerprint:
                raise UsageError(
                    f"--members: {member.name} was fitted on another {use.spec} than {name}; "
                    "fit both on the column that is cached now"
                )
    return tuple(use for use, _ in met.values())


def load_rows(cache: Cache, member: Member) -> tuple[Dataset, Split]:
    """Read the rows that a member was fitted on and scored on, and find its split again.

    Raises
    ------
    UsageError
        If the cache lacks a column.
    Img2PromptError
        If a column was made otherwise, or the rows are not those that were split.
    """
    run = member.run
    target = used_column(cache, run.target, _ADVICE, "targets")
    features = tuple(used_column(cache, use, _ADVICE) for use in run.features)
    only = rows_of(run, member.held)
    data = load_dataset(cache, features, target, only=only, views=takes_views(run.head, run.settings))
    return data, split_of(member.folder, run, member.held, data)


def takes_views(head: str, settings: Mapping[str, Any]) -> bool:
    """Whether a head on a trunk trains on its views: then it takes only rows that have them."""
    return make_head(head).takes == "trunk" and bool(settings.get("views"))


def rows_of(run: Run, held: Validation) -> list[str] | None:
    """Name the rows that a run was fitted on and scored on, where that is kept: by folds each was held out.

    The cache may have grown since, or `fit --only` left some out.
    """
    return held.ids if run.fold_metrics else None


def split_of(folder: Path, run: Run, said: Validation, data: Dataset) -> Split:
    """Find the split of a run again, from what it said of held-out rows, in the rows of a dataset.

    Raises
    ------
    Img2PromptError
        If the rows are not those that were split.
    """
    fold_of = dict(zip(said.ids, said.fold.tolist(), strict=True))
    fold = np.array([fold_of.get(name, -1) for name in data.ids], np.int64)
    groups = prompt_groups(data.y, data.prompts, data.images)
    split = Split(str(run.split["strategy"]), int(run.split["seed"]), fold, groups)
    if fold.max() < 0 or split.digest(data.ids, data.prompts, data.images) != run.split["digest"]:
        raise Img2PromptError(
            f"the rows that can be used are not those that {folder.resolve().name} was fitted on and scored "
            "on: the cache has grown, or it was fitted with --only; fit it again as the cache is now, or "
            "with --folds, where the run keeps which rows they were"
        )
    return split


def aligned(member: Member, ids: list[str], targets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give a member's predictions in the order of `ids`, having checked them: float32, shape (n, t).

    Raises
    ------
    Img2PromptError
        If they are of other rows, or do not have the cosines with the targets that were saved with them.
    """
    held = member.held
    row_of = {name: row for row, name in enumerate(held.ids)}
    if row_of.keys() == {*ids} and held.predictions.shape == targets.shape:
        rows = [row_of[name] for name in ids]
        found = cosine(held.predictions[rows], targets)
        if np.allclose(found, held.cosine[rows], rtol=0, atol=1e-4):
            return held.predictions[rows]
    raise Img2PromptError(
        f"the validation predictions of {member.name} do not fit its hold-out; fit it again"
    )


def _folds(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    count = len(np.unique(groups))
    if count < 2:
        raise UsageError(
            f"the {len(groups)} rows that the members were scored on are one group of near-identical prompts "
            "or images, so no weights can be scored; fit the members with a larger --holdout"
        )
    return k_folds(groups, min(FOLDS, count), seed)


_ADVICE = "Runs are blended only on the cache they were fitted on: fit them again on this one."
