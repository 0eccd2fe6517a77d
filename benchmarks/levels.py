"""What pooled inner levels add to ridge: `--levels multi` joined against the pooled feature alone.

    python benchmarks/levels.py DATA [DATA ...] --caches DIR

DATA is a folder with images and `prompts.csv`, extracted with `--levels multi` into DIR/NAME unless it is
there. For each backbone and for the backbones joined: cosine of ridge on five grouped folds without and with
levels, and the difference with an interval by bootstrap over groups. Prints a table and adds to
`results/levels.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from precision import FOLDS, extract, read
from system import load, save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.fitting.evaluate import evaluate_head
from img2prompt_cache.heads import make_head
from img2prompt_cache.numerics.bootstrap import interval
from img2prompt_cache.numerics.metrics import cosine

PRESET = ("packaged:efficientnet-lite0", "packaged:vit-small-saliency")


def compare(cache: Cache, specs: tuple[str, ...]) -> dict[str, Any]:
    """Ridge on the features of some backbones, and on the same with their levels."""
    plain = read(cache, *specs)
    multi = read(cache, *(name for spec in specs for name in (spec, f"{spec}#multi")))
    split = make_split(cache, plain, "group", 0.2, 0, FOLDS)
    held, head = split.validation, make_head("ridge")
    top, joined = (
        cosine(evaluate_head(head, data, split).predictions, data.y[held]) for data in (plain, multi)
    )
    return {
        "rows": len(plain.rows),
        "widths": [sum(plain.widths), sum(multi.widths)],
        "top": float(top.mean()),
        "multi": float(joined.mean()),
        "gain": float((joined - top).mean()),
        "gain_interval": interval(joined - top, split.groups[held]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--caches", type=Path, required=True, help="where caches are made, or found")
    options = parser.parse_args()
    figures: dict[str, Any] = load("levels") or {}
    print("| data | backbone | widths | top | with levels | gain | 95 % |\n|---|---|---|---|---|---|---|")
    for data in options.data:
        cache = extract(data, options.caches / data.name, "--levels", "multi", backbones=PRESET)
        for specs in (*((spec,) for spec in PRESET), PRESET):
            name = specs[0] if len(specs) == 1 else "joined"
            found = compare(cache, specs)
            figures.setdefault(data.name, {})[name] = found
            low, high = found["gain_interval"] or (np.nan, np.nan)
            print(
                f"| {data.name} | {name} | {found['widths'][0]}, {found['widths'][1]} | {found['top']:.4f} | "
                f"{found['multi']:.4f} | {found['gain']:+.4f} | {low:+.4f} … {high:+.4f} |",
                flush=True,
            )
            save("levels", figures)


if __name__ == "__main__":
    main()
