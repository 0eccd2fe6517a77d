"""What several prompts of an image bring: heads fitted on the mean of all prompts, and on the first alone.

    python benchmarks/several_prompts.py CACHE [--heads ridge,kernel] [--features SPEC,SPEC] [--seed 0]

CACHE was extracted from images with several prompts each, such as the captions of COCO or Flickr8k. Both fits
of a head are scored on the same five grouped folds: on the first prompt of each image, and on the mean of all
of its prompts. Differences are paired, with intervals by bootstrap over groups, wider by the factor of
`split_widening`. Prints a table and adds to `results/several_prompts.json`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from system import load, save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.splits import Split
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.fitting.evaluate import evaluate_head
from img2prompt_cache.heads import make_head
from img2prompt_cache.numerics.bootstrap import interval, paired_difference, split_widening
from img2prompt_cache.numerics.metrics import cosine

FOLDS = 5


def measure(data: Dataset, split: Split, head: str) -> dict[str, Any]:
    """Score a head that was fitted on the first prompts, and one that was fitted on the means."""
    rows, groups = split.validation, split.groups[split.validation]
    widening = split_widening(split.fold[rows], len(split.fold))
    assert data.means is not None
    truth = {"first prompt": data.y[rows], "mean prompt": data.means[rows]}
    found: dict[str, Any] = {}
    scores: dict[tuple[str, str], Any] = {}
    for train_on in ("first", "mean"):
        started = time.process_time()
        fitted = evaluate_head(make_head(head), replace(data, train_on=train_on), split)
        found[f"processor_s, fitted on {train_on}"] = time.process_time() - started
        for name, targets in truth.items():
            scores[train_on, name] = cosine(fitted.predictions, targets)
    for name in truth:
        one, other = scores["mean", name], scores["first", name]
        gain, inside = paired_difference(one, other, groups, widening=widening)
        found[name] = {
            "fitted on first": float(other.mean()),
            "fitted on mean": float(one.mean()),
            "interval": interval(one, groups),
            "gain": gain,
            "gain_interval": inside,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("--heads", default="ridge,kernel")
    parser.add_argument("--features", default="", help="specs with commas between; all columns if empty")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cache = Cache(options.cache)
    columns = choose_features(cache, tuple(filter(None, options.features.split(","))))
    data = load_dataset(cache, columns, choose_target(cache, None))
    if data.further is None:
        raise SystemExit(f"no image of {options.cache} has several prompts")
    split = make_split(cache, data, "group", 0.2, options.seed, FOLDS)
    counts = 1 + np.bincount(data.further.row, minlength=len(data.rows))
    figures: dict[str, Any] = load("several_prompts") or {}
    figures["rows"] = {
        "rows": len(data.rows),
        "prompts": int(counts.sum()),
        "groups": len(np.unique(split.groups)),
        "largest_group": split.largest_group,
        "mean_length": float(np.linalg.norm(data.means, axis=1).mean()),
    }
    print(f"{options.cache.name}: {figures['rows']}")
    print("| head | features | scored on | fitted on first | fitted on mean | gain | 95 % |")
    print("|---|---|---|---|---|---|---|")
    for head in options.heads.split(","):
        told = measure(data, split, head)
        figures[f"{head}, {sum(data.widths)} features, seed {options.seed}"] = {
            "features": [column.spec for column in columns],
            **told,
        }
        for name in ("first prompt", "mean prompt"):
            each = told[name]
            low, high = each["gain_interval"]
            print(
                f"| {head} | {sum(data.widths):,} | {name} | {each['fitted on first']:.4f} | "
                f"{each['fitted on mean']:.4f} | {each['gain']:+.4f} | {low:+.4f} to {high:+.4f} |",
                flush=True,
            )
        save("several_prompts", figures)


if __name__ == "__main__":
    main()
