"""Tails: the last blocks of a backbone, which can be fine-tuned on the values of a trunk column.

Values at the cut are laid out with their channels last: (n, tokens, width) for a ViT, (n, height, width,
channels) for a map.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones.architectures import chain_of
from img2prompt_cache.models.backbones.build import shape_of
from img2prompt_cache.models.backbones.chain import channels_first, channels_last
from img2prompt_cache.models.backbones.taps import Described, blocks_of, split_spec
from img2prompt_cache.models.recorded import load_recorded_backbone


class Tail(nn.Module):
    """The last blocks and the head: values at the cut in, features (n, dim) out."""

    def __init__(self, blocks: Iterable[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), head

    def forward(self, values: Tensor) -> Tensor:
        """Compute the features of values at the cut."""
        x = channels_first(values)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.head(x)
        return features


class Middle(nn.Module):
    """Blocks between two cuts: values at the first in, values at the second out."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, values: Tensor) -> Tensor:
        """Compute the values at the second cut."""
        x = channels_first(values)
        for block in self.blocks:
            x = block(x)
        return channels_last(x)


@dataclass(frozen=True, slots=True)
class TrainableTail:
    """What follows a trunk column, in float32 on the CPU.

    Attributes
    ----------
    middle : Middle
        Blocks that stay as they are; none where the column is cut right before those to be trained.
    tail : Tail
        The blocks to be trained, and the model's head; a copy, to be changed at will.
    shape : tuple of int
        Of one row of the column.
    width : int
        Of the pooled feature.
    """

    middle: Middle
    tail: Tail
    shape: tuple[int, ...]
    width: int

    def fresh(self) -> Tail:
        """Give a copy of the tail whose parameters can be trained."""
        return copy.deepcopy(self.tail).requires_grad_(requires_grad=True)

    def depths(self) -> dict[str, int]:
        """Say how deep each parameter of the tail lies: 1 in the last block and the head, 2 before."""
        count = len(self.tail.blocks)
        return {
            name: count - int(name.split(".")[1]) if name.startswith("blocks.") else 1
            for name, _ in self.tail.named_parameters()
        }


def tail_of(model: nn.Module, k: int) -> Tail:
    """Cut a model before its last k blocks and give what comes after the cut.

    Parameters
    ----------
    model : torch.nn.Module
        Of timm or open_clip, maps normalised images (n, 3, height, width) to features (n, dim).
    k : int
        Transformer blocks or residual blocks of the tail.

    Returns
    -------
    Tail
        It shares its parameters with `model`; on what `Chain.read` gives as ``f"k{k}"`` it computes what
        `model` does.

    Raises
    ------
    UsageError
        If the model cannot be cut, or has fewer blocks.
    """
    chain = chain_of(model)
    return Tail(chain.blocks[chain.cut(k) :], chain.head)


def load_tail(column: Described, blocks: int | None = None) -> TrainableTail:
    """Load the last blocks of the backbone of a trunk column, with their pre-trained weights.

    Parameters
    ----------
    column : Described
    blocks : int, optional
        How many of the last blocks are to be trained; all that follow the cut if absent.

    Raises
    ------
    UsageError
        If the column is no trunk, or has fewer blocks behind it; or the backbone is not there.
    Img2PromptError
        If the backbone is not the one the column was made with; the message names what differs.
    """
    tap = split_spec(column.spec)[1]
    cut = blocks_of(tap.name)
    if not cut or tap.views:
        raise UsageError(
            f"{column.spec} is no trunk column; `extract()` with `trunk` makes one", parameter="features"
        )
    blocks = blocks or cut
    if blocks > cut:
        raise UsageError(f"{column.spec} was cut before the last {cut} blocks, so {blocks} cannot be trained")
    with torch.random.fork_rng(devices=()):  # a library fills a model at random before it loads the weights
        backbone = load_recorded_backbone(column, device="cpu", precision="fp32")
    if column.shape != shape_of(backbone, tap):
        raise Img2PromptError(f"{column.spec} holds values of shape {column.shape}, which it never gives")
    tail = tail_of(backbone.model, cut)
    middle, last = Middle(tail.blocks[: cut - blocks]), Tail(tail.blocks[cut - blocks :], tail.head)
    return copy.deepcopy(TrainableTail(middle, last, column.shape, backbone.dim))  # without the trunk
