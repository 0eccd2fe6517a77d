"""Heads by name. A new head is a module and a line here."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import UsageError, unknown

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Head

HEADS = {
    "mean": "img2prompt_cache.heads.mean:Mean",
    "nearest": "img2prompt_cache.heads.nearest:Nearest",
    "knn": "img2prompt_cache.heads.knn:Knn",
    "ridge": "img2prompt_cache.heads.ridge:Ridge",
    "kernel": "img2prompt_cache.heads.kernel:Kernel",
    "mlp": "img2prompt_cache.heads.mlp:Mlp",
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
        If there is no such head, or it has no such setting.
    """
    valid = settings_of(name)
    for setting in settings:
        if not valid:
            raise UsageError(f"head {name!r} has no settings, so no {setting!r}")
        if setting not in valid:
            raise unknown(f"setting of head {name!r}", setting, valid)
    head: Head = _head_class(name)(**settings)
    return head


def settings_of(name: str) -> dict[str, Any]:
    """Give the settings of a head with their defaults.

    Raises
    ------
    UsageError
        If there is no such head.
    """
    parameters = inspect.signature(_head_class(name)).parameters
    return {key: parameter.default for key, parameter in parameters.items()}


def _head_class(name: str) -> type[Head]:
    if name not in HEADS:
        raise unknown("head", name, HEADS)
    module, _, attribute = HEADS[name].partition(":")
    found: type[Head] = getattr(import_module(module), attribute)
    return found
