"""The architectures that can be cut into a chain of blocks, and how."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor, nn

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.chain import Chain
from img2prompt_cache.models.backbones.rewrites.trace import UNEXPECTED
from img2prompt_cache.models.backbones.taps import LEVELS, TOP

STAGES, VIT_BLOCKS = 3, 4
"""How many of the last stages of a convolutional network, or blocks of a ViT, are pooled into the levels."""


class Part(nn.Module):
    """A step of a model's forward pass, with only those of its children that the step uses.

    Parameters
    ----------
    model : torch.nn.Module
    step : callable
        Takes a copy of the model that has only these children, and the step's input.
    keep : callable
        Takes the name of a child, parameter or buffer, and says whether it is one of them.
    """

    def __init__(
        self, model: nn.Module, step: Callable[[nn.Module, Tensor], Tensor], keep: Callable[[str], bool]
    ) -> None:
        super().__init__()
        some = copy.copy(model)
        for kind in ("_parameters", "_buffers", "_modules"):
            some.__dict__[kind] = {name: value for name, value in getattr(model, kind).items() if keep(name)}
        self.some, self.step = some, step

    def forward(self, x: Tensor) -> Tensor:
        """Take the step."""
        return self.step(self.some, x)


def chain_of(model: nn.Module) -> Chain:
    """View a model as a chain. Whether it computes what the model does is not checked.

    Raises
    ------
    UsageError
        If this cannot be done with its architecture, or with the installed version of its library.
    """
    known = _known_class(model)
    if known is None:
        raise UsageError(
            f"a {type(model).__name__} cannot be cut into blocks; ViT (VisionTransformer), ResNet and "
            "EfficientNet of timm can, and the image towers of open_clip that are ViTs or ResNets"
        )
    try:
        return _CHAINS[_name(known)](model)
    except UNEXPECTED as error:
        raise _unlike(model) from error


def checked_chain(model: nn.Module, images: Tensor) -> Chain:
    """View a model as a chain, and check that it computes what the model does.

    The steps of a chain call methods that their library may rename or change in any version, and a class that
    is derived from one of those known here may compute otherwise.

    Parameters
    ----------
    model : torch.nn.Module
    images : torch.Tensor, shape (n, 3, height, width)
        Normalised, to try it on.

    Raises
    ------
    UsageError
        If this cannot be done with its architecture, or with the installed version of its library.
    """
    chain, whole = chain_of(model), model(images)
    try:
        found = chain.read(images, {TOP, LEVELS})[TOP]
    except UNEXPECTED as error:
        raise _unlike(model) from error
    if found.shape != whole.shape or not torch.allclose(found, whole, rtol=1e-3, atol=1e-3):
        raise _unlike(model)
    return chain


def _known_class(model: nn.Module) -> type | None:
    """The class of a model, or the nearest that it derives from, that is in `_CHAINS`."""
    return next((base for base in type(model).__mro__ if _name(base) in _CHAINS), None)


def _name(base: type) -> str:
    return f"{base.__module__}.{base.__qualname__}"


def _unlike(model: nn.Module) -> UsageError:
    library = (_known_class(model) or type(model)).__module__.partition(".")[0]
    version = getattr(sys.modules[library], "__version__", "")
    return UsageError(
        f"a {type(model).__name__} of {library} {version} cannot be cut into blocks, because it does not "
        f"compute in the steps that are known here; leave out `trunk` and `levels`, or install another "
        f"version of {library}"
    )


def _mean_and_max(x: Tensor) -> Tensor:
    return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)


def _tokens(x: Tensor, prefix: int, *, has_class: bool) -> Tensor:
    """The class token where there is one, and the mean of the patch tokens."""
    mean = x[:, prefix:].mean(1)
    return torch.cat([x[:, 0], mean], 1) if has_class else mean


def _cut_up(
    model: nn.Module,
    stem: Callable[[nn.Module, Tensor], Tensor],
    middle: Collection[str],
    head: Callable[[nn.Module, Tensor], Tensor],
    last: Collection[str],
) -> tuple[Part, Part]:
    """Divide a model's children between stem and head; those named in `middle` hold the blocks."""
    return (
        Part(model, stem, lambda name: name not in middle and name not in last),
        Part(model, head, lambda name: name in last),
    )


