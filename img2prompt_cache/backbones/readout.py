"""The last block of a ViT, less what nobody reads where the class token is the feature.

A block's attention needs every token, but what comes out of it is read at one of them, so the rest of the
block is computed for that one: the same function, the same gradients, less work.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4


class Readout(nn.Module):
    """A transformer block that gives the first token of its output alone: (n, tokens, c) to (n, 1, c).

    Parameters
    ----------
    block : torch.nn.Module
    step : callable
        Given the block and its input.
    """

    def __init__(self, block: nn.Module, step: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.block, self.step = block, step

    def forward(self, x: Tensor, attn_mask: None = None) -> Tensor:
        """Give the first token. open_clip hands on a mask, which an image tower never has."""
        return self.step(self.block, x)


def shorten(block: nn.Module, head: nn.Module, x: Tensor) -> nn.Module:
    """Shorten a model's last block to the token that its head reads.

    The result is held against the block on `x`, and dropped if the head does not give the same.

    Parameters
    ----------
    block, head : torch.nn.Module
    x : torch.Tensor, float32
        What goes into the block, of an image.

    Returns
    -------
    torch.nn.Module
        A `Readout` that shares the block's parameters; `block` itself where more than the first token is
        read, or it is of a kind that this is not known of.
    """
    if not can_shorten(block):
        return block
    step = _STEPS[_kind(block)]
    with torch.inference_mode():
        out = block(x)
        first = out.clone()
        first[:, 1:] = 0
        whole = head(out)
        if not torch.equal(whole, head(first)):
            return block
        short = Readout(block, step)
        same = (head(short(x)) - whole).abs().max() <= TOLERANCE * whole.abs().max()
    return short if same else block


def can_shorten(block: nn.Module) -> bool:
    """Whether a block is of a kind that this is known of."""
    return _kind(block) in _STEPS


def _kind(block: nn.Module) -> str:
    return f"{type(block).__module__}.{type(block).__qualname__}"


# The children of a block are known to its own class only.
# mypy: disable-error-code="operator,no-any-return"


def _timm(block: nn.Module, x: Tensor) -> Tensor:
    x = x[:, :1] + block.drop_path1(block.ls1(block.attn(block.norm1(x))[:, :1]))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def _clip(block: nn.Module, x: Tensor) -> Tensor:
    normed = block.ln_1(x)
    x = x[:, :1] + block.ls_1(block.attention(normed[:, :1], normed, normed))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


_STEPS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "timm.models.vision_transformer.Block": _timm,
    "open_clip.transformer.ResidualAttentionBlock": _clip,
}
