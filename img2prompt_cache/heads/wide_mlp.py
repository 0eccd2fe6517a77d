"""The wide-mlp head: one hidden layer many times as wide as the features, with batch normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.settings import setting
from img2prompt_cache.heads.space import Choices, LogUniform


class WideMlp(Mlp):
    """An `Mlp`, p → 16·p → batch normalisation → ReLU → t: the head that won the Kaggle competition.

    From 10,000 rows on its batches are 4 times as large and its rate twice as high; see `Linear` and `Mlp`.
    """

    name = "wide-mlp"
    costly: ClassVar[bool] = True

    few: ClassVar[Mapping[str, Any]] = {
        **Mlp.few,
        "loss": "cosine",
        "lr": 1e-4,
        "weight_decay": 0.1,
        "max_epochs": 40,
        "patience": 8,
    }
    many: ClassVar[Mapping[str, Any]] = {"batch_size": 512, "lr": 2e-4, "schedule": "cosine"}

    hidden: Sequence[int] | None = setting(default=(), search=None)
    expand: int = setting(default=16, search=Choices((1, 2, 4, 16)))
    norm: str = "batch"
    lr: float | None = setting(default=None, search=LogUniform(1e-6, 1e-3))
    ema: float = 0.98
