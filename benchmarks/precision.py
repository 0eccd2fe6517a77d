"""What bfloat16 costs: features against those in float32, and the ridge head fitted on either.

    python benchmarks/precision.py DATA [DATA ...] --caches DIR

DATA is a folder with images and `prompts.csv`. Each is extracted twice, into DIR/fp32/NAME and DIR/bf16/NAME,
unless it is there. For each packaged backbone: the cosine between the two features of an image; the cosine
of ridge on five grouped folds, and how it changes, with an interval by bootstrap over groups. Each fit
chooses its penalty; beside it the change with the penalties that were chosen on float32. Then what
`--precision auto` makes of each backbone: the cosine on its drawn pictures, in bfloat16 and, for comparison,
float16. Prints tables and adds to `results/precision.json`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from system import load, save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.fitting.evaluate import evaluate_head
from img2prompt_cache.heads import make_head
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.fidelity import falls_short, fidelity
from img2prompt_cache.numerics.bootstrap import interval
from img2prompt_cache.numerics.metrics import cosine

BACKBONES = ("packaged:efficientnet-lite0", "packaged:efficientnet-lite2", "packaged:vit-small-saliency")
ENCODER = "packaged:all-MiniLM-L6-v2"
FOLDS = 5


def extract(data: Path, folder: Path, *options: str, backbones: tuple[str, ...] = BACKBONES) -> Cache:
    """Bring a cache up to date as a user would."""
    columns = [word for spec in backbones for word in ("--backbone", spec)]
    command = [sys.executable, "-m", "img2prompt_cache.cli", "extract", str(data), "--cache", str(folder)]
    subprocess.run([*command, *columns, "--encoder", ENCODER, *options], stdout=sys.stderr, check=True)
    return Cache(folder)


def read(cache: Cache, *specs: str) -> Dataset:
    """Read features with their targets."""
    return load_dataset(cache, choose_features(cache, specs), choose_target(cache, ENCODER))


def compare(exact: Cache, short: Cache, spec: str) -> dict[str, Any]:
    """Compare one backbone's features in two caches of the same images, and ridge on them."""
    one, other = read(exact, spec), read(short, spec)
    if one.images != other.images:
        raise SystemExit(f"{exact.folder} and {short.folder} hold other images")
    between = cosine(one.X, other.X)
    middle = one.X.mean(0)
    split = make_split(exact, one, "group", 0.2, 0, FOLDS)
    held, head = split.validation, make_head("ridge")
    before = evaluate_head(head, one, split)
    chosen = [{"alpha": each["alpha"]} for each in before.chosen]
    known = cosine(before.predictions, one.y[held])
    change = cosine(evaluate_head(head, other, split).predictions, one.y[held]) - known
    fixed = cosine(evaluate_head(head, other, split, chosen).predictions, one.y[held]) - known
    return {
        "rows": len(one.rows),
        "mean": float(between.mean()),
        "least": float(between.min()),
        "mean_centred": float(cosine(one.X - middle, other.X - middle).mean()),
        "ridge": float(known.mean()),
        "ridge_change": float(change.mean()),
        "ridge_change_interval": interval(change, split.groups[held]),
        "ridge_change_same_penalties": float(fixed.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--caches", type=Path, required=True, help="where caches are made, or found")
    parser.add_argument("--backbones", nargs="*", default=BACKBONES)
    options = parser.parse_args()
    print("| data | backbone | cosine, mean | least | ridge fp32 | change in bf16 | 95 % | same penalties |")
    print("|---|---|---|---|---|---|---|---|")
    figures: dict[str, Any] = load("precision") or {"folds": FOLDS, "real": {}, "drawn": {}}
    for data in options.data:
        exact, short = (
            extract(data, options.caches / name / data.name, "--precision", name, backbones=options.backbones)
            for name in ("fp32", "bf16")
        )
        for spec in options.backbones:
            found = compare(exact, short, spec)
            figures["real"].setdefault(data.name, {})[spec] = found
            low, high = found["ridge_change_interval"] or (np.nan, np.nan)
            print(
                f"| {data.name} | {spec} | {found['mean']:.5f} | {found['least']:.4f} | "
                f"{found['ridge']:.4f} | {found['ridge_change']:+.5f} | {low:+.5f} … {high:+.5f} | "
                f"{found['ridge_change_same_penalties']:+.5f} |",
                flush=True,
            )
    print("\n| backbone | drawn, bf16 | drawn, fp16 | auto |\n|---|---|---|---|")
    for spec in options.backbones:
        backbone = load_backbone(spec)
        bf16, fp16 = fidelity(backbone, "bf16"), fidelity(backbone, "fp16")
        auto = "fp32" if falls_short(bf16) else "bf16"
        figures["drawn"][spec] = {"bf16": bf16.tolist(), "fp16": fp16.tolist(), "auto": auto}
        print(f"| {spec} | {bf16.mean():.5f} | {fp16.mean():.6f} | {auto} |", flush=True)
    print(save("precision", figures))


if __name__ == "__main__":
    main()
