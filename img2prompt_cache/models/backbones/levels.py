"""Levels: pooled outputs of a model's inner stages or blocks, collected while the model runs.

The levels of a network with stages are those of its last four: mean and maximum of the last, mean and
standard deviation of the three before. Those of a ViT are taken after its final norm: the class token and the
mean patch token after all of its blocks, 11 and 9 twelfths of them, and mean and standard deviation of the
patch tokens halfway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import local

import torch
from torch import Tensor, nn

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.rewrites.class_token import Readout
from img2prompt_cache.models.backbones.rewrites.trace import UNEXPECTED

STAGES = 4
"""How many of the last stages of a network are pooled."""
VIT_TWELFTHS = (12, 11, 9)
"""After how many twelfths of a ViT's blocks class token and mean patch token are taken."""
VIT_SPREAD_TWELFTHS = 6
"""After how many twelfths of them mean and standard deviation of the patch tokens are taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A place in a model, and how its output is pooled.

    Attributes
    ----------
    name : str
        The module's name and the statistics: ``"layer4 mean+max"``.
    module : torch.nn.Module
    pool : callable
        The module's output to one float32 vector for each image.
    """

    name: str
    module: nn.Module
    pool: Callable[[Tensor], Tensor]


@dataclass(slots=True, eq=False)
class Levels:
    """The levels of a model, whose modules report their output while the model runs.

    Attributes
    ----------
    levels : tuple of Level
        Deepest first.
    """

    levels: tuple[Level, ...]
    _here: local = field(default_factory=local, init=False)

    def __post_init__(self) -> None:
        for number, level in enumerate(self.levels):
            level.module.register_forward_hook(self._hook(number, level.pool))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the levels."""
        return tuple(level.name for level in self.levels)

    @contextmanager
    def collect(self) -> Iterator[list[Tensor | None]]:
        """Collect the pooled outputs of the model that runs inside, in this thread only.

        Yields
        ------
        list of torch.Tensor
            Filled while the model runs: for each level float32, shape (n, width).
        """
        found: list[Tensor | None] = [None] * len(self.levels)
        self._here.found = found
        try:
            yield found
        finally:
            self._here.found = None

    def _hook(
        self, number: int, pool: Callable[[Tensor], Tensor]
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        here = self._here  # threads run one model side by side; a copy of the model keeps the hook, unused

        def report(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found = getattr(here, "found", None)
            if found is not None:
                # A shortened block gives one token, but the levels pool all of them. The feature is still
                # that of the shortened block, so its bits do not depend on what else is asked for.
                try:
                    found[number] = pool(module.block(inputs[0]) if isinstance(module, Readout) else output)
                except UNEXPECTED as error:
                    raise _unknown(type(module).__name__) from error

        return report


def levels_of(model: nn.Module) -> Levels:
    """Find the levels of a model of timm, or of an image tower of open_clip.

    Raises
    ------
    UsageError
        If it is not known where they are in this architecture.
    """
    try:
        found = _find(model)
    except UNEXPECTED:
        found = []
    if not found:
        raise _unknown(type(model).__name__)
    return Levels(tuple(found))


def _unknown(kind: str) -> UsageError:
    return UsageError(
        f"it is not known where the inner levels of a {kind} are; leave out `levels`, or choose a ViT or a "
        "model whose stages timm lists",
        parameter="levels",
    )


def mean_and_max(x: Tensor) -> Tensor:
    """Pool maps (n, c, h, w) to (n, 2 c), float32."""
    return torch.cat([x.mean((2, 3), dtype=torch.float32), x.amax((2, 3)).float()], 1)


def mean_and_deviation(x: Tensor) -> Tensor:
    """Pool maps (n, c, h, w) to mean and population standard deviation (n, 2 c), computed in float32.

    From the differences to the mean: `torch.var_mean` takes twenty times as long on a processor, and a
    difference of squares would cancel. There, the maps of one image after the other are brought into one
    place that fits the processor's cache: ten times as fast as all at once on the largest maps of a ResNet50.
    """
    if torch.compiler.is_compiling():  # into a graph, whose batch has no known size
        mean = x.float().mean((2, 3), keepdim=True)
        return torch.cat([mean.flatten(1), (x.float() - mean).square().mean((2, 3)).sqrt()], 1)
    pieces = torch.split(x, 1 if x.device.type == "cpu" else len(x))
    place = torch.empty_like(pieces[0], dtype=torch.float32)
    pooled = []
    for piece in pieces:
        mean = place.copy_(piece).mean((2, 3), keepdim=True)
        deviation = place.sub_(mean).square_().mean((2, 3)).sqrt_()
        pooled.append(torch.cat([mean.flatten(1), deviation], 1))
    return torch.cat(pooled)


# The children of a model are known to its own class only.
# mypy: disable-error-code="operator,union-attr,arg-type,misc"


def _find(model: nn.Module) -> list[Level]:
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    if name == "open_clip.timm_model.TimmModel":
        return _find(model.trunk)
    if name == "open_clip.transformer.VisionTransformer":
        # With attentional pooling the norm is that of the pooled vector, of another width.
        norm = model.ln_post if model.attn_pool is None else nn.Identity()
        turned = not model.transformer.batch_first
        blocks = [*model.transformer.resblocks]
        return _vit("transformer.resblocks", blocks, norm, prefix=1, has_class=True, turned=turned)
    if hasattr(model, "num_prefix_tokens") and isinstance(
        getattr(model, "blocks", None), nn.ModuleList | nn.Sequential
    ):
        has_class = getattr(model, "cls_token", None) is not None
        has_class = bool(getattr(model, "has_class_token", has_class))
        return _vit(
            "blocks", [*model.blocks], _final_norm(model), model.num_prefix_tokens, has_class=has_class
        )
    return _stages(model)


def _final_norm(model: nn.Module) -> nn.Module:
    """The norm before a ViT's pooling, or the one after it, which is of one token as well."""
    norms = [getattr(model, name, None) for name in ("norm", "fc_norm")]
    return next((n for n in norms if n is not None and not isinstance(n, nn.Identity)), nn.Identity())


