"""The settings that training reads of a head, and checks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads.checks import positive, require, require_one_of
from img2prompt_cache.heads.neural.schedules import SCHEDULES
from img2prompt_cache.models.devices import PRECISIONS, choose_device

if TYPE_CHECKING:
    from torch import nn

OPTIMIZERS = ("adam", "adamw", "sgd")
NORMS = ("none", "batch")
TRAINING_PRECISIONS = tuple(name for name in PRECISIONS if name != "fp16")
"""Precisions to train in. Gradients of float16 would vanish unless the loss was scaled."""
LEAST = {
    **dict.fromkeys(("lr", "weight_decay", "expand", "warmup", "ema", "clip"), 0),
    **dict.fromkeys(("batch_size", "max_epochs", "patience", "rows"), 1),
}
"""The smallest value of each number among the settings of a network on features."""
MAX_LAYERS, MAX_WIDTH = 16, 1 << 16


class TrainingSettings(Protocol):
    """What every training reads. The heads, which training does not import, document each setting."""

    name: ClassVar[str]
    lr: float
    batch_size: int
    warmup: float
    ema: float
    clip: float
    epochs: int | None
    max_epochs: int
    patience: int
    precision: str
    seed: int
    device: str


class NetworkSettings(TrainingSettings, Protocol):
    """What the training of a network on features reads, beside that: an `Mlp` that is settled satisfies it.

    `few` and `many` are what absent settings are for few rows and for many; see `by_rows.settle`.
    """

    few: ClassVar[Mapping[str, Any]]
    many: ClassVar[Mapping[str, Any]]
    rows: int | None
    optimizer: str
    loss: str
    norm: str
    dropout: float | None
    weight_decay: float
    schedule: str
    drops: Sequence[int] | None
    mix: float | None
    alpha: float | Sequence[float] | None
    views: bool

    def make_network(self, p: int, t: int, dropout: float) -> nn.Module:
        """Make an untrained network of p features and t outputs."""


class FinetuneSettings(TrainingSettings, Protocol):
    """What the fine-tuning of a backbone's last blocks reads, beside that: a `Finetune` satisfies it."""

    blocks: int | None
    dropout: float
    layer_decay: float
    pull: float
    mixup: float
    mix: float | None
    alpha: float | None
    folds: int
    views: bool


def check_network_settings(head: NetworkSettings) -> None:
    """Check the settings of a network on features.

    Raises
    ------
    UsageError
        Naming the setting that is unknown or out of range.
    """
    from img2prompt_cache.heads.neural.losses import parse

    require_one_of(head, "optimizer", OPTIMIZERS)
    require_one_of(head, "norm", NORMS)
    if head.schedule is not None:
        require_one_of(head, "schedule", SCHEDULES)
    require_one_of(head, "precision", TRAINING_PRECISIONS)
    choose_device(head.device)
    if head.loss is not None:
        parse(head.loss)
    for setting, low in LEAST.items():
        value = getattr(head, setting)
        require(head, setting, value is None or value >= low, f"at least {low}")
    require(head, "ema", head.ema < 1, "below 1")
    require(head, "dropout", head.dropout is None or head.dropout >= 0, "at least 0")
    require(head, "dropout", head.dropout is None or head.dropout < 1, "below 1")
    require(head, "epochs", head.epochs is None or head.epochs >= 0, "at least 0")
    require(head, "mix", head.mix is None or 0 <= head.mix <= 1, "from 0 to 1")
    positive(head, "alpha")
    if head.epochs is not None and head.schedule == "plateau" and head.drops is None:
        raise UsageError(
            f"{head.name} finds a plateau on the rows it chooses its epochs on; give `drops` with `epochs`",
            parameter="drops",
        )
    # So that no batch is a single row.
    fits = head.norm != "batch" or head.batch_size is None or head.batch_size >= 4
    require(head, "batch_size", fits, 'at least 4 with `norm="batch"`')


def check_finetune_settings(head: FinetuneSettings) -> None:
    """Check the settings of fine-tuning.

    Raises
    ------
    UsageError
        Naming the setting that is unknown or out of range.
    """
    require_one_of(head, "precision", TRAINING_PRECISIONS)
    choose_device(head.device)
    require(head, "lr", 0 <= head.lr <= 1, "from 0 to 1, relative to a tensor's size")
    for setting in ("pull", "mixup"):
        require(head, setting, getattr(head, setting) >= 0, "at least 0")
    for setting in ("batch_size", "max_epochs", "patience"):
        require(head, setting, getattr(head, setting) >= 1, "at least 1")
    for setting in ("ema", "dropout", "warmup"):
        require(head, setting, 0 <= getattr(head, setting) < 1, "at least 0 and below 1")
    require(head, "layer_decay", 0 < head.layer_decay <= 1, "above 0 and at most 1")
    require(head, "clip", head.clip > 0, "above 0")
    require(head, "blocks", head.blocks is None or head.blocks >= 1, "at least 1")
    require(head, "epochs", head.epochs is None or head.epochs >= 0, "at least 0")
    require(head, "mix", head.mix is None or 0 <= head.mix <= 1, "from 0 to 1")
    require(head, "alpha", head.alpha is None or 0 < head.alpha < np.inf, "finite and above 0")


def require_layers(head: NetworkSettings, widths: Sequence[object]) -> None:
    """Check the number of hidden layers and their widths.

    Raises
    ------
    UsageError
        If there are too many, or one is too wide or no number.
    """
    fits = all(isinstance(width, int | np.integer) and 1 <= int(width) <= MAX_WIDTH for width in widths)
    if len(widths) > MAX_LAYERS or not fits:
        raise UsageError(
            f"{head.name} needs at most {MAX_LAYERS} hidden layers of width 1…{MAX_WIDTH}, "
            f"not {str(widths)[:100]}",
            parameter="hidden",
        )
