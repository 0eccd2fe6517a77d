"""What comes behind a trunk column, to be trained: loaded, checked, cut to its blocks."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.taps import Described, blocks_of, shape_of, split_spec
from img2prompt_cache.models.backbones.trunks import Middle, Tail, split
from img2prompt_cache.models.fingerprints import require_equal


@dataclass(frozen=True, slots=True)
class Ending:
    """What comes behind a trunk column, in float32 on the processor.

    Attributes
    ----------
    middle : torch.nn.Module
        The blocks that stay as they are; none where the column is cut right before those to be trained.
    tail : Tail
        The blocks to be trained, and the model's head; a copy, to be changed at will.
    shape : tuple of int
        Of one row of the column.
    width : int
        Of the pooled feature.
    """

    middle: nn.Module
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


def load_ending(column: Described, blocks: int | None = None) -> Ending:
    """Load what comes behind a trunk column, with the pre-trained weights.

    Parameters
    ----------
    column : Described
    blocks : int, optional
        How many of the last blocks are to be trained; all that are behind the cut if absent.

    Raises
    ------
    UsageError
        If the column is no trunk, or has fewer blocks behind it; or the backbone is not there.
    Img2PromptError
        If the backbone is not the one the column was made with; the message names what differs.
    """
    spec, tap = split_spec(column.spec)
    cut = blocks_of(tap.name)
    if not cut or tap.views:
        raise UsageError(f"{column.spec} is no trunk column; `img2prompt-cache extract --trunk K` makes one")
    blocks = blocks or cut
    if blocks > cut:
        raise UsageError(f"{column.spec} was cut before the last {cut} blocks, so {blocks} cannot be trained")
    with torch.random.fork_rng(devices=()):  # a library fills a model at random before it loads the weights
        backbone = load_backbone(spec, revision=column.revision)
    if column.shape != shape_of(backbone, tap):
        raise Img2PromptError(f"{column.spec} holds values of shape {column.shape}, which it never gives")
    precision = column.fingerprint.get("precision", "")
    now = {**backbone.fingerprint, **tap.fingerprint, "precision": precision}
    require_equal(f"backbone {spec}", column.fingerprint, now, _ADVICE)
    tail = split(backbone.model, cut)[1]
    middle, last = Middle(tail.blocks[: cut - blocks]), Tail(tail.blocks[cut - blocks :], tail.head)
    ending = Ending(middle, last, column.shape, backbone.dim)
    return copy.deepcopy(ending)  # the copy alone is kept: not the trunk


_ADVICE = "A tail is trained, and predicts, behind the trunk it was cut from: extract, and fit, anew."
