"""What zero-shot prediction is worth: images of some caches, without using one of their pairs.

    python benchmarks/zero_shot.py CACHE [CACHE ...]

Scores, by mean cosine with the true targets: the mean of the starter bank alone, the same for every image;
the zero-shot prediction; and the mean target of the images themselves, which takes the pairs and is what the
head `mean` would be at best. Intervals are by bootstrap over groups of near-identical prompts, differences
are paired. Adds to `results/zero_shot.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from system import load, save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import used_column
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.groups import prompt_groups
from img2prompt_cache.numerics.bootstrap import effective_groups, interval
from img2prompt_cache.numerics.metrics import cosine, unit
from img2prompt_cache.prediction.zero_shot import make_zero_shot


def measure(folder: Path, bank: str | None = None) -> dict[str, Any]:
    """Score the images of a cache."""
    cache = Cache(folder)
    model = make_zero_shot(cache, bank=bank, device="cpu")
    columns = tuple(used_column(cache, each, "Extract it again.") for each in model.features)
    target = used_column(cache, model.target, "Extract it again.", "targets")
    data = load_dataset(cache, columns, target)
    y = unit(np.asarray(data.y))
    groups = prompt_groups(y, data.prompts, data.images)
    constants = {"mean of the bank": model.estimator.prior_, "mean of the targets": y.mean(axis=0)}
    scores = {name: cosine(np.tile(vector, (len(y), 1)), y) for name, vector in constants.items()}
    scores["zero-shot"] = cosine(model.estimator.predict(np.asarray(data.X)), y)
    return {
        "rows": len(y),
        "groups": len(np.unique(groups)),
        "effective_groups": effective_groups(groups),
        "backbones": [each.spec for each in model.features],
        "strength": [each.strength for each in model.estimator.labels_],
        "bank": len(model.own_bank),
        "cosine": {name: _with_interval(values, groups) for name, values in scores.items()},
        "zero-shot minus": {
            name: _with_interval(scores["zero-shot"] - scores[name], groups) for name in constants
        },
    }


def _with_interval(values: Any, groups: Any) -> dict[str, Any]:
    return {"mean": float(values.mean()), "ci95": interval(values, groups)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("caches", type=Path, nargs="+", metavar="CACHE")
    figures = load("zero_shot") or {}
    for folder in parser.parse_args().caches:
        figures[folder.name] = found = measure(folder)
        for kind in ("cosine", "zero-shot minus"):
            for name, one in found[kind].items():
                low, high = one["ci95"]
                print(f"{folder.name} {kind} {name}: {one['mean']:.4f} ({low:.4f} to {high:.4f})")
    print(save("zero_shot", figures))


if __name__ == "__main__":
    main()
