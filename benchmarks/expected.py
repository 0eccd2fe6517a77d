"""How well runs know which of their predictions are good: the expected cosine against the true one.

    python benchmarks/expected.py DATA [DATA ...] --caches DIR [--head kernel] [--seed 0]

DATA is a folder with images and `prompts.csv`, extracted with the packaged preset into DIR/NAME unless it is
there; where it is, only the folder's name counts. The head is fitted on five grouped folds; what to expect of
its predictions is fitted on groups of the held-out rows, and scored on the other ones. For each set: the rank
correlation and the calibration error, of the signals that runs use and of some of them alone, and of other
models on the same signals; then the share of rows that is expected to reach a threshold, and their mean
cosine. Prints tables and adds to `results/expected.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.isotonic import IsotonicRegression
from system import extracted, load, save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.fitting.columns import choose_columns
from img2prompt_cache.fitting.evaluate import evaluate_head
from img2prompt_cache.fitting.expected import cross_fit, held_out_signals
from img2prompt_cache.heads import make_head
from img2prompt_cache.numerics.calibration import calibration_error, coverage, rank_correlation
from img2prompt_cache.numerics.expected_cosine import BANK_SIGNALS, fit_curve
from img2prompt_cache.numerics.metrics import cosine

F64 = NDArray[np.float64]
FOLDS = 5
SHOWN = (0.4, 0.5, 0.6, 0.7)
"""Thresholds in the table."""


def fit_mean(signals: F64, cosines: F64) -> Callable[[F64], F64]:
    """Expect the mean."""
    return lambda others: np.full(len(others), cosines.mean())


def fit_isotonic(signals: F64, cosines: F64) -> Callable[[F64], F64]:
    """Fit a step function of the sum of weighted signals in place of the few pieces of the curve."""
    curve = fit_curve(signals, cosines)

    def sums(values: F64) -> F64:
        return np.clip(values, curve.low, curve.high) @ curve.weight

    steps = IsotonicRegression(out_of_bounds="clip").fit(sums(signals), cosines)
    return lambda others: steps.predict(sums(others))


def fit_trees(signals: F64, cosines: F64) -> Callable[[F64], F64]:
    """Fit boosted trees that never fall as a signal rises."""
    trees = HistGradientBoostingRegressor(
        max_iter=80,
        learning_rate=0.06,
        max_leaf_nodes=5,
        min_samples_leaf=40,
        monotonic_cst=[1] * signals.shape[1],
        random_state=0,
    )
    return trees.fit(signals, cosines).predict


def measure(cache: Cache, head: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Fit a head by folds, and score what it says of itself."""
    unfitted = make_head(head, **settings)
    features, _ = choose_columns(cache, unfitted, ())
    data = load_dataset(cache, features, choose_target(cache, None))
    split = make_split(cache, data, "group", 0.2, seed, FOLDS)
    evaluation = evaluate_head(unfitted, data, split)
    rows = split.validation
    groups, cosines = split.groups[rows], cosine(evaluation.predictions, data.y[rows])
    found, _ = held_out_signals(evaluation.head, evaluation, data.y, split, np.arange(len(data.y)))
    own = [name for name in found if name not in BANK_SIGNALS]
    chosen: dict[str, tuple[list[str], Any]] = {
        "the mean for all": ([*found], fit_mean),
        **{name: ([name], fit_curve) for name in found},
        "what the head says": (own, fit_curve),
        "what the bank says": ([*BANK_SIGNALS], fit_curve),
        "all signals": ([*found], fit_curve),
        "all signals, isotonic": ([*found], fit_isotonic),
        "all signals, monotone trees": ([*found], fit_trees),
    }
    models: dict[str, Any] = {}
    for name, (signals, fit) in chosen.items():
        if signals:
            values = np.stack([found[signal] for signal in signals], axis=1)
            expected = cross_fit(values, cosines, groups, fit)
            models[name] = {
                # Means of the folds order rows by what is left out, the wrong way round.
                "spearman": None if fit is fit_mean else rank_correlation(expected, cosines),
                "calibration_error": calibration_error(expected, cosines),
            }
            if name == "all signals":
                kept = coverage(expected, cosines)
    return {"rows": len(rows), "cosine": float(cosines.mean()), "models": models, "coverage": kept}


def show(name: str, head: str, found: dict[str, Any]) -> None:
    """Print the tables of a set."""
    print(f"\n{name}, {head}: {found['rows']:,} rows, cosine {found['cosine']:.4f}\n")
    print("| expected from | rank correlation | calibration error |\n|---|---|---|")
    for model, each in found["models"].items():
        order = "–" if each["spearman"] is None else f"{each['spearman']:.3f}"
        print(f"| {model} | {order} | {each['calibration_error']:.3f} |")
    print("\n| expected at least | share of rows | their cosine |\n|---|---|---|")
    for each in found["coverage"]:
        if each["min_expected"] in SHOWN:
            print(f"| {each['min_expected']} | {each['share']:.1%} | {each['cosine']:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--caches", type=Path, required=True, help="where caches are made, or found")
    parser.add_argument("--head", default="kernel")
    parser.add_argument("--seed", type=int, default=0, help="of the folds")
    options = parser.parse_args()
    figures: dict[str, Any] = load("expected") or {}
    for data in options.data:
        cache = Cache(extracted(data, options.caches))
        found = measure(cache, options.head, {}, options.seed)
        figures.setdefault(options.head, {}).setdefault(data.name, {})[str(options.seed)] = found
        show(data.name, options.head, found)
        save("expected", figures)


if __name__ == "__main__":
    main()