def _vit(
    name: str, blocks: list[nn.Module], norm: nn.Module, prefix: int, *, has_class: bool, turned: bool = False
) -> list[Level]:
    def tokens(x: Tensor) -> Tensor:
        normed: Tensor = norm(x.transpose(0, 1) if turned else x)
        return normed

    def means(x: Tensor) -> Tensor:
        normed = tokens(x)
        mean = normed[:, prefix:].mean(1, dtype=torch.float32)
        return torch.cat([normed[:, 0].float(), mean], 1) if has_class else mean

    def spread(x: Tensor) -> Tensor:
        return mean_and_deviation(tokens(x)[:, prefix:].transpose(1, 2).unsqueeze(3))

    said = "class+mean" if has_class else "mean"
    whole = dict.fromkeys(max(1, twelfths * len(blocks) // 12) - 1 for twelfths in VIT_TWELFTHS)
    found = [Level(f"{name}.{at} {said}", blocks[at], means) for at in whole]
    at = max(1, VIT_SPREAD_TWELFTHS * len(blocks) // 12) - 1
    return found if at in whole else [*found, Level(f"{name}.{at} mean+std", blocks[at], spread)]


def _stages(model: nn.Module) -> list[Level]:
    last = getattr(model, "output_fmt", None) == "NHWC"

    def maps(pool: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def turned(x: Tensor) -> Tensor:
            if x.ndim == 3:  # tokens (n, t, c)
                return pool(x.transpose(1, 2).unsqueeze(3))
            return pool(x.permute(0, 3, 1, 2) if last else x)

        return turned

    found: list[Level] = []
    for name in reversed(_stage_names(model)[-STAGES:]):
        stage = model.get_submodule(name)
        # Its last block is what runs, where the blocks of a trunk run one by one.
        module = stage[-1] if isinstance(stage, nn.Sequential) else stage
        pool, said = (mean_and_deviation, "mean+std") if found else (mean_and_max, "mean+max")
        found.append(Level(f"{name} {said}", module, maps(pool)))
    return found


def _stage_names(model: nn.Module) -> list[str]:
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.Sequential) and all(isinstance(stage, nn.Sequential) for stage in blocks):
        return [f"blocks.{at}" for at in range(len(blocks))]  # of these, timm lists only some
    named = [f"layer{number}" for number in range(1, 5)]
    if all(hasattr(model, name) for name in named):
        return named
    return [entry["module"] for entry in model.feature_info]
