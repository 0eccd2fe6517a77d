"""Heads: regressors from cached values to the target embedding, found by name.

A new head is one module and one line in `HEADS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from img2prompt_cache.errors import UsageError, unknown

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.heads.space import Space

HEADS = {
    "mean": "img2prompt_cache.heads.mean:Mean",
    "nearest": "img2prompt_cache.heads.nearest:Nearest",
    "knn": "img2prompt_cache.heads.knn:Knn",
    "clip": "img2prompt_cache.heads.clip:Clip",
    "ridge": "img2prompt_cache.heads.ridge:Ridge",
    "kernel": "img2prompt_cache.heads.kernel:Kernel",
    "linear": "img2prompt_cache.heads.linear:Linear",
    "mlp": "img2prompt_cache.heads.mlp:Mlp",
    "wide-mlp": "img2prompt_cache.heads.wide_mlp:WideMlp",
    "seed-resnet50": "img2prompt_cache.heads.student_project:StudentResnet50",
    "seed-vit": "img2prompt_cache.heads.student_project:StudentVit",
    "seed-tuned-resnet": "img2prompt_cache.heads.student_project:StudentTunedResnet",
    "finetune": "img2prompt_cache.heads.finetune:Finetune",
    "blend": "img2prompt_cache.heads.blend:Blend",
    "distil": "img2prompt_cache.heads.distil:Distil",
}
"""Where each head is, imported when it is asked for."""


def make_head(name: str, **settings: Any) -> Head:
    """Make an unfitted head.

    Parameters
    ----------
    name : str
        A key of `HEADS`.
    **settings
        Arguments of its constructor; see `settings_of`.

    Raises
    ------
    UsageError
        If there is no such head, it has no such setting, or a setting's value is of another type.
    """
    valid = settings_of(name)
    types = get_type_hints(_head_class(name).__init__)
    for setting, value in settings.items():
        if not valid:
            raise UsageError(f"head {name!r} has no settings, so no {setting!r}")
        if setting not in valid:
            raise unknown(f"setting of head {name!r}", setting, valid)
        if not _is_a(value, types[setting]):
            raise UsageError(f"head {name!r} takes {setting} as {_named(types[setting])}, not {value!r}")
    head: Head = _head_class(name)(**settings)
    return head


def settings_of(name: str) -> dict[str, Any]:
    """Give the settings of a head with their defaults; `device` is none, see `Head.settings`.

    Raises
    ------
    UsageError
        If there is no such head.
    """
    parameters = inspect.signature(_head_class(name)).parameters
    return {key: parameter.default for key, parameter in parameters.items() if key != "device"}


def space_of(name: str) -> Space:
    """Give the settings of a head that are worth searching, with their ranges; empty where there are none.

    Raises
    ------
    UsageError
        If there is no such head.
    """
    return _head_class(name).space


def _head_class(name: str) -> type[Head]:
    if name not in HEADS:
        raise unknown("head", name, HEADS)
    module, _, attribute = HEADS[name].partition(":")
    found: type[Head] = getattr(import_module(module), attribute)
    return found


def _is_a(value: object, kind: Any) -> bool:
    """Whether a value that came as JSON is of an annotated type: a number is no text, true is no number."""
    origin = get_origin(kind)
    if origin is Sequence:
        (item,) = get_args(kind)
        return isinstance(value, list | tuple) and all(_is_a(each, item) for each in value)
    if origin is Mapping:
        return isinstance(value, dict)
    if origin is not None:
        return any(_is_a(value, each) for each in get_args(kind))
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _named(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind)).replace("collections.abc.", "").replace("Sequence", "list")
