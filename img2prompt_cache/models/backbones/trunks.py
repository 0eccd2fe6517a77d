"""A model cut in two before its last k blocks: the trunk stays frozen, the tail can be fine-tuned.

Values at the cut are laid out with their channels last: (n, tokens, width) for a ViT,
(n, height, width, channels) for a map.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from img2prompt_cache.models.backbones.architectures import chain_of
from img2prompt_cache.models.backbones.chain import channels_first, channels_last


class Trunk(nn.Module):
    """The frozen part: normalised images (n, 3, height, width) in, values at the cut out."""

    def __init__(self, stem: nn.Module, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stem, self.blocks = stem, nn.ModuleList(blocks)

    def forward(self, images: Tensor) -> Tensor:
        """Give values at the cut, channels last."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return channels_last(x)


class Tail(nn.Module):
    """The last blocks and the head: values at the cut in, features (n, dim) out."""

    def __init__(self, blocks: Iterable[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), head

    def forward(self, values: Tensor) -> Tensor:
        """Go on from the cut."""
        x = channels_first(values)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.head(x)
        return features


class Middle(nn.Module):
    """Blocks between two cuts: values at the one in, values at the other out."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, values: Tensor) -> Tensor:
        """Go on from cut to cut."""
        x = channels_first(values)
        for block in self.blocks:
            x = block(x)
        return channels_last(x)


def split(model: nn.Module, k: int) -> tuple[Trunk, Tail]:
    """Cut a model before its last k blocks.

    Parameters
    ----------
    model : torch.nn.Module
        Of timm or open_clip, maps normalised images (n, 3, height, width) to features (n, dim).
    k : int
        Transformer blocks or residual blocks of the tail.

    Returns
    -------
    trunk, tail : torch.nn.Module
        They share the parameters of `model`; ``tail(trunk(images))`` is ``model(images)``.

    Raises
    ------
    UsageError
        If the model cannot be cut, or has fewer blocks.
    """
    chain = chain_of(model)
    at = chain.cut(k)
    return Trunk(chain.stem, chain.blocks[:at]), Tail(chain.blocks[at:], chain.head)
