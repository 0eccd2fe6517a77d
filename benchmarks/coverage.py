"""How often the intervals cover the truth, by simulation.

    python benchmarks/coverage.py
    python benchmarks/coverage.py "repeated splits"

The truth is known, because the data are drawn: the difference of two heads that are equally good is 0, and
so is the mean of the rows of some groups; heads and blends are scored on fresh rows, too. It takes minutes on
one core, and writes `results/coverage.json`, or with the name of one table `results/coverage-NAME.json`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from system import save

from img2prompt_cache.data.splits import split_groups
from img2prompt_cache.numerics.blending import (
    InnerProducts,
    best_weights,
    cosines,
    cross_weights,
    inner_products,
)
from img2prompt_cache.numerics.bootstrap import (
    connected_groups,
    effective_groups,
    interval,
    paired_difference,
    split_widening,
)
from img2prompt_cache.numerics.metrics import cosine, unit

WIDTH, TARGETS = 24, 16
FRESH = 6000
"""Rows that a head is scored on to know how good it is."""


def draw_pairs(rng: np.random.Generator, n: int, heads: int, alike: int = 1) -> tuple[list[Any], Any]:
    """Draw targets, so many of them alike, and for each head features that tell them equally well."""
    truth = rng.normal(size=(n, WIDTH))
    if alike > 1:
        centres = rng.normal(size=(-(-n // alike), WIDTH))
        truth = np.sqrt(0.8) * centres[np.arange(n) // alike] + np.sqrt(0.2) * truth
    y = unit(truth[:, :TARGETS] + 0.7 * rng.normal(size=(n, TARGETS)))
    return [truth + 1.5 * rng.normal(size=truth.shape) for _ in range(heads)], y


def ridge(X: Any, y: Any, train: Any, held: Any) -> Any:
    """Predict some rows by a ridge regression on others."""
    known = X[train]
    return X[held] @ np.linalg.solve(known.T @ known + np.eye(X.shape[1]), known.T @ y[train])


def paired(n: int, folds: int, repeats: int) -> dict[str, Any]:
    """Cover the difference 0 of two equally good heads: by five folds, or on a hold-out of a fifth."""
    hits = np.zeros(2)
    for seed in range(repeats):
        rng = np.random.default_rng([seed, n, folds])
        features, y = draw_pairs(rng, n, 2)
        fold = rng.permutation(n) % 5
        rows = np.flatnonzero(fold < folds)
        one, other = np.zeros(n), np.zeros(n)
        for X, found in zip(features, (one, other), strict=True):
            for number in range(folds):
                held = fold == number
                found[held] = cosine(ridge(X, y, ~held, held), y[held])
        for place, factor in enumerate((1.0, split_widening(fold[rows], n))):
            _, inside = paired_difference(one[rows], other[rows], rows, 400, widening=factor)
            hits[place] += inside is not None and inside[0] <= 0 <= inside[1]
    plain, wide = (hits / repeats).round(3).tolist()
    return {"rows": n, "folds": folds, "repeats": repeats, "fixed heads": plain, "widened": wide}


def repeated(n: int, alike: int, splits: int, folds: int | None, repeats: int) -> dict[str, Any]:
    """Cover the score of a head that is fitted on several splits, and the difference 0 of two such heads.

    As `compare` does for a fit with several seeds of the split: the values of all splits are put together,
    and rows that several of them hold out are one group.

    Parameters
    ----------
    n, alike : int
        Rows, of which so many at a time are alike, and one group.
    splits : int
        Seeds of the split.
    folds : int or None
        Of each split; None for a hold-out of a fifth.
    repeats : int
    """
    groups = np.arange(n) // alike
    ends, truths = np.zeros((repeats, 2, 2)), np.zeros(repeats)
    hits = np.zeros(2)
    for seed in range(repeats):
        rng = np.random.default_rng([seed, n, alike, splits, folds or 0])
        features, y = draw_pairs(rng, n + FRESH, 2, alike)
        fresh = np.arange(n, n + FRESH)
        made = [split_groups(groups, "group", 0.2, folds, 1000 * seed + number) for number in range(splits)]
        scored = np.zeros((2, splits, n))
        true, weight = [], []
        for number, split in enumerate(made):
            for train, held in split.sides:
                for X, found in zip(features, scored[:, number], strict=True):
                    found[held] = cosine(ridge(X, y, train, held), y[held])
                true.append(cosine(ridge(features[0], y, train, fresh), y[fresh]).mean())
                weight.append(len(held))
        truths[seed] = np.average(true, weights=weight)
        rows = [split.validation for split in made]
        one, other = (
            np.concatenate([found[held] for found, held in zip(each, rows, strict=True)]) for each in scored
        )
        joined = connected_groups([([*map(str, held)], groups[held]) for held in rows])
        fold = np.concatenate([split.fold[split.validation] + at * 100 for at, split in enumerate(made)])
        factor = split_widening(fold, n, len(one) / len(np.unique(np.concatenate(rows))))
        for place, widening in enumerate((1.0, factor)):
            ends[seed, place] = interval(one, joined, 400, widening=widening) or (1, -1)
            _, inside = paired_difference(one, other, joined, 400, widening=widening)
            hits[place] += inside is not None and inside[0] <= 0 <= inside[1]
    low, high = ends.transpose(2, 1, 0)
    covered = {
        "these heads": ((low <= truths) & (truths <= high)).mean(axis=1),
        "such heads": ((low <= truths.mean()) & (truths.mean() <= high)).mean(axis=1),
        "difference": hits / repeats,
    }
    return {
        "rows": n,
        "alike": alike,
        "splits": splits,
        "folds": folds or 1,
        "repeats": repeats,
        **{
            f"{what}, {how}": round(float(value), 3)
            for what, values in covered.items()
            for how, value in zip(("fixed", "widened"), values, strict=True)
        },
    }


def grouped(sizes: list[int], repeats: int) -> dict[str, Any]:
    """Cover the mean 0 of rows that are alike in groups of some sizes."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    hits = 0
    for seed in range(repeats):
        rng = np.random.default_rng([seed, len(sizes)])
        values = rng.normal(size=len(sizes))[groups] + 0.5 * rng.normal(size=len(groups))
        inside = interval(values, groups, 400)
        hits += inside is not None and inside[0] <= 0 <= inside[1]
    return {
        "groups": len(sizes),
        "effective": round(effective_groups(groups), 1),
        "repeats": repeats,
        "covered": round(hits / repeats, 3),
    }


