"""The tables of `recipe.py`, from the folds that were scored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from one_fold import FOLDS, HEADS

from img2prompt_cache.numerics.bootstrap import (
    effective_groups,
    holm,
    p_value,
    paired_difference,
    split_widening,
)

RANKS = ("r@1", "r@5", "bank")
PAIRS = (
    ("banded-ridge", "ridge"),
    ("kernel-pooled", "banded-ridge"),
    ("kernel-unwhitened", "kernel-pooled"),
    ("kernel", "kernel-unwhitened"),
    ("mlp", "banded-ridge"),
    ("distil", "mlp"),
    ("blend", "mlp"),
)
"""Which heads are compared with each other: what one thing brings, and the other lacks."""


def records_of(content: dict[str, Any], name: str, seed: int, head: str) -> list[dict[str, Any]]:
    """Give the records of a head."""
    key = (name, seed, head)
    return [each for each in content["folds"] if (each["set"], each["seed"], each["head"]) == key]


def summary(content: dict[str, Any], name: str, seed: int) -> dict[str, Any]:
    """Put together what is known of a set: every head, and every step of best."""
    groups = np.array(content["sets"][name])
    found: dict[str, Any] = {
        "rows": len(groups),
        "groups": len(np.unique(groups)),
        "effective_groups": effective_groups(groups),
        "heads": {},
        "pairs": [],
        "steps": [],
    }
    cosines = {}
    for head in HEADS:
        records = records_of(content, name, seed, head)
        if sum(len(each["rows"]) for each in records) != len(groups):
            continue
        cosines[head] = _over_folds(records, [each["cosines"] for each in records])
        fold = _over_folds(records, [[each["fold"]] * len(each["rows"]) for each in records]).astype(int)
        widening = split_widening(fold, len(fold))
        middle, inside = paired_difference(cosines[head], np.zeros(len(fold)), groups, widening=widening)
        of_all = {key: sum(each[key] * len(each["rows"]) for each in records) / len(fold) for key in RANKS}
        found["heads"][head] = {
            "cosine": middle,
            "ci95": inside,
            **of_all,
            "seconds": sum(each["seconds"] for each in records),
            "features": records[0]["features"],
            "extra": records[0]["extra"],
        }
    others = [head for head in cosines if head != "best"] if "best" in cosines else []
    told = compared([(cosines["best"], cosines[head]) for head in others], groups, widening) if others else []
    for head, difference in zip(others, told, strict=True):
        found["heads"][head]["best_minus_this"] = difference
    pairs = [pair for pair in PAIRS if cosines.keys() >= {*pair}]
    if pairs:
        told = compared([(cosines[one], cosines[other]) for one, other in pairs], groups, widening)
        found["pairs"] = [{"pair": pair, **each} for pair, each in zip(pairs, told, strict=True)]
    if "best" in cosines:
        found["steps"] = steps(records_of(content, name, seed, "best"), groups, widening)
    return found


def _over_folds(records: list[dict[str, Any]], values: list[Any]) -> Any:
    """Give the values of each fold's rows in the order of the rows."""
    rows = np.concatenate([each["rows"] for each in records])
    return np.concatenate(values)[np.argsort(rows)]


def steps(records: list[dict[str, Any]], groups: Any, widening: float) -> list[dict[str, Any]]:
    """Tell what each step of best brings on the rows that are held out from the whole recipe.

    A step that is dropped in a fold changes nothing there. Beside it, the mean over folds of the gain on
    inner folds, by which steps are kept.
    """
    scores = [
        _over_folds(records, [each["steps"][number]["held"] for each in records])
        for number in range(len(records[0]["steps"]))
    ]
    gains: list[dict[str, Any]] = compared(list(zip(scores[1:], scores, strict=False)), groups, widening)
    found = []
    for number, score in enumerate(scores):
        told = [each["steps"][number] for each in records]
        inner = [each["gain"] for each in told if "gain" in each]
        found.append(
            {
                "step": told[0]["step"],
                "kept": sum(each["kept"] for each in told),
                "cosine": float(score.mean()),
                "gain": gains[number - 1] if number else None,
                "inner_gain": float(np.mean(inner)) if inner else None,
                "seconds": sum(each.get("seconds", 0.0) for each in told),
            }
        )
    return found


def compared(pairs: list[tuple[Any, Any]], groups: Any, widening: float) -> list[dict[str, Any]]:
    """Compare scores row by row: each pair's difference, its interval, and p adjusted for their number."""
    adjusted = holm([p_value(one - other, groups, widening) for one, other in pairs])
    found = []
    for (one, other), p in zip(pairs, adjusted, strict=True):
        difference, inside = paired_difference(one, other, groups, widening=widening)
        found.append({"cosine": difference, "ci95": inside, "p": p})
    return found


def tables(name: str, seed: int, found: dict[str, Any]) -> Iterator[str]:
    """Write the tables of a set in Markdown."""
    yield (
        f"\n**{name}**: {found['rows']:,} rows in {FOLDS} folds of seed {seed}; {found['groups']:,} groups, "
        f"as good as {found['effective_groups']:.1f} of equal size.\n"
    )
    yield "| head | features | cosine | 95 % | best minus this | 95 % | p | R@1 | R@5 | s |"
    yield f"|{'---|' * 10}"
    for head, row in sorted(found["heads"].items(), key=lambda each: float(each[1]["cosine"])):
        columns = row["features"]
        on = columns[0].rpartition(":")[2] if len(columns) == 1 else f"{len(columns)} columns"
        more = f" + {row['extra']:,} pairs" if row["extra"] else ""
        yield (
            f"| {head} | {'–' if head == 'mean' else on + more} | {row['cosine']:.4f} | {_inside(row)} "
            f"| {_difference(row.get('best_minus_this'))} | {row['r@1']:.3f} | {row['r@5']:.3f} "
            f"| {row['seconds']:.0f} |"
        )
    if found["pairs"]:
        yield f"\n| head | minus | difference | 95 % | p |\n|{'---|' * 5}"
    for row in found["pairs"]:
        yield f"| {' | '.join(row['pair'])} | {_difference(row)} |"
    if found["steps"]:
        yield "\n| step of best | kept in folds | cosine | gain | 95 % | p | on inner folds | s |"
        yield f"|{'---|' * 8}"
    for row in found["steps"]:
        inner = "–" if row["inner_gain"] is None else f"{row['inner_gain']:+.4f}"
        yield (
            f"| {row['step']} | {row['kept']} of {FOLDS} | {row['cosine']:.4f} | {_difference(row['gain'])} "
            f"| {inner} | {row['seconds']:.0f} |"
        )


def _difference(told: dict[str, Any] | None) -> str:
    if told is None:
        return "– | – | –"
    return f"{told['cosine']:+.4f} | {_inside(told, '+')} | {told['p']:.3f}"


def _inside(row: dict[str, Any], sign: str = "") -> str:
    return "–" if row["ci95"] is None else " to ".join(f"{end:{sign}.4f}" for end in row["ci95"])
