"""The leakage gap of heads by grouped 5-fold, beyond what the mean head gains by a random division.

    python benchmarks/leakage_gap.py --caches DIR --runs DIR

Takes the caches of `ladder.py`, DIR/NAME for each data set. A run that is there from an interrupted call is
taken as it is. Prints a Markdown table and writes `results/leakage_gap.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from system import save

import img2prompt_cache as ipc

LITE, VIT = "packaged:efficientnet-lite0", "packaged:vit-small-saliency"
FITS = (
    ("t2i-classic", "ridge", (LITE, VIT)),
    ("t2i-classic", "mlp", (LITE, VIT)),
    ("horde-styles", "ridge", (LITE, VIT)),
    ("horde-styles", "knn", (LITE,)),
    ("photo-captions", "ridge", (LITE, VIT)),
    ("photo-captions", "mlp", (LITE, VIT)),
)
KEPT = (
    *("cosine", "ci95", "groups", "effective_groups", "floor", "n"),
    *("leakage_gap", "leakage_gap_ci95", "leakage_gap_floor"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--caches", type=Path, required=True, help="where the caches are")
    parser.add_argument("--runs", type=Path, required=True, help="where runs are made, or found")
    options = parser.parse_args()
    print("| data | head | cosine | leakage gap | 95 % | effective groups |\n|---|---|---|---|---|---|")
    rows = []
    for data, head, features in FITS:
        folder = options.runs / f"{data}-{head}"
        if folder.exists():
            run = ipc.Run.load(folder)
        else:
            cache = options.caches / data
            run = ipc.fit(cache, head, features=features, folds=5, leakage_gap=True, run=folder)
        found = {name: run.metrics.get(name) for name in KEPT}
        rows.append({"data": data, "head": head, "features": features, **found})
        low, high = run.metrics["leakage_gap_ci95"] or (float("nan"),) * 2
        print(
            f"| {data} | {head} | {run.metrics['cosine']:.4f} | {run.metrics['leakage_gap']:+.4f} "
            f"| {low:+.4f} to {high:+.4f} | {run.metrics['effective_groups']:.1f} |",
            flush=True,
        )
    print(save("leakage_gap", rows))


if __name__ == "__main__":
    main()
