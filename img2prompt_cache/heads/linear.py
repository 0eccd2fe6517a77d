"""The linear head: an mlp without hidden layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.space import LogUniform, Space


class Linear(Mlp):
    """Linear regression by gradient descent: an `Mlp` without hidden layers.

    Its rate is small: with Adam each step moves all of the features' weights, and the output by their sum.
    """

    name = "linear"
    space: ClassVar[Space] = {
        **{setting: values for setting, values in Mlp.space.items() if setting != "hidden"},
        "lr": LogUniform(1e-6, 1e-3),
    }

    hidden: Sequence[int] = ()
    loss: str = "cosine"
    lr: float = 1e-5
    weight_decay: float = 0.1
    ema: float = 0.98