def _network(
    model: nn.Module,
    stages: Iterable[nn.Module],
    stem: Callable[[nn.Module, Tensor], Tensor],
    middle: Collection[str],
    head: Callable[[nn.Module, Tensor], Tensor],
    last: Collection[str],
) -> Chain:
    """A convolutional network, whose stages are sequences of blocks."""
    first, final = _cut_up(model, stem, middle, head, last)
    blocks: list[nn.Module] = []
    ends = []
    for stage in stages:
        blocks += stage.children()
        ends.append(len(blocks) - 1)
    return Chain(first, blocks, final, tuple(ends[-STAGES:]), _mean_and_max)


def _last_blocks(count: int) -> tuple[int, ...]:
    return tuple(range(max(0, count - VIT_BLOCKS), count))


# The children of a model are known to its own class only.
# mypy: disable-error-code="operator,union-attr,arg-type"


def _timm_vit(model: nn.Module) -> Chain:
    first, final = _cut_up(
        model,
        lambda m, x: m.norm_pre(m.patch_drop(m._pos_embed(m.patch_embed(x)))),
        ("blocks",),
        lambda m, x: m.forward_head(m.norm(x)),
        ("norm", "attn_pool", "fc_norm", "head_drop", "head", "head_dist"),
    )
    blocks = list(model.blocks)
    has_class = bool(getattr(model, "has_class_token", model.cls_token is not None))

    def pool(x: Tensor) -> Tensor:
        return _tokens(model.norm(x), model.num_prefix_tokens, has_class=has_class)

    return Chain(first, blocks, final, _last_blocks(len(blocks)), pool)


def _timm_resnet(model: nn.Module) -> Chain:
    middle = ("layer1", "layer2", "layer3", "layer4")
    return _network(
        model,
        [getattr(model, name) for name in middle],
        lambda m, x: m.maxpool(m.act1(m.bn1(m.conv1(x)))),
        middle,
        lambda m, x: m.forward_head(x),
        ("global_pool", "fc"),
    )


def _timm_efficientnet(model: nn.Module) -> Chain:
    return _network(
        model,
        model.blocks,
        lambda m, x: m.bn1(m.conv_stem(x)),
        ("blocks",),
        lambda m, x: m.forward_head(m.bn2(m.conv_head(x))),
        ("conv_head", "bn2", "global_pool", "classifier"),
    )


def _clip_vit(model: nn.Module) -> Chain:
    def head(m: nn.Module, x: Tensor) -> Tensor:
        pooled: Tensor = m._pool(x)[0]
        return pooled if m.proj is None else pooled @ m.proj

    first, final = _cut_up(
        model,
        lambda m, x: m._embeds(x),
        ("transformer",),
        head,
        ("attn_pool", "attn_pool_contrastive", "ln_post", "proj"),
    )
    blocks = list(model.transformer.resblocks)

    def pool(x: Tensor) -> Tensor:
        # With attentional pooling the norm is that of the pooled vector, of another width.
        return _tokens(model.ln_post(x) if model.attn_pool is None else x, 1, has_class=True)

    return Chain(first, blocks, final, _last_blocks(len(blocks)), pool)


def _clip_resnet(model: nn.Module) -> Chain:
    middle = ("layer1", "layer2", "layer3", "layer4")
    return _network(
        model,
        [getattr(model, name) for name in middle],
        lambda m, x: m.stem(x),
        middle,
        lambda m, x: m.attnpool(x),
        ("attnpool",),
    )


def _clip_timm(model: nn.Module) -> Chain:
    inner = chain_of(model.trunk)
    return Chain(inner.stem, inner.blocks, nn.Sequential(inner.head, model.head), inner.levels, inner.pool)


_CHAINS: dict[str, Callable[[nn.Module], Chain]] = {
    "timm.models.vision_transformer.VisionTransformer": _timm_vit,
    "timm.models.resnet.ResNet": _timm_resnet,
    "timm.models.efficientnet.EfficientNet": _timm_efficientnet,
    "open_clip.transformer.VisionTransformer": _clip_vit,
    "open_clip.modified_resnet.ModifiedResNet": _clip_resnet,
    "open_clip.timm_model.TimmModel": _clip_timm,
}
