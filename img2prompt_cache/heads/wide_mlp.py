"""The wide-mlp head: one hidden layer many times as wide as the features, with batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from img2prompt_cache.heads.linear import Linear
from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.space import Choices, Space


class WideMlp(Mlp):
    """An `Mlp`, p → 16·p → batch normalisation → ReLU → t: the head that won the Kaggle competition."""

    name = "wide-mlp"
    costly: ClassVar[bool] = True
    space: ClassVar[Space] = {**Linear.space, "expand": Choices((1, 2, 4, 16))}

    hidden: Sequence[int] = ()
    expand: int = 16
    norm: str = "batch"
    loss: str = "cosine"
    lr: float = 1e-4
    weight_decay: float = 0.1
    ema: float = 0.98
    max_epochs: int = 40
    patience: int = 8
