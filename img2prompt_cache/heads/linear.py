"""The linear head: an mlp without hidden layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.settings import setting
from img2prompt_cache.heads.space import LogUniform


class Linear(Mlp):
    """Linear regression by gradient descent: an `Mlp` without hidden layers.

    Its rate is small: with Adam each step moves all of the features' weights, and the output by their sum.
    From 10,000 rows on batches are 4 times as large and the rate is twice as high: the noise of Adam's steps
    stays the same where the rate grows with the root of the batch (Malladi et al., 2022, NeurIPS).
    """

    name = "linear"

    few: ClassVar[Mapping[str, Any]] = {
        **Mlp.few,
        "loss": "cosine",
        "lr": 1e-5,
        "weight_decay": 0.1,
    }
    many: ClassVar[Mapping[str, Any]] = {"batch_size": 512, "lr": 2e-5, "schedule": "cosine"}

    hidden: Sequence[int] | None = setting(default=(), search=None)
    lr: float | None = setting(default=None, search=LogUniform(1e-6, 1e-3))
    ema: float = 0.98
