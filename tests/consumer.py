"""A program that uses the public functions as their types promise.

It is never run: `test_installed.py` has a type checker read it against the installed package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import img2prompt_cache as ipc
from img2prompt_cache.errors import UsageError
from img2prompt_cache.progress import Event


def show(event: Event) -> None:
    """Print what is under way."""
    if event.kind == "step":
        assert_type(event.done, int)
        print(event.task, event.done, "of", event.total)


def extract(source: Path) -> ipc.Cache:
    """Look at a source before it is read."""
    assert_type(ipc.look(source, "cache/default"), ipc.Look)
    cache = ipc.extract(source, "cache/default", preset="packaged", progress=show)
    assert_type(cache, ipc.Cache)
    assert_type(cache.rows, int)
    return cache


def fit(cache: ipc.Cache) -> ipc.Run:
    """Fit heads, and compare them."""
    run = ipc.fit(cache, head="ridge", folds=5, progress=True)
    assert_type(run, ipc.Run)
    assert_type(ipc.fit_seeds(cache, head="mlp", seeds=[0, 1]), list[ipc.Run])
    assert_type(ipc.tune(cache, head="kernel", trials=3), ipc.Run)
    board = ipc.compare(cache, against=run)
    assert_type(board, ipc.Leaderboard)
    assert_type(board.table("latex"), str)
    assert_type(ipc.report(cache), ipc.Report)
    assert_type(ipc.card(run, license="mit"), str)
    assert_type(ipc.bundle(run, "run.zip"), Path)
    return board.best


def predict(run: ipc.Run, images: list[Path]) -> NDArray[np.float32]:
    """Predict for pictures."""
    try:
        found = ipc.predict(run, images, top_k=3)
    except UsageError as error:
        assert_type(error.parameter, str | None)
        raise
    assert_type(found, ipc.Predictions)
    assert_type(found.ids, list[str])
    assert_type(found.prompts, list[list[str]] | None)
    assert_type(run.predict(images), ipc.Predictions)
    assert_type(ipc.watch("new", run), Iterator[dict[str, Any]])
    return found.vectors
