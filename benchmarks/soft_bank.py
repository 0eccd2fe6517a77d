"""What a soft bank brings to a kernel: the training prompts, a file of others, and how many of them count.

    python benchmarks/soft_bank.py DATA [DATA ...] --caches DIR --bank FILE [--most 20000]

DATA is a folder with images and `prompts.csv`, extracted with the packaged preset into DIR/NAME unless it is
there; FILE has a prompt a line, of which the first `--most` are taken, but for those near-identical to a
prompt of the set. A kernel predicts each row by grouped folds; its predictions are then drawn towards the
prompts of other folds, and of FILE. Temperature and weight are those that are best on the other four folds.
Differences are paired, with intervals by bootstrap over groups, widened as for other training rows. Prints a
table and adds to `results/soft_bank.json`.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from precision import FOLDS
from system import extracted, load, save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.fitting.additions import add_soft_bank
from img2prompt_cache.fitting.evaluate import evaluate_head
from img2prompt_cache.heads import make_head
from img2prompt_cache.numerics.bootstrap import paired_difference, split_widening
from img2prompt_cache.numerics.metrics import cosine, unit
from img2prompt_cache.numerics.soft_bank import NEAREST, TEMPERATURES, WEIGHTS, bank_means, distinct
from img2prompt_cache.progress import ignore

F32 = np.typing.NDArray[np.float32]


def softened(predictions: F32, y: F32, fold: Any, others: F32, nearest: int) -> Any:
    """Give the cosine of each row, with settings that are best on the other folds."""
    means = np.empty((len(TEMPERATURES), *predictions.shape), np.float32)
    for number in range(FOLDS):
        held = fold == number
        means[:, held] = bank_means(predictions[held], distinct(y[~held], others), TEMPERATURES, nearest)
    scores = np.stack(
        [
            cosine(predictions + np.float32(weight) * near, y)
            for near, weight in itertools.product(means, WEIGHTS)
        ]
    )
    best = [scores[:, fold != number].mean(axis=1).argmax() for number in range(FOLDS)]
    return scores[np.take(best, fold), np.arange(len(y))]


def measure(folder: Path, bank: Path) -> list[dict[str, Any]]:
    """Score a kernel without a soft bank and with several."""
    cache = Cache(folder)
    target = choose_target(cache, None)
    data = load_dataset(cache, choose_features(cache, ()), target)
    others = add_soft_bank(cache, data, bank, target, "cpu", ignore).bank
    split = make_split(cache, data, "group", 0.2, 0, FOLDS)
    predictions, y = evaluate_head(make_head("kernel"), data, split).predictions, unit(data.y)
    found, before = [], cosine(predictions, y)
    widening = split_widening(split.fold, len(y))
    for name, more in (("training prompts", others[:0]), ("and the file", others)):
        for nearest in (0, NEAREST):
            scores = softened(predictions, y, split.fold, more, nearest)
            gain, inside = paired_difference(scores, before, split.groups, widening=widening)
            row = {"bank": name, "prompts": len(more), "nearest": nearest, "cosine": float(scores.mean())}
            found.append({**row, "gain": gain, "ci95": inside})
    return [{"bank": "none", "cosine": float(before.mean())}, *found]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--caches", type=Path, required=True, help="where caches are made, or found")
    parser.add_argument("--bank", type=Path, required=True, help="prompts, one a line")
    parser.add_argument("--most", type=int, default=20_000)
    options = parser.parse_args()
    figures: dict[str, Any] = load("soft_bank") or {}
    with options.bank.open(encoding="utf-8") as file, tempfile.TemporaryDirectory() as folder:
        bank = Path(folder) / "bank.txt"
        bank.write_text("".join(itertools.islice(file, options.most)), encoding="utf-8")
        print("| data | bank | nearest | cosine | gain | 95 % |\n|---|---|---|---|---|---|")
        for data in options.data:
            figures[data.name] = measure(extracted(data, options.caches), bank)
            for row in figures[data.name]:
                low, high = row.get("ci95") or (np.nan, np.nan)
                print(
                    f"| {data.name} | {row['bank']} | {row.get('nearest') or 'all'} | {row['cosine']:.4f} "
                    f"| {row.get('gain', np.nan):+.4f} | {low:+.4f} to {high:+.4f} |",
                    flush=True,
                )
            save("soft_bank", figures)


if __name__ == "__main__":
    main()
