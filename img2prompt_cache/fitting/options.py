"""The parameters of a fit: which of them go together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from img2prompt_cache.data.further_prompts import TrainOn
from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.fitting.config import HOLDOUT, FitConfig
from img2prompt_cache.models.devices import choose_device

LARGEST_SEED = 2**32 - 1

_ALWAYS = ("seed", "run", "oof", "overwrite", "device", "engine", "workers", "ray_address")
MADE_OF_RUNS = {
    "blend": (*_ALWAYS, "memory", "members", "refit_members"),
    "distil": (*_ALWAYS, "memory", "teacher", "features", "settings", "refit", "seeds"),
}
"""Heads that are made of runs, with the parameters that they take; all others follow from these runs."""


def is_made_of_runs(head: str, settings: Mapping[str, Any]) -> bool:
    """Whether a head is made of runs: distil, and blend unless its members are given as settings."""
    return head in MADE_OF_RUNS and not (head == "blend" and "members" in settings)


def require_consistent(head: str, given: Collection[str], settings: Mapping[str, Any]) -> None:
    """Check that the parameters of a fit go together.

    Parameters
    ----------
    head : str
        Name of the head.
    given : collection of str
        Names of the parameters that were given, `head` apart.
    settings : mapping
        Settings of the head.

    Raises
    ------
    UsageError
        If two contradict each other, one does not go with the head, or one is missing.
    """
    for name, only in (("members", "blend"), ("refit_members", "blend"), ("teacher", "distil")):
        if name in given and head != only:
            raise UsageError(f'`{name}` goes with `head="{only}"`, not with `head="{head}"`', parameter=name)
    if "holdout" in given and "folds" in given:
        raise UsageError(
            "`holdout` holds out a share once, `folds` every row once; leave one out", parameter="holdout"
        )
    require_one_test(given)
    if not is_made_of_runs(head, settings):
        return
    for name in sorted(given):
        if name not in MADE_OF_RUNS[head]:
            raise UsageError(
                f'`{name}` does not go with `head="{head}"`: it follows from the runs named', parameter=name
            )
    if head == "distil" and "teacher" not in given:
        raise UsageError("distil learns from one run: name it with `teacher`", parameter="teacher")


def require_one_test(given: Collection[str]) -> None:
    """Check that nothing else holds out rows where a test set is named.

    Raises
    ------
    UsageError
        Naming what does.
    """
    for name in ("split", "holdout", "folds"):
        if "test" in given and name in given:
            raise UsageError(f"`test` holds out the rows that it names; leave out `{name}`", parameter=name)


def require_valid(seed: int, device: str) -> None:
    """Check what every head is given, also where it has no use for it.

    Raises
    ------
    UsageError
        If the seed is out of range, or this machine does not have the device.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"`seed` must be from 0 to {LARGEST_SEED}, not {seed}", parameter="seed")
    if device != "auto":
        choose_device(device)


def named_test_set(test: str) -> str:
    """Check how a test set is named.

    Raises
    ------
    UsageError
        If it is not ``column=value``.
    """
    column, equals, value = test.partition("=")
    if not (column.strip() and equals and value.strip()):
        raise UsageError(
            f"`test` names a column and a value, such as source=external, not {test!r}", parameter="test"
        )
    return test


def chosen_target(train_on: str) -> TrainOn:
    """Check what heads are to be fitted on.

    Raises
    ------
    UsageError
        If it is neither ``"mean"`` nor ``"first"``.
    """
    for value in get_args(TrainOn):
        if train_on == value:
            return cast(TrainOn, value)
    raise unknown("`train_on`", train_on, get_args(TrainOn), parameter="train_on")


def with_shorthands(settings: Mapping[str, Any] | None, **shorthands: Any) -> dict[str, Any]:
    """Add settings of a head that have a parameter of their own.

    Parameters
    ----------
    settings : mapping or None
    **shorthands
        None where it was not given.

    Raises
    ------
    UsageError
        If a setting is given twice.
    """
    own = dict(settings or {})
    for name, value in shorthands.items():
        if value is not None:
            if name in own:
                raise UsageError(f"`settings`: {name} is given twice", parameter="settings")
            own[name] = value
    return own


def fit_config(
    head: str = "best",
    *,
    settings: Mapping[str, Any] | None = None,
    features: str | Sequence[str] = (),
    encoder: str | None = None,
    split: str = "group",
    test: str | None = None,
    holdout: float | None = None,
    folds: int | None = None,
    group_threshold: float | None = None,
    inner_folds: int | None = None,
    blocks: int | None = None,
    extra: str | Path | Sequence[str | Path] = (),
    soften: str | Path | None = None,
    minutes: float | None = None,
    train_on: str = "mean",
    only: str | Path | None = None,
    memory: str | int | None = None,
    seed: int = 0,
    refit: bool = True,
    leakage_gap: bool | None = None,
    device: str = "auto",
) -> FitConfig:
    """Give what a head that is not made of runs is fitted with; the parameters are those of `fit`.

    Raises
    ------
    UsageError
        If a setting is given twice, or `test` or `train_on` is none.
    """
    return FitConfig(
        head=head,
        settings=with_shorthands(settings, folds=inner_folds, blocks=blocks, minutes=minutes),
        features=several(features),
        encoder=encoder,
        split=split if test is None else named_test_set(test),
        holdout=HOLDOUT if holdout is None else holdout,
        group_threshold=group_threshold,
        seed=seed,
        refit=refit,
        folds=folds,
        leakage_gap=leakage_gap,
        extra=tuple(Path(each) for each in several(extra)),
        soften=soften,
        train_on=chosen_target(train_on),
        only=None if only is None else Path(only),
        memory=memory,
        device=device,
    )


def several(value: Any) -> tuple[Any, ...]:
    """Give several values as a tuple, also where there is only one and it stands alone."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
