"""The linear head: an mlp without hidden layers."""

from __future__ import annotations

from collections.abc import Sequence

from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.settings import setting
from img2prompt_cache.heads.space import LogUniform


class Linear(Mlp):
    """Linear regression by gradient descent: an `Mlp` without hidden layers.

    Its rate is small: with Adam each step moves all of the features' weights, and the output by their sum.
    """

    name = "linear"

    hidden: Sequence[int] = setting(default=(), search=None)
    loss: str = "cosine"
    lr: float = setting(default=1e-5, search=LogUniform(1e-6, 1e-3))
    weight_decay: float = 0.1
    ema: float = 0.98