def blended(n: int, members: int, repeats: int) -> dict[str, Any]:
    """Score blends of equally good heads by five folds: how much higher than on fresh rows, on average.

    `overfit` is that of weights found and scored on the same rows; `other folds` that of weights found on the
    predictions for the other folds; `nested` that of weights found on inner folds of the other folds. From
    each the same difference for equal weights is subtracted: it is 0 on average, and takes away most of the
    noise.
    """
    higher = np.zeros((repeats, 3))
    equal = np.full(members, 1 / members)
    for seed in range(repeats):
        rng = np.random.default_rng([seed, n, members])
        features, y = draw_pairs(rng, n + 4000, members)
        fold = np.append(rng.permutation(n) % 5, np.full(4000, -1))
        ours, fresh = np.flatnonzero(fold >= 0), np.flatnonzero(fold < 0)
        told = [np.zeros_like(y, np.float32) for _ in features]
        elsewhere = []
        for number in range(5):
            train, held = np.flatnonzero((fold >= 0) & (fold != number)), np.flatnonzero(fold == number)
            for X, found in zip(features, told, strict=True):
                found[held] = ridge(X, y, train, held)
            elsewhere.append(inner_products([ridge(X, y, train, fresh) for X in features], y[fresh]))
        known = inner_products([found[ours] for found in told], y[ours])
        everywhere = best_weights(known)
        inner = [_inner(features, y, np.flatnonzero((fold >= 0) & (fold != k)), rng) for k in range(5)]
        for place, weights in enumerate(
            ([everywhere] * 5, cross_weights(known, fold[ours]), cross_weights(known, fold[ours], inner))
        ):
            for number, each in enumerate(weights):
                scored = cosines(known.rows(fold[ours] == number), each).mean()
                plain = cosines(known.rows(fold[ours] == number), equal).mean()
                noise = plain - cosines(elsewhere[number], equal).mean()
                higher[seed, place] += (scored - cosines(elsewhere[number], each).mean() - noise) / 5
    mean, error = higher.mean(axis=0), higher.std(axis=0) / np.sqrt(repeats)
    names = ("overfit", "other folds", "nested")
    rows: dict[str, Any] = {"rows": n, "members": members, "repeats": repeats}
    for name, value, by in zip(names, mean, error, strict=True):
        rows[name] = round(float(value), 4)
        rows[f"{name}, standard error"] = round(float(by), 4)
    return rows


def _inner(features: list[Any], y: Any, train: Any, rng: np.random.Generator) -> InnerProducts:
    """Predict training rows by heads that were fitted on inner folds of them."""
    fold, found = (
        rng.permutation(len(train)) % 5,
        [np.zeros((len(train), TARGETS), np.float32) for _ in features],
    )
    for number in range(5):
        held = fold == number
        for X, each in zip(features, found, strict=True):
            each[held] = ridge(X, y, train[~held], train[held])
    return inner_products(found, y[train])


def main() -> None:
    """Simulate, print and save."""
    few = [
        [300, 200, 150, 80, 60, *[5] * 40, *[1] * 100],
        [60, 50, 40, 40, *[20] * 10, *[2] * 50],
        [20] * 15,
        [20] * 30,
        [20] * 60,
        [5] * 400,
    ]
    tables = {
        "paired differences": lambda: [
            paired(n, folds, 500 if n == 300 else 300) for n in (300, 1000) for folds in (5, 1)
        ],
        "means over groups": lambda: [grouped(sizes, 400) for sizes in few],
        "repeated splits": lambda: [
            repeated(n, alike, splits, folds, 400)
            for n, alike in ((300, 1), (300, 3), (900, 3))
            for splits, folds in ((1, None), (5, None), (10, None), (1, 5), (3, 5))
        ],
        "blends": lambda: [blended(n, 6, 60) for n in (300, 900)],
    }
    named = sys.argv[1:]
    figures = {name: make() for name, make in tables.items() if not named or name in named}
    for name, rows in figures.items():
        print(name)
        for row in rows:
            print(" ", row)
    print(save("-".join(["coverage", *named]).replace(" ", "-"), figures))


if __name__ == "__main__":
    main()
