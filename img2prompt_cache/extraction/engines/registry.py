"""The engines by name.

A new engine is one module and one line in `ENGINES`.
"""

from __future__ import annotations

import importlib

from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.extraction.engines.base import Engine

ENGINES = {"local": "Local", "ray": "Ray"}
"""Name of an engine, and of its module, to its class there."""


def make_engine(
    name: str = "local", *, device: str = "auto", workers: int | None = None, address: str | None = None
) -> Engine:
    """Make an engine.

    Parameters
    ----------
    name : str
        One of `ENGINES`.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    workers : int, optional
        Processes that compute side by side; one for each GPU if absent, one where there is none.
    address : str, optional
        Of the Ray cluster; a cluster of this machine alone is started if absent.

    Raises
    ------
    UsageError
        If there is no such engine, or it takes no address.
    """
    if name not in ENGINES:
        raise unknown("`engine`", name, ENGINES, parameter="engine")
    if address is not None and name != "ray":
        raise UsageError(
            f'`ray_address` has no meaning for `engine="{name}"`; add `engine="ray"`', parameter="ray_address"
        )
    options = {"address": address} if name == "ray" else {}
    module = importlib.import_module(f"{__package__}.{name}")
    engine: Engine = getattr(module, ENGINES[name])(device, workers, **options)
    return engine
