"""What learned gains add to the nearest and knn heads, and whether they should take every block.

    python benchmarks/neighbour_gains.py CACHE [CACHE ...] [--blocks]

Caches of the packaged preset. Cosine on five grouped folds of both heads on the pooled features of each
backbone alone, then of all backbones with equal gains and with learned ones; with `--blocks` the same on
every stored block. Prints a table, with the difference from the best backbone alone and from the line before
with equal gains, each with an interval by bootstrap over groups, and adds to `results/neighbour_gains.json`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from levels import STEPS, columns
from precision import FOLDS, read
from system import load, save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.fitting.evaluate import evaluate_head
from img2prompt_cache.heads import make_head
from img2prompt_cache.numerics.bootstrap import interval
from img2prompt_cache.numerics.metrics import cosine

ENDS = ("pooled features", "with the second view")
"""The first and the last of `levels.STEPS`."""


def measure(cache: Cache, name: str, *, blocks: bool) -> dict[str, Any]:
    """Score a head on each backbone alone, on all with equal gains, and with learned ones."""
    pooled, every = (columns(cache, *STEPS[step][:1], second=STEPS[step][1]) for step in ENDS)
    found: dict[str, Any] = {}
    scores: dict[str, Any] = {}

    def note(line: str, specs: list[str], against: dict[str, str], **settings: Any) -> None:
        data = read(cache, *specs)
        split = make_split(cache, data, "group", 0.2, 0, FOLDS)
        held, started = split.validation, time.process_time()
        scores[line] = cosine(
            evaluate_head(make_head(name, **settings), data, split).predictions, data.y[held]
        )
        found[line] = {"cosine": float(scores[line].mean()), "processor_s": time.process_time() - started}
        for what, other in against.items():
            gain = scores[line] - scores[other]
            low, high = interval(gain, split.groups[held]) or (float("nan"), float("nan"))
            found[line][what] = {"line": other, "gain": float(gain.mean()), "interval": [low, high]}
        told = [
            f"{each['gain']:+.4f} ({each['interval'][0]:+.4f} to {each['interval'][1]:+.4f})"
            for each in (found[line].get("alone"), found[line].get("equal"))
            if each
        ]
        print(
            f"| {cache.folder.name} | {name} | {line} | {found[line]['cosine']:.4f} "
            f"| {' | '.join([*told, '–', '–'][:2])} | {found[line]['processor_s']:.0f} |",
            flush=True,
        )

    for spec in pooled:
        note(spec.removeprefix("packaged:"), [spec], {})
    best = max(scores, key=lambda line: scores[line].mean())
    for what, specs in {"pooled": pooled, **({"blocks": every} if blocks else {})}.items():
        note(f"{what}, equal gains", specs, {"alone": best}, gain=1.0)
        note(f"{what}, learned gains", specs, {"alone": best, "equal": f"{what}, equal gains"})
    if blocks:
        gain = scores["blocks, learned gains"] - scores["pooled, learned gains"]
        data = read(cache, *pooled)
        split = make_split(cache, data, "group", 0.2, 0, FOLDS)
        low, high = interval(gain, split.groups[split.validation]) or (float("nan"), float("nan"))
        found["blocks over pooled"] = {"gain": float(gain.mean()), "interval": [low, high]}
        print(f"  blocks over pooled, learned gains: {gain.mean():+.4f} ({low:+.4f} to {high:+.4f})")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("caches", type=Path, nargs="+", metavar="CACHE")
    parser.add_argument("--blocks", action="store_true", help="also on every stored block")
    options = parser.parse_args()
    figures: dict[str, Any] = load("neighbour_gains") or {}
    print("| data | head | on | cosine | over the best backbone alone | over equal gains | s |")
    print("|---|---|---|---|---|---|---|")
    for folder in options.caches:
        cache = Cache(folder)
        figures[folder.name] = {
            head: measure(cache, head, blocks=options.blocks) for head in ("nearest", "knn")
        }
        save("neighbour_gains", figures)


if __name__ == "__main__":
    main()
