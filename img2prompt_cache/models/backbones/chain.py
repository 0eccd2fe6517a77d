"""A model as a chain of steps: its stem, its blocks, its head.

A block is one transformer block of a ViT or one residual block of a convolutional network.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.rewrites.class_token import Readout
from img2prompt_cache.models.backbones.taps import LEVELS, TOP, blocks_of


@dataclass(frozen=True, slots=True)
class Chain:
    """A model as a chain of steps: stem, blocks, head. All are the model's own modules.

    Attributes
    ----------
    stem, head : torch.nn.Module
    blocks : list of torch.nn.Module
    levels : tuple of int
        Numbers of the blocks whose output is pooled into the levels.
    pool : callable
        Pools a block's output into one vector for each image.
    """

    stem: nn.Module
    blocks: list[nn.Module]
    head: nn.Module
    levels: tuple[int, ...]
    pool: Callable[[Tensor], Tensor]

    def read(self, images: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Compute several outputs in one forward pass, which ends at the last block that is needed.

        Parameters
        ----------
        images : torch.Tensor, shape (n, 3, height, width)
            Normalised.
        names : collection of str
            As `taps` names them: ``""``, ``"levels"``, ``"k2"``.

        Returns
        -------
        dict of str to torch.Tensor
            By name: (n, dim), (n, width of all levels), or values at the cut, which are float16.
        """
        cuts = {self.cut(blocks_of(name)): name for name in names if blocks_of(name)}
        whole = TOP in names or LEVELS in names
        found: dict[str, Tensor] = {}
        pooled = []
        x = self.stem(images)
        for at, block in enumerate(self.blocks):
            if at in cuts:
                found[cuts[at]] = channels_last(x).to(torch.float16, copy=True)
                if not whole and at == max(cuts):
                    break
            out = block(x)
            if LEVELS in names and at in self.levels:
                # A shortened block gives one token, but the levels pool all of them. The feature is still
                # that of the shortened block, so its bits do not depend on what else is asked for.
                pooled.append(self.pool(block.block(x) if isinstance(block, Readout) else out).float())
            x = out
        if pooled:
            found[LEVELS] = torch.cat(pooled, 1)
        if TOP in names:
            found[TOP] = self.head(x)
        return found

    def before(self, k: int, images: Tensor) -> Tensor:
        """Compute the input of the last k blocks, in the layout that they take.

        Raises
        ------
        UsageError
            If there are fewer than k blocks.
        """
        x: Tensor = self.stem(images)
        for block in self.blocks[: self.cut(k)]:
            x = block(x)
        return x

    def cut(self, k: int) -> int:
        """Return the number of the block after the cut, where k blocks follow it.

        Raises
        ------
        UsageError
            If there are fewer than k blocks.
        """
        if not 1 <= k <= len(self.blocks):
            raise UsageError(f"a cut before the last {k} blocks is not possible: it has {len(self.blocks)}")
        return len(self.blocks) - k


def channels_last(x: Tensor) -> Tensor:
    """Bring a block's output into the layout of a trunk column: maps as (n, height, width, channels)."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def channels_first(values: Tensor) -> Tensor:
    """Bring values of a trunk column into the layout that a block takes."""
    return values.permute(0, 3, 1, 2) if values.ndim == 4 else values
