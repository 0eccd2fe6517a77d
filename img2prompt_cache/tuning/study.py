"""Studies: searches on disk, trial by trial, which can be continued at any time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads.space import Space, from_json
from img2prompt_cache.tuning.distributions import distribution, value_of
from img2prompt_cache.tuning.storage import load_optuna, make_file, opened, readable, writable

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from img2prompt_cache.heads.base import OnStep

    Score = Callable[[dict[str, Any], OnStep | None], float]

FOLDER = "studies"
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
SAMPLERS = ("random", "tpe")
START = 5
"""Trials that are never pruned: the median of fewer says little."""

_IDENTITY, _REASON = "made with", "reason"
_STATES = {"COMPLETE": COMPLETE, "PRUNED": PRUNED, "FAIL": FAILED}


@dataclass(frozen=True, slots=True)
class FinishedTrial:
    """A finished trial.

    Attributes
    ----------
    number : int
        In its study, from 0; those that were cut off have numbers, too.
    state : str
        ``"complete"``, ``"pruned"``, or ``"failed"``, where the head could not be fitted with its settings.
    settings : dict
        One value for each setting of the space.
    cosine : float or None
        Its score, if complete.
    seconds : float
    reason : str
        Why it failed.
    """

    number: int
    state: str
    settings: dict[str, Any]
    cosine: float | None
    seconds: float
    reason: str = ""


class Study:
    """A search on disk, as `searching` and `reading` give it.

    Attributes
    ----------
    identity : dict
        What was searched, see `searching`.
    head : str
    space : mapping of str to Range
    """

    def __init__(self, file: Path, study: OptunaStudy) -> None:
        self._file, self._study = file, study
        with readable(file):
            self.identity: dict[str, Any] = study.user_attrs[_IDENTITY]
            self.head = str(self.identity["head"])
            self.space: Space = from_json(self.identity["space"], str(file))

    @property
    def trials(self) -> list[FinishedTrial]:
        """Every finished trial, in order, without those that were cut off, by Ctrl-C for instance."""
        with readable(self._file):
            frozen = self._study.get_trials(deepcopy=False)
            return [self._trial(each) for each in frozen if _is_finished(each)]

    def attempt(self, sampler: str, seed: int, score: Score, *, prune: bool) -> FinishedTrial:
        """Try one more setting.

        Parameters
        ----------
        sampler : str
            One of `SAMPLERS`.
        seed : int
            Of what it draws: the same seed after the same trials gives the same settings.
        score : callable
            From the settings, and a callable for scores on the way or None, to the score.
        prune : bool
            Stop where the best score on the way is below the median of earlier trials at that step.
        """
        from optuna import TrialPruned
        from optuna.trial import TrialState

        with writable(self._file):
            self._study.sampler = _sampler(sampler, seed)
            # In a fixed order, so that the order in which a space is written does not matter.
            trial = self._study.ask({name: distribution(self.space[name]) for name in sorted(self.space)})
        settings = self._settings(trial.params)

        def on_step(step: int, cosine: float) -> None:
            with writable(self._file):
                trial.report(cosine, step)
                if trial.should_prune():
                    raise TrialPruned

        cosine, state = None, TrialState.COMPLETE
        try:
            cosine = score(settings, on_step if prune else None)
        except TrialPruned:
            state = TrialState.PRUNED
        except UsageError:
            raise  # it concerns the search itself, so the next trial would fail in the same way
        except Img2PromptError as error:
            state = TrialState.FAIL
            with writable(self._file):
                trial.set_user_attr(_REASON, str(error))
        with writable(self._file):
            return self._trial(self._study.tell(trial, cosine, state))

    def fail_abandoned(self) -> None:
        """Mark trials that were cut off as failed: nobody else is working on them."""
        from optuna.trial import TrialState

        with writable(self._file):
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _trial(self, frozen: FrozenTrial) -> FinishedTrial:
        state = _STATES[frozen.state.name]
        if state == COMPLETE and not (frozen.value is not None and math.isfinite(frozen.value)):
            raise ValueError(f"trial {frozen.number} has no score")
        return FinishedTrial(
            number=frozen.number,
            state=state,
            settings=self._settings(frozen.params),
            cosine=frozen.value if state == COMPLETE else None,
            seconds=frozen.duration.total_seconds() if frozen.duration else 0.0,
            reason=str(frozen.user_attrs.get(_REASON, "")),
        )

    def _settings(self, params: dict[str, Any]) -> dict[str, Any]:
        """Turn what Optuna keeps into settings, checked again: the file may come from anyone."""
        if {*params} != {*self.space}:
            raise ValueError(f"a trial has the settings {sorted(params)}, not those of its space")
        return {name: value_of(self.space[name], params[name]) for name in self.space}


@contextmanager
def searching(file: Path, identity: dict[str, Any], *, warm_up: int) -> Iterator[Study]:
    """Make a study, or continue the one that exists; one search at a time.

    Parameters
    ----------
    file : pathlib.Path
    identity : dict
        JSON values: what is searched, `head` and `space` (see `to_json`) among them. A study of
        anything else is refused.
    warm_up : int
        Steps of a trial before it can be pruned.

    Raises
    ------
    UsageError
        If the file is no study, or one of something else; the message names what differs.
    Img2PromptError
        If another process is searching in it, or it cannot be read or written.
    """
    from filelock import FileLock, Timeout

    optuna = load_optuna()
    lock = FileLock(file.with_name(f".{file.name}.lock"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise Img2PromptError(
            f"another process is searching in {file}; wait for it, or name another with `study`",
            parameter="study",
        ) from None
    except OSError as error:
        raise Img2PromptError(f"study {file} cannot be written: {error.strerror or error}") from None
    try:
        if not file.exists():
            make_file(file, {_IDENTITY: identity})
        with reading(file) as study:
            with readable(file):
                _require_same(file, study.identity, json.loads(json.dumps(identity)))
            _ = study.trials  # damage is found before the search goes on
        with opened(file, write=True) as found:
            found.pruner = optuna.pruners.MedianPruner(n_startup_trials=START, n_warmup_steps=warm_up)
            study = Study(file, found)
            study.fail_abandoned()
            yield study
    finally:
        lock.release()


@contextmanager
def reading(file: Path) -> Iterator[Study]:
    """Open a study to look at it.

    Raises
    ------
    UsageError
        If there is none.
    Img2PromptError
        If it cannot be read.
    """
    with opened(file, write=False) as study:
        yield Study(file, study)


def _require_same(file: Path, found: object, wanted: object, what: str = "") -> None:
    """Refuse a study of something else, and name what differs down to the field of a field."""
    if found == wanted:
        return
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in {**wanted, **found}:
            _require_same(file, found.get(key), wanted.get(key), f"{what} {key}")
    differs = f"{json.dumps(found)[:200]}, not {json.dumps(wanted)[:200]}"
    raise UsageError(
        f"study {file} was made with another{what}: {differs}; name another with `study`", parameter="study"
    )


def _is_finished(trial: FrozenTrial) -> bool:
    return trial.state.name in ("COMPLETE", "PRUNED") or (
        trial.state.name == "FAIL" and _REASON in trial.user_attrs
    )


def _sampler(name: str, seed: int) -> BaseSampler:
    optuna = load_optuna()
    kinds = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
    sampler: BaseSampler = kinds[name](seed=seed)
    return sampler
