"""What a fit was asked for, and the unfitted head that follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads import make_head

if TYPE_CHECKING:
    from img2prompt_cache.data.further_prompts import TrainOn
    from img2prompt_cache.heads.base import Head

EXTRA = ("best", "kernel", "blend")
"""Heads that are fitted on extra pairs, too."""
HOLDOUT = 0.2
"""Share of the rows that is held out where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class FitConfig:
    """What to fit, on which columns, and how to score it.

    Attributes
    ----------
    head : str
        Name of the head.
    settings : mapping or None
        Settings of the head that differ from its defaults.
    features : tuple of str
        Backbones whose features are concatenated. If empty: every cached one, or the one that the head is
        made for. For a head that trains the last blocks of a backbone: that one backbone.
    encoder : str or None
        Target column; the first one if None.
    split : str
        ``"group"``, ``"random"`` or a column of the user's own table.
    holdout : float
        Share of the rows that is held out.
    group_threshold : float or None
        Smallest cosine of prompts that count as near-identical; see `choose_grouping`.
    seed : int
        Of the split, and of the head unless `settings` has another.
    refit : bool
        Fit the saved head again on all rows, with the settings that the first fit chose.
    folds : int or None
        Hold out every row once, in this many folds, instead of a share of the rows. The saved head is then
        fitted on all rows and chooses its settings anew, because the folds may have chosen different ones.
    leakage_gap : bool or None
        Also score on a random split, to measure the leakage gap. If None: unless fitting the head is slow.
    extra : tuple of pathlib.Path
        Caches whose pairs are fitted on, too, but never scored on; for heads that take them.
    soften : str or pathlib.Path or None
        Draw predictions towards near prompts of a soft bank: ``"train"`` for the training prompts, or a file
        of further ones. The head is then a blend of the one named, unless it has a soft bank itself.
    train_on : str
        Of rows with several prompts: ``"mean"`` to fit on the mean of their embeddings, ``"first"`` on the
        first prompt alone.
    only : pathlib.Path or None
        A table that names the rows to use, as `dedup` writes it; see `read_selection`.
    memory : str or int or None
        How much memory rows may take; see `hold_rows`.
    device : str
        Where the head computes, if it does so with torch; see `Head.use_device`.
    """

    head: str = "best"
    settings: Mapping[str, Any] | None = None
    features: tuple[str, ...] = ()
    encoder: str | None = None
    split: str = "group"
    holdout: float = HOLDOUT
    group_threshold: float | None = None
    seed: int = 0
    refit: bool = True
    folds: int | None = None
    leakage_gap: bool | None = None
    extra: tuple[Path, ...] = ()
    soften: str | Path | None = None
    train_on: TrainOn = "mean"
    only: Path | None = None
    memory: str | int | None = None
    device: str = "auto"

    def describe(self) -> dict[str, Any]:
        """Give what was asked for as JSON values, without what a run records elsewhere."""
        apart = ("features", "encoder", "memory", "device")
        asked = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in apart}
        soften = Path(self.soften) if self.soften not in (None, "train") else None
        return {
            **asked,
            "settings": plain_settings(self.settings or {}),
            "extra": [str(folder.resolve()) for folder in self.extra],
            "only": None if self.only is None else str(self.only.resolve()),
            "soften": self.soften if soften is None else str(soften.resolve()),
        }

    def make_head(self) -> Head:
        """Make the unfitted head.

        Raises
        ------
        UsageError
            If there is no such head, it does not take a setting, or it cannot be fitted on extra pairs.
        """
        own = finite(self.settings)
        seed = own.get("seed", self.seed)
        head = seeded(make_head(self.head, **own), seed)
        if self.soften is not None and not head.takes_bank:
            member = {"head": self.head, "settings": head.settings}
            head = seeded(make_head("blend", members=[member]), seed)
        if self.extra and not head.takes_extra:
            raise UsageError(
                f"head {self.head!r} is not fitted on extra pairs; {', '.join(EXTRA)} are", parameter="extra"
            )
        return head.use_device(self.device)


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give settings as JSON has them."""
    return {str(name): _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    """Give a setting as JSON has it: numbers of NumPy as Python's, tuples as lists."""
    if isinstance(value, Mapping):
        return plain_settings(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.item() if hasattr(value, "item") else value


def finite(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Copy settings, having checked that those that are numbers are finite.

    Raises
    ------
    UsageError
        Naming the setting that is not.
    """
    for name, value in (settings or {}).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{name} must be a finite number, not {value}", parameter=name)
    return dict(settings or {})


def seeded(head: Head, seed: int) -> Head:
    """Set the seed of a head that has one."""
    if "seed" in head.get_params():
        head.set_params(seed=seed)
    return head
