"""Curves of what was recorded while heads were fitted: losses by epoch, scores by what was tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from img2prompt_cache.reporting.charts import Curve, Curves

History: TypeAlias = Sequence[dict[str, Any]]

EPOCH = "epoch"
SCORES = ("cosine", "val_cosine")
LOSSES = {"train_loss": "training rows", "val_loss": "rows not seen"}
NO_SETTINGS = (EPOCH, *SCORES, *LOSSES, "mse", "val_mse", "seconds", "member", "weight", "without")
MOST_CURVES = 8
NARROW = 0.1
"""Spread of the values of a setting, as a share of the largest, up to which it is not worth a chart."""
WIDE = 30
"""Ratio of the largest and the smallest value from which an axis is logarithmic."""


def is_trained(history: History) -> bool:
    """Whether a history is one of epochs."""
    return bool(history) and EPOCH in history[0]


def loss_curves(run: str, history: History) -> Curves | None:
    """Draw the losses of a run by epoch; the epoch that was lowest on rows not seen is marked."""
    curves = [
        curve for name, label in LOSSES.items() if (curve := _curve(label, history, EPOCH, name)) is not None
    ]
    if not curves:
        return None
    unseen = next((curve for curve in curves if curve.name == LOSSES["val_loss"]), None)
    best = {"best": unseen.x[unseen.y.index(min(unseen.y))]} if unseen else {}
    return Curves(run, EPOCH, "loss", tuple(curves), marks=best)


def score_curves(runs: Sequence[tuple[str, History]]) -> Curves | None:
    """Draw the cosines of trained runs by epoch in one chart."""
    curves = [
        curve
        for run, history in runs
        if is_trained(history) and (curve := _curve(run, history, EPOCH, "val_cosine")) is not None
    ]
    if not curves:
        return None
    return Curves("Cosine of rows not seen", EPOCH, "cosine", tuple(curves[:MOST_CURVES]))


def tried_curves(run: str, history: History) -> list[Curves]:
    """Draw the scores of what a head tried: by its setting, or of two settings a curve for each value of one.

    Settings that were searched at random, or more than two, are points, in a chart for each.
    """
    score = next((name for name in SCORES if history and name in history[0]), None)
    if is_trained(history) or score is None:
        return []
    settings = [name for name in history[0] if name not in NO_SETTINGS and _varies(name, history)]
    if not settings:
        return []
    if len(settings) == 1:
        curve = _curve(run, history, settings[0], score)
        return [] if curve is None else [_chart(run, settings[0], (curve,))]
    counts = {name: len({row[name] for row in history}) for name in settings}
    few, many = sorted(settings, key=counts.__getitem__)[:2]
    if len(settings) == 2 and counts[few] <= MOST_CURVES and counts[few] * counts[many] == len(history):
        curves = [
            _curve(f"{few} {value:g}", [row for row in history if row[few] == value], many, score)
            for value in sorted({row[few] for row in history})
        ]
        return [_chart(run, many, tuple(filter(None, curves)))]
    found = []
    for name in settings:
        curve = _curve(run, history, name, score)
        if curve is not None:
            found.append(_chart(run, name, (curve,), joined=False))
    return found


def _varies(name: str, history: History) -> bool:
    """Whether several values of a setting were tried, and not only ones that are all but equal."""
    values = [float(row[name]) for row in history if _is_number(row.get(name))]
    return bool(values) and max(values) - min(values) > NARROW * max(map(abs, values))


def _chart(run: str, setting: str, curves: tuple[Curve, ...], *, joined: bool = True) -> Curves:
    values = [x for curve in curves for x in curve.x]
    log = min(values) > 0 and max(values) > WIDE * min(values)
    return Curves(f"{run}: {setting}", setting, "cosine", curves, log_x=log, joined=joined)


def _curve(name: str, history: History, x: str, y: str) -> Curve | None:
    """Take the finite values of two columns, in the order of x."""
    pairs = sorted(
        (float(row[x]), float(row[y])) for row in history if _is_number(row.get(x)) and _is_number(row.get(y))
    )
    return Curve(name, tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)) if pairs else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
