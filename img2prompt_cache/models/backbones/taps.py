"""Taps: what a column keeps of a backbone's forward pass, and how its spec says so.

The spec of such a column is the backbone's with a suffix: none for the pooled feature, ``#levels`` for pooled
inner levels, ``#k2`` for the trunk before the last 2 blocks (``#k2-int8`` with 8 bits a value), and ``-v4``
after any of them for the same of 4 augmented views: ``#v4``, ``#levels-v4``; ``#v4f`` where they may be
mirrored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.images.augment import VIEW_RULES, View

if TYPE_CHECKING:
    from img2prompt_cache.cache.manifest import Kind

TOP, LEVELS = "", "levels"
LEVEL_RULES = (
    "mean and max of the last 3 stages, or class token and mean patch token of the last 4 blocks, normed"
)
TRUNK_DTYPES = ("float16", "int8")
MAX_VIEWS = 64

_SUFFIX = re.compile(r"#(?=.)(levels|k[1-9]\d{0,3})?((?<=\d)-int8)?(?:(?(1)-)v([1-9]\d?)(f?))?")


class Described(Protocol):
    """A column of a backbone as the manifest records it, or as a run keeps it."""

    @property
    def spec(self) -> str:
        """The backbone's, with a suffix."""

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
        Which output: ``""`` for the pooled feature, ``"levels"`` for pooled inner levels, ``"k2"`` for the
        trunk before the last 2 blocks.
    dtype : str
        What it is stored in: ``"float16"``, or for a trunk ``"int8"``.
    views : int
        Of how many augmented views; 0 for the image itself.
    flip : bool
        Whether half of the views are mirrored.
    """

    name: str = TOP
    dtype: str = "float16"
    views: int = 0
    flip: bool = False

    @property
    def suffix(self) -> str:
        """What the column's spec has after the backbone's."""
        stored = f"{self.name}-{self.dtype}" if self.dtype != "float16" else self.name
        views = f"v{self.views}{'f' if self.flip else ''}" if self.views else ""
        said = "-".join(filter(None, (stored, views)))
        return f"#{said}" if said else ""

    @property
    def kind(self) -> Kind:
        """The kind of its column."""
        return "views" if self.views else "trunk" if blocks_of(self.name) else "features"

    @property
    def inputs(self) -> tuple[View | None, ...]:
        """What is encoded of an image, in order: its views, or None for the image itself."""
        return tuple(View(number, self.flip) for number in range(self.views)) or (None,)

    @property
    def fingerprint(self) -> dict[str, str]:
        """What its values depend on besides the backbone's own fingerprint."""
        fields = {}
        if self.name == LEVELS:
            fields["output"] = LEVEL_RULES
        elif self.name:
            fields["output"] = f"before the last {blocks_of(self.name)} blocks, {self.dtype}"
        if self.views:
            fields["views"] = f"{self.views}{', mirrored at random' if self.flip else ''}: {VIEW_RULES}"
        return fields


def blocks_of(name: str) -> int:
    """How many blocks the tail has where an output is a trunk; 0 for other outputs."""
    return int(name[1:]) if name.startswith("k") else 0


def split_spec(spec: str) -> tuple[str, Tap]:
    """Split a column's spec into the backbone's and what is kept of it."""
    base, mark, end = spec.rpartition("#")
    found = _SUFFIX.fullmatch(mark + end)
    if not base or found is None:
        return spec, Tap()
    name, coded, views, flip = found.groups()
    return base, Tap(name or TOP, "int8" if coded else "float16", int(views or 0), bool(flip))


def choose_taps(
    *, trunk: int = 0, trunk_dtype: str = "float16", levels: str = "top", views: int = 0, flip: bool = False
) -> tuple[Tap, ...]:
    """List what to keep besides the pooled feature.

    Parameters
    ----------
    trunk : int
        How many blocks follow the cut; 0 for no trunk.
    trunk_dtype : {"float16", "int8"}
    levels : {"top", "multi"}
    views : int
        Augmented views of the pooled feature, and of the levels and the trunk where these are kept; 0 for
        none.
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
    if trunk < 0:
        raise UsageError(
            f"`trunk` is the number of blocks after the cut, at least 1, not {trunk}", parameter="trunk"
        )
    if not 0 <= views <= MAX_VIEWS:
        raise UsageError(f"`views` is a number of views, {MAX_VIEWS} at most, not {views}", parameter="views")
    if flip and not views:
        raise UsageError("`flip=True` mirrors views; give their number as `views`", parameter="flip")
    kept = [Tap(LEVELS)] if levels == "multi" else []
    kept += [Tap(f"k{trunk}", trunk_dtype)] if trunk else []
    seen = [Tap(tap.name, tap.dtype, views, flip) for tap in (Tap(), *kept)] if views else []
    return (*kept, *seen)
