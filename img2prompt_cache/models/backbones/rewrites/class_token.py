"""The last block of a ViT, computed for its first token alone where only the class token is the feature.

Attention in the block looks at all tokens, but its output is used at one of them. So there is one query, and
one query needs no keys or values: q (W x)ᵀ is (q W) xᵀ. What remains is a product of a matrix with few
vectors: the same function and the same gradients, for a small part of the operations.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from img2prompt_cache.models.backbones.rewrites.trace import UNEXPECTED

TOLERANCE = 1e-4


class Readout(nn.Module):
    """A transformer block that computes only the first token of its output: (n, tokens, c) to (n, 1, c).

    Parameters
    ----------
    block : torch.nn.Module
    step : callable
        Computes that token from the block and its input.
    """

    def __init__(self, block: nn.Module, step: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.block, self.step = block, step

    def forward(self, x: Tensor, attn_mask: None = None) -> Tensor:
        """Compute the first token. open_clip passes a mask, which is always None in an image tower."""
        return self.step(self.block, x)


def shorten(block: nn.Module, head: nn.Module, x: Tensor) -> nn.Module:
    """Shorten a model's last block to the token that its head reads.

    The result is compared with the block on `x`, and discarded if the head does not give the same.

    Parameters
    ----------
    block, head : torch.nn.Module
    x : torch.Tensor, float32
        The block's input, of one image.

    Returns
    -------
    torch.nn.Module
        A `Readout` that shares the block's parameters; `block` itself where more than the first token is
        read, or it is of another kind, or built otherwise in the installed version of its library.
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
        try:
            same = bool((head(short(x)) - whole).abs().max() <= TOLERANCE * whole.abs().max())
        except UNEXPECTED:
            same = False
    return short if same else block


def can_shorten(block: nn.Module) -> bool:
    """Say whether a block is of a class that can be shortened."""
    return _kind(block) in _STEPS


def _kind(block: nn.Module) -> str:
    return f"{type(block).__module__}.{type(block).__qualname__}"


def attend(x: Tensor, weight: Tensor, bias: Tensor | None, heads: int, scale: float) -> Tensor:
    """Compute the attention of the first token to all of them, without the output projection.

    Parameters
    ----------
    x : torch.Tensor, shape (n, tokens, c)
    weight : torch.Tensor, shape (3 d, c)
        Projects to queries, keys and values, `heads` to each.
    bias : torch.Tensor, shape (3 d,), optional
    heads : int
    scale : float
        Of the scores.

    Returns
    -------
    torch.Tensor, shape (n, 1, d)
    """
    q, k, v = weight.view(3, heads, -1, x.shape[2])  # (heads, d / heads, c) each
    query = torch.einsum("nc,hdc->nhd", x[:, 0], q)
    if bias is not None:
        # The keys' adds the same to all scores of a query, which the softmax does not see.
        first, _, last = bias.view(3, heads, -1)
        query = query + first
    scores = torch.einsum("nhd,hdc->nhc", query, k) @ x.transpose(1, 2)
    values = torch.einsum("nhc,hdc->nhd", (scores * scale).softmax(2) @ x, v)
    return (values if bias is None else values + last).flatten(1)[:, None]


# The children of a block are known to its own class only.
# mypy: disable-error-code="operator,no-any-return,arg-type,union-attr"


def _timm(block: nn.Module, x: Tensor) -> Tensor:
    normed, attn = block.norm1(x), block.attn
    # Another kind of attention computes otherwise; a packed layer cannot be taken apart; keys that are normed
    # have to be made; a gate is of every token. Older versions of timm have neither gate nor norm.
    plain = type(attn).__qualname__ == "Attention" and type(attn.qkv) is nn.Linear
    if plain and isinstance(attn.k_norm, nn.Identity) and getattr(attn, "gate", None) is None:
        seen = attend(normed, attn.qkv.weight, attn.qkv.bias, attn.num_heads, attn.scale)
        seen = attn.proj_drop(attn.proj(getattr(attn, "norm", nn.Identity())(seen)))
    else:
        seen = attn(normed)[:, :1]
    x = x[:, :1] + block.drop_path1(block.ls1(seen))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def _clip(block: nn.Module, x: Tensor) -> Tensor:
    normed, attn = block.ln_1(x), block.attn
    scale = attn.head_dim**-0.5
    seen = attn.out_proj(attend(normed, attn.in_proj_weight, attn.in_proj_bias, attn.num_heads, scale))
    x = x[:, :1] + block.ls_1(seen)
    return x + block.ls_2(block.mlp(block.ln_2(x)))


_STEPS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "timm.models.vision_transformer.Block": _timm,
    "open_clip.transformer.ResidualAttentionBlock": _clip,
}
