"""The wide-mlp head: one hidden layer many times as wide as the features, with batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.settings import setting
from img2prompt_cache.heads.space import Choices, LogUniform


class WideMlp(Mlp):
    """An `Mlp`, p → 16·p → batch normalisation → ReLU → t: the head that won the Kaggle competition."""

    name = "wide-mlp"
    costly: ClassVar[bool] = True

    hidden: Sequence[int] = setting(default=(), search=None)
    expand: int = setting(default=16, search=Choices((1, 2, 4, 16)))
    norm: str = "batch"
    loss: str = "cosine"
    lr: float = setting(default=1e-4, search=LogUniform(1e-6, 1e-3))
    weight_decay: float = 0.1
    ema: float = 0.98
    max_epochs: int = 40
    patience: int = 8
