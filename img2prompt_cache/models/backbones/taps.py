"""Taps: what a column keeps of a backbone's forward pass, and how its spec says so.

The spec of such a column is the backbone's with a suffix: none for the pooled feature, ``#multi`` for pooled
inner levels (``#levels`` as version 0.1 pooled them), ``#names`` for what the backbone's own classifier sees,
``#k2`` for the trunk before the last 2 blocks (``#k2-int8`` with 8 bits a value), and ``-v4`` after any of
them for the same of 4 augmented views: ``#v4``, ``#multi-v4``; ``#v4f`` where they may be mirrored.
``-squash`` stands for a second view, the whole image squashed to the input size: ``#squash``,
``#multi-squash``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.images.augment import SQUASH_RULES, SQUASHED, VIEW_RULES, View

if TYPE_CHECKING:
    from img2prompt_cache.cache.manifest import Kind

TOP, LEVELS, MULTI, NAMES = "", "levels", "multi", "names"
LEVEL_RULES = (
    "mean and max of the last 3 stages, or class token and mean patch token of the last 4 blocks, normed"
)
MULTI_RULES = (
    "2: mean and max of the last stage, mean and deviation of the 3 before; or of a ViT, normed: class token "
    "and mean patch token after 12, 11 and 9 twelfths of the blocks, mean and deviation of patches after 6"
)
NAME_RULES = "softmax(logits / 2) times the embeddings of the classes' descriptions"
TRUNK_DTYPES = ("float16", "int8")
MAX_VIEWS = 64
SECOND_VIEWS = ("none", "squash")

_SUFFIX = re.compile(
    r"#(?=.)(levels|multi|names|k[1-9]\d{0,3})?((?<=\d)-int8)?(?:(?(1)-)(?:v([1-9]\d?)(f?)|(squash)))?"
)


class NoClassifierError(UsageError):
    """A backbone has no classifier whose classes have known names."""

    def __init__(self, spec: str) -> None:
        super().__init__(
            f"{spec} has no classifier whose classes have known names, so there is no {spec}#names",
            parameter="names",
        )


class Described(Protocol):
    """A column of a backbone as the manifest records it, or as a run keeps it."""

    @property
    def spec(self) -> str:
        """The backbone's, with a suffix."""

    @property
    def current(self) -> str:
        """The spec that its model is loaded by now, with the same suffix; empty where that is `spec`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row's value."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """What the values depend on."""

    @property
    def revision(self) -> str:
        """The commit of the hub that the weights are from; empty for other weights."""


@dataclass(frozen=True, slots=True)
class Tap:
    """What a column keeps of a forward pass.

    Attributes
    ----------
    name : str
        Which output: ``""`` for the pooled feature, ``"multi"`` for pooled inner levels (``"levels"`` in
        caches of version 0.1), ``"names"`` for what the classifier sees, ``"k2"`` for the trunk before the
        last 2 blocks.
    dtype : str
        What it is stored in: ``"float16"``, or for a trunk ``"int8"``.
    views : int
        Of how many augmented views; 0 for the image itself.
    flip : bool
        Whether half of the views are mirrored.
    squash : bool
        Of the whole image, squashed to the input size and mirrored, in place of the image as the model takes
        it.
    """

    name: str = TOP
    dtype: str = "float16"
    views: int = 0
    flip: bool = False
    squash: bool = False

    @property
    def suffix(self) -> str:
        """What the column's spec has after the backbone's."""
        stored = f"{self.name}-{self.dtype}" if self.dtype != "float16" else self.name
        views = f"v{self.views}{'f' if self.flip else ''}" if self.views else "squash" * self.squash
        said = "-".join(filter(None, (stored, views)))
        return f"#{said}" if said else ""

    @property
    def kind(self) -> Kind:
        """The kind of its column."""
        return "views" if self.views else "trunk" if blocks_of(self.name) else "features"

    @property
    def inputs(self) -> tuple[View | None, ...]:
        """What is encoded of an image, in order: its views, or None for the image itself."""
        if self.squash:
            return (SQUASHED,)
        return tuple(View(number, self.flip) for number in range(self.views)) or (None,)

    @property
    def fingerprint(self) -> dict[str, str]:
        """What its values depend on besides the backbone's own fingerprint."""
        fields = {}
        if self.name in _RULES:
            fields["output"] = _RULES[self.name]
        elif self.name:
            fields["output"] = f"before the last {blocks_of(self.name)} blocks, {self.dtype}"
        if self.views:
            fields["views"] = f"{self.views}{', mirrored at random' if self.flip else ''}: {VIEW_RULES}"
        if self.squash:
            fields["view"] = SQUASH_RULES
        return fields


