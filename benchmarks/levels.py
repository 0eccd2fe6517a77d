"""What levels, class names and a second view add to the kernel head on pooled features.

    python benchmarks/levels.py DATA [DATA ...] --caches DIR

DATA is a folder with images and `prompts.csv`, extracted with the packaged preset into DIR/NAME unless it is
there. Cosine of the kernel head on five grouped folds, with the pooled features of the three backbones, then
with levels, with class names, with the second view; and each time the difference from the step before, with
an interval by bootstrap over groups. Prints a table and adds to `results/levels.json`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from precision import FOLDS, read
from system import extracted, load, save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.fitting.evaluate import evaluate_head
from img2prompt_cache.heads import make_head
from img2prompt_cache.models.backbones.taps import MULTI, NAMES, TOP, split_spec
from img2prompt_cache.numerics.bootstrap import interval
from img2prompt_cache.numerics.metrics import cosine

STEPS = {
    "pooled features": ((TOP,), False),
    "with levels": ((TOP, MULTI), False),
    "with class names": ((TOP, MULTI, NAMES), False),
    "with the second view": ((TOP, MULTI, NAMES), True),
}
"""What is taken: which outputs, and whether of the second view, too."""


def columns(cache: Cache, outputs: tuple[str, ...], *, second: bool) -> list[str]:
    """Name the columns of a step."""
    taps = {column.spec: split_spec(column.spec)[1] for column in cache.manifest.of_kind("features")}
    return [spec for spec, tap in taps.items() if tap.name in outputs and (second or not tap.squash)]


def measure(cache: Cache) -> dict[str, Any]:
    """Score the head after each step."""
    found: dict[str, Any] = {}
    before = None
    for step, (outputs, second) in STEPS.items():
        data = read(cache, *columns(cache, outputs, second=second))
        split = make_split(cache, data, "group", 0.2, 0, FOLDS)
        held, started = split.validation, time.process_time()
        scores = cosine(evaluate_head(make_head("kernel"), data, split).predictions, data.y[held])
        found[step] = {
            "rows": len(data.rows),
            "blocks": len(data.widths),
            "features": sum(data.widths),
            "cosine": float(scores.mean()),
            "processor_s": time.process_time() - started,
        }
        if before is not None:
            found[step]["gain"] = float((scores - before).mean())
            found[step]["gain_interval"] = interval(scores - before, split.groups[held])
        before = scores
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--caches", type=Path, required=True, help="where caches are made, or found")
    options = parser.parse_args()
    figures: dict[str, Any] = load("levels") or {}
    print("| data | kernel on | blocks | features | cosine | gain | 95 % |\n|---|---|---|---|---|---|---|")
    for data in options.data:
        figures[data.name] = measure(Cache(extracted(data, options.caches)))
        for step, each in figures[data.name].items():
            low, high = each.get("gain_interval") or (np.nan, np.nan)
            print(
                f"| {data.name} | {step} | {each['blocks']} | {each['features']:,} | {each['cosine']:.4f} | "
                f"{each.get('gain', np.nan):+.4f} | {low:+.4f} to {high:+.4f} |",
                flush=True,
            )
        save("levels", figures)


if __name__ == "__main__":
    main()
