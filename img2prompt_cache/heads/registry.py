"""Heads by name.

A new head is one module and one line in `HEADS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import UsageError, unknown

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.heads.settings import Setting
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
    "best": "img2prompt_cache.heads.best:Best",
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
    for setting, value in settings.items():
        if not valid:
            raise UsageError(f"head {name!r} has no settings, so no {setting!r}", parameter=setting)
        if setting not in valid:
            raise unknown("setting", setting, valid, where=f"of head {name!r}", parameter=setting)
        if not valid[setting].accepts(value):
            wanted = valid[setting].type
            raise UsageError(f"head {name!r} takes {setting} as {wanted}, not {value!r}", parameter=setting)
    head: Head = head_class(name)(**settings)
    return head


def settings_of(name: str) -> dict[str, Setting]:
    """List the settings of a head: type, default, description, and the values worth searching.

    Parameters
    ----------
    name : str
        A key of `HEADS`.

    Returns
    -------
    dict of str to Setting
        In the order of the head's constructor.

    Raises
    ------
    UsageError
        If there is no such head.
    """
    from img2prompt_cache.heads.settings import settings_declared

    return {key: each for key, each in settings_declared(head_class(name)).items() if each.recorded}


def space_of(name: str) -> Space:
    """Give the settings of a head that are worth searching, with their ranges; empty where there are none.

    Raises
    ------
    UsageError
        If there is no such head.
    """
    return {key: each.search for key, each in settings_of(name).items() if each.search is not None}


def head_class(name: str) -> type[Head]:
    """Give the class of a head.

    Raises
    ------
    UsageError
        If there is no such head.
    """
    if not isinstance(name, str):
        raise UsageError(f"`head` takes the name of a head, not a {type(name).__name__}", parameter="head")
    if name not in HEADS:
        raise unknown("head", name, HEADS, parameter="head")
    module, _, attribute = HEADS[name].partition(":")
    found: type[Head] = getattr(import_module(module), attribute)
    return found
