"""What zero-shot prediction is worth: images of some caches, without using one of their pairs.

    python benchmarks/zero_shot.py CACHE [CACHE ...]

Scores, by mean cosine with the true targets: the mean of the starter bank alone, the same for every image;
the zero-shot prediction; and the mean target of the images themselves, which takes the pairs and is what the
head `mean` would be at best. Then the same with prompts of the same kind in place of the starter bank: the
images of one half of the groups are predicted with the prompts of the other half as the bank. Intervals are
by bootstrap over groups of near-identical prompts, differences are paired. Adds to `results/zero_shot.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
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


def measure_halves(folder: Path) -> dict[str, Any]:
    """Score each half of the groups with the prompts of the other half as the bank."""
    cache = Cache(folder)
    first = make_zero_shot(cache, device="cpu")
    columns = tuple(used_column(cache, each, "Extract it again.") for each in first.features)
    data = load_dataset(cache, columns, used_column(cache, first.target, "Extract it again.", "targets"))
    X, y = np.asarray(data.X), unit(np.asarray(data.y))
    groups = prompt_groups(y, data.prompts, data.images)
    half = np.random.default_rng(0).permutation(groups.max() + 1)[groups] % 2
    scores = {name: np.zeros(len(y)) for name in ("mean of the bank", "zero-shot")}
    for side in (0, 1):
        with tempfile.TemporaryDirectory() as temporary:
            bank = Path(temporary) / "bank.jsonl"
            prompts = (data.prompts[row] for row in np.flatnonzero(half != side))
            bank.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
            model = make_zero_shot(cache, bank=bank, device="cpu")
        mine = half == side
        scores["mean of the bank"][mine] = y[mine] @ unit(model.estimator.prior_[None])[0]
        scores["zero-shot"][mine] = cosine(model.estimator.predict(X[mine]), y[mine])
    gain = scores["zero-shot"] - scores["mean of the bank"]
    return {
        "cosine": {name: _with_interval(values, groups) for name, values in scores.items()},
        "zero-shot minus": {"mean of the bank": _with_interval(gain, groups)},
    }


def _with_interval(values: Any, groups: Any) -> dict[str, Any]:
    return {"mean": float(values.mean()), "ci95": interval(values, groups)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("caches", type=Path, nargs="+", metavar="CACHE")
    figures = load("zero_shot") or {}
    for folder in parser.parse_args().caches:
        figures[folder.name] = {**measure(folder), "prompts of the other half": measure_halves(folder)}
        for found in (figures[folder.name], figures[folder.name]["prompts of the other half"]):
            for kind in ("cosine", "zero-shot minus"):
                for name, one in found[kind].items():
                    low, high = one["ci95"]
                    print(f"{folder.name} {kind} {name}: {one['mean']:.4f} ({low:.4f} to {high:.4f})")
    print(save("zero_shot", figures))


if __name__ == "__main__":
    main()
