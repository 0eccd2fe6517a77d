"""How often the intervals cover the truth, by simulation.

    python benchmarks/coverage.py

The truth is known, because the data are drawn: the difference of two heads that are equally good is 0, and
so is the mean of the rows of some groups. Takes less than a minute on one core, and writes
`results/coverage.json`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from system import save

from img2prompt_cache.numerics.bootstrap import (
    effective_groups,
    interval,
    paired_difference,
    split_widening,
)
from img2prompt_cache.numerics.metrics import cosine, unit

WIDTH, TARGETS = 24, 16


def draw_pairs(rng: np.random.Generator, n: int, heads: int) -> tuple[list[Any], Any]:
    """Draw targets, and for each head features that tell them equally well."""
    truth = rng.normal(size=(n, WIDTH))
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
    figures = {
        "paired differences": [
            paired(n, folds, 500 if n == 300 else 300) for n in (300, 1000) for folds in (5, 1)
        ],
        "means over groups": [grouped(sizes, 400) for sizes in few],
    }
    for name, rows in figures.items():
        print(name)
        for row in rows:
            print(" ", row)
    print(save("coverage", figures))


if __name__ == "__main__":
    main()
