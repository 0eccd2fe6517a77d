"""Small problems for heads, and settings with which heads are quick to fit on them."""

from __future__ import annotations

import numpy as np

from img2prompt_cache.heads import HEADS, make_head
from img2prompt_cache.numerics.metrics import unit

ON_FEATURES = [name for name in HEADS if make_head(name).takes == "features" and not make_head(name).texts]
"""Heads that are fitted on features and nothing else."""

FEW = {"max_epochs": 5, "batch_size": 32, "lr": 1e-2}
MLP = {"hidden": [16], "ema": 0.5, **FEW}
MEMBERS = (
    {"head": "ridge", "columns": [[0, 12]]},
    {"head": "knn", "settings": {"k": 5}, "columns": [[12, 20], [0, 12]]},
    {"head": "nearest"},
)
QUICK = {
    "mlp": MLP,
    "linear": {**FEW, "ema": 0.0},
    "wide-mlp": {"expand": 2, "ema": 0.5, **FEW},
    "seed-resnet50": {"epochs": 5, "lr": 1e-2},
    "seed-vit": {"epochs": 5, "lr": 1e-2},
    "seed-tuned-resnet": {"trials": 2, "hidden": (16,), "epochs": 5, "lr": 1e-2, "optimizer": "adam"},
    "distil": {"student": MLP},
    "blend": {"members": MEMBERS},
    "best": {"members": ({"head": "ridge"}, {"head": "knn", "settings": {"k": 5}})},
}
BLOCKS = (12, 8)


def problem(n=120, seed=0):
    """Features in two blocks of unlike scale; targets that depend on them; groups of three rows."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, sum(BLOCKS))) * np.repeat([1.0, 50.0], BLOCKS) + 3
    y = unit(np.tanh(X[:, :12] - 3) @ np.random.default_rng(9).normal(size=(12, 6)) + 0.5)
    return X.astype(np.float32), y, np.arange(n) // 3


def quick(name):
    """A head of that name, unfitted, with settings that are quick to fit."""
    return make_head(name, **QUICK.get(name, {}))
