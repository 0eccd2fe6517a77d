"""Cache frozen image features once, then predict prompt embeddings with fast heads.

The library in one breath::

    from pathlib import Path
    from img2prompt_cache import Cache, Choice, Request, extract, fit, open_source

    extract(Path("cache/default"), open_source(Path("images")), Request(), watcher)
    folder, run = fit(Cache(Path("cache/default")), Choice(head="ridge"))

Names are imported when they are first used, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from img2prompt_cache.backbones import load_backbone
    from img2prompt_cache.cache import Cache
    from img2prompt_cache.comparison import compare
    from img2prompt_cache.encoders import load_encoder
    from img2prompt_cache.extraction import extract
    from img2prompt_cache.fitting import Choice, fit
    from img2prompt_cache.heads import make_head
    from img2prompt_cache.models import Request
    from img2prompt_cache.runfile import load_run
    from img2prompt_cache.runfolder import load_head
    from img2prompt_cache.sources import open_source

_HOMES = {
    "Cache": "cache",
    "Choice": "fitting",
    "Request": "models",
    "compare": "comparison",
    "extract": "extraction",
    "fit": "fitting",
    "load_backbone": "backbones",
    "load_encoder": "encoders",
    "load_head": "runfolder",
    "load_run": "runfile",
    "make_head": "heads",
    "open_source": "sources",
}

__all__ = [
    "Cache",
    "Choice",
    "Request",
    "compare",
    "extract",
    "fit",
    "load_backbone",
    "load_encoder",
    "load_head",
    "load_run",
    "make_head",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
