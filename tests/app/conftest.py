from __future__ import annotations

import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head


@pytest.fixture(scope="session")
def served(tiny, pairs, tmp_path_factory):
    """A cache of real images and models with two runs; to be read only."""
    folder = tmp_path_factory.mktemp("served") / "cache"
    tiny.extract(pairs, folder)
    for head in ("mean", "ridge"):
        fit_head(Cache(folder), FitConfig(head, {"alpha": 0.1} if head == "ridge" else {}, split="random"))
    return folder
