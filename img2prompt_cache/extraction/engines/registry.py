"""The engines by name.

A new engine is one module and one line in `ENGINES`.
"""

from __future__ import annotations

import importlib

from img2prompt_cache.cluster import require_engine
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
    require_engine(name, workers, address=address)
    options = {"address": address} if name == "ray" else {}
    module = importlib.import_module(f"{__package__}.{name}")
    engine: Engine = getattr(module, ENGINES[name])(device, workers, **options)
    return engine