_RULES = {LEVELS: LEVEL_RULES, MULTI: MULTI_RULES, NAMES: NAME_RULES}


PRESET_TAPS: dict[str, tuple[Tap, ...]] = {
    "timm:resnet50.a1_in1k": (Tap(MULTI), Tap(NAMES)),
    "timm:vit_base_patch16_224.augreg2_in21k_ft_in1k": (Tap(MULTI), Tap(NAMES)),
    "open_clip:ViT-B-32/laion2b_s34b_b79k": (Tap(MULTI),),
    "packaged:efficientnet-lite0": (Tap(MULTI), Tap(NAMES)),
    "packaged:efficientnet-lite2": tuple(
        Tap(name, squash=squash) for squash in (False, True) for name in (TOP, MULTI, NAMES) if name or squash
    ),
    "packaged:vit-small-saliency": (Tap(MULTI),),
}
"""What a new cache keeps of the backbones of a preset, besides their pooled features."""


def blocks_of(name: str) -> int:
    """How many blocks the tail has where an output is a trunk; 0 for other outputs."""
    return int(name[1:]) if name.startswith("k") else 0


def split_spec(spec: str) -> tuple[str, Tap]:
    """Split a column's spec into the backbone's and what is kept of it."""
    base, mark, end = spec.rpartition("#")
    found = _SUFFIX.fullmatch(mark + end)
    if not base or found is None:
        return spec, Tap()
    name, coded, views, flip, squash = found.groups()
    tap = Tap(name or TOP, "int8" if coded else "float16", int(views or 0), bool(flip), bool(squash))
    if tap.squash and blocks_of(tap.name):
        return spec, Tap()
    return base, tap


def model_of(column: Described) -> str:
    """Give the spec that the model of a column is loaded by."""
    return split_spec(column.current or column.spec)[0]


def choose_taps(
    *,
    trunk: int = 0,
    trunk_dtype: str = "float16",
    levels: str = "top",
    names: bool = False,
    second_view: str = "none",
    views: int = 0,
    flip: bool = False,
) -> tuple[Tap, ...]:
    """List what to keep besides the pooled feature.

    Parameters
    ----------
    trunk : int
        How many blocks follow the cut; 0 for no trunk.
    trunk_dtype : {"float16", "int8"}
    levels : {"top", "multi"}
    names : bool
        What the backbone's classifier sees, as a vector in the space of the encoder.
    second_view : {"none", "squash"}
        ``"squash"`` for the pooled feature, the levels and the names of a second view.
    views : int
        Augmented views of the pooled feature, and of the levels, the names and the trunk where these are
        kept; 0 for none.
    flip : bool
        Mirror half of the views.

    Raises
    ------
    UsageError
        If one of them has another value, or `flip` is True without views.
    """
    if trunk_dtype not in TRUNK_DTYPES:
        raise unknown("`trunk_dtype`", trunk_dtype, TRUNK_DTYPES, parameter="trunk_dtype")
    if levels not in ("top", "multi"):
        raise unknown("`levels`", levels, ("top", "multi"), parameter="levels")
    if second_view not in SECOND_VIEWS:
        raise unknown("`second_view`", second_view, SECOND_VIEWS, parameter="second_view")
    if trunk < 0:
        raise UsageError(
            f"`trunk` is the number of blocks after the cut, at least 1, not {trunk}", parameter="trunk"
        )
    if not 0 <= views <= MAX_VIEWS:
        raise UsageError(f"`views` is a number of views, {MAX_VIEWS} at most, not {views}", parameter="views")
    if flip and not views:
        raise UsageError("`flip=True` mirrors views; give their number as `views`", parameter="flip")
    kept = [Tap(MULTI)] if levels == "multi" else []
    kept += [Tap(NAMES)] if names else []
    second = [replace(tap, squash=True) for tap in (Tap(), *kept)] if second_view == "squash" else []
    kept += [Tap(f"k{trunk}", trunk_dtype)] if trunk else []
    seen = [replace(tap, views=views, flip=flip) for tap in (Tap(), *kept)] if views else []
    return (*kept, *second, *seen)
