"""The members of a blend: found by any name, read, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.fitting.outside import OutsideMember, parse_outside
from img2prompt_cache.heads import HEADS
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.progress import Callback, note
from img2prompt_cache.runs.held_out import Validation, load_validation
from img2prompt_cache.runs.leaderboard import compare
from img2prompt_cache.runs.names import find_runs, open_run
from img2prompt_cache.runs.record import same_split
from img2prompt_cache.runs.run import AnyRun, Run, load_run

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A run that may be blended.

    Attributes
    ----------
    run : Run
    held : Validation
        Its predictions for the rows that it was not fitted on.
    """

    run: Run
    held: Validation

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.run.name


def open_members(
    cache: Cache, named: Sequence[AnyRun | OutsideMember], tell: Callback
) -> tuple[list[Run], list[OutsideMember]]:
    """Open the runs to blend, and tell them from members that another program fitted.

    Parameters
    ----------
    cache : Cache
    named : sequence of Run, path, str or OutsideMember
        ``NAME=OOF:TEST`` names the files of a member that another program fitted. A name that is no run but a
        head stands for the newest run of that head. All of these have the split and target of the runs that
        are named; if there are none, those of the newest run on whose split each head has one.
    tell : callable
        Told which runs were taken.

    Returns
    -------
    runs : list of Run
    outside : list of OutsideMember
        Both in the order of `named`.

    Raises
    ------
    UsageError
        If one is neither a run nor a head, or a head has no run on that split.
    Img2PromptError
        If a run is damaged.
    """
    found: list[Run | str] = []
    outside: list[OutsideMember] = []
    for each in named:
        if isinstance(each, OutsideMember):
            outside.append(each)
            continue
        try:
            found.append(open_run(each, cache))
        except UsageError:
            other = parse_outside(each) if isinstance(each, str) else None
            if other is not None:
                outside.append(other)
            elif isinstance(each, str) and each in HEADS:
                found.append(each)
            elif isinstance(each, str) and (runs := find_runs(cache.folder)):
                names = [*(run.name for run in runs), *HEADS]
                raise unknown("run or head", each, names, parameter="members") from None
            else:
                raise
    heads = [each for each in found if isinstance(each, str)]
    if not heads:
        return [each for each in found if isinstance(each, Run)], outside
    given = next((each for each in found if isinstance(each, Run)), None)
    newest = newest_runs(cache, heads, given)
    if len({*heads}) == len(heads):
        note(tell, f"members: {', '.join(f'{head} is {run.name}' for head, run in newest.items())}")
    return [newest[each] if isinstance(each, str) else each for each in found], outside


def newest_runs(cache: Cache, heads: Sequence[str], given: Run | None) -> dict[str, Run]:
    """Find the newest run of each head, all of one split and target: those of `given`, if it is not None.

    Raises
    ------
    UsageError
        If a head has no run on the split.
    """
    runs: list[Run] = []
    for folder in reversed(find_runs(cache.folder)):
        with suppress(Img2PromptError):  # a damaged run is nobody's member
            run = load_run(folder)
            if run.head in heads:
                runs.append(run)
    missing = list(heads)
    for number, reference in enumerate([given] if given else runs):
        found = _first_of_each([run for run in runs if _alike(run, reference)], heads)
        if len(found) == len({*heads}):
            return found
        if not number:
            missing = [head for head in heads if head not in found]
    where = f"the split of {given.name}" if given else "one split that all of them share"
    raise UsageError(
        f"`members`: no run of {', '.join(missing)} on {where}; fit it there, or name runs",
        parameter="members",
    )


def _first_of_each(runs: Sequence[Run], heads: Sequence[str]) -> dict[str, Run]:
    found: dict[str, Run] = {}
    for run in runs:
        found.setdefault(run.head, run)
    return {head: found[head] for head in heads if head in found}


def _alike(run: Run, reference: Run) -> bool:
    return same_split(run.split, reference.split) and run.target.fingerprint == reference.target.fingerprint


def load_members(cache: Cache, runs: Sequence[Run], outside: Sequence[str] = ()) -> list[Member]:
    """Read the predictions of the runs to blend, and check that they may be blended.

    `outside` are the names of members that another program fitted.

    Raises
    ------
    UsageError
        If there are fewer than two, or no run among them, one is named twice or is a blend, or one was scored
        on another split or target than the first; the message names it.
    Img2PromptError
        If the validation predictions of one are missing or damaged.
    """
    if len(runs) + len(outside) < 2:
        raise _refused(f"a blend takes two runs or more{_candidates(cache)}")
    if not runs:
        raise _refused("one member must be a run of this cache: its split says which rows are held out")
    folders = [run.folder.resolve() for run in runs]
    twice = next((run for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1), None)
    if twice:
        raise _refused(f"{twice.name} is named twice")
    names = [*(run.name for run in runs), *outside]
    taken = next((name for name in outside if names.count(name) > 1), None)
    if taken:
        raise _refused(f"{taken} is named twice")
    first = runs[0]
    for run in runs:
        if run.head == Blend.name:
            inside = ",".join(str(member.get("run")) for member in run.settings.get("members", ()))
            raise _refused(f"{run.name} is a blend itself; name its members instead: {inside}")
        for what, same in (
            ("target", run.target.fingerprint == first.target.fingerprint),
            ("split", same_split(run.split, first.split)),
        ):
            if not same:
                raise _refused(
                    f"{run.name} was scored on another {what} than {first.name}; blend runs of one {what}"
                )
    return [Member(run, load_validation(run.folder, run)) for run in runs]


def _refused(why: str) -> UsageError:
    return UsageError(f"`members`: {why}", parameter="members")


def _candidates(cache: Cache) -> str:
    if not find_runs(cache.folder):
        return f"; {cache.folder} has no runs yet, make them with `fit()`"
    names = [run.name for run in compare(cache).runs if run.head != Blend.name]
    return f"; those of the newest run's split and target: {', '.join(names)}"


def join_features(members: Sequence[Member]) -> tuple[UsedColumn, ...]:
    """List the columns of all members, each once, in the order of their first use.

    Raises
    ------
    UsageError
        If two members were fitted on different columns of one spec.
    """
    met: dict[str, tuple[UsedColumn, str]] = {}
    for member in members:
        for use in member.run.features:
            known, name = met.setdefault(use.spec, (use, member.name))
            if known.fingerprint != use.fingerprint:
                raise _refused(
                    f"{member.name} was fitted on another {use.spec} than {name}; fit both on the column "
                    "that is cached now"
                )
    return tuple(use for use, _ in met.values())


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
