"""The local engine with several worker processes."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.engines import make_engine
from img2prompt_cache.extraction.engines.local import Local
from img2prompt_cache.extraction.execute import run_pass
from img2prompt_cache.extraction.handover import HOME
from img2prompt_cache.sources import open_source
from kit import Log, Tiny, parts_of


class Watching(Log):
    """Does something once, when the first rows are done."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__()
        self._do: Callable[[], None] | None = do

    def advance(self, rows: int) -> None:
        super().advance(rows)
        do, self._do = self._do, None
        if do is not None:
            do()


def run(tiny: Tiny, source: Path, folder: Path, log: Log) -> None:
    run_pass(folder, open_source(source), tiny.config(), log, Local("cpu", 2))


def kill_one() -> None:
    multiprocessing.active_children()[0].kill()


def interrupt() -> None:
    raise KeyboardInterrupt


def test_engines_are_chosen_by_name() -> None:
    assert make_engine(device="cpu").here
    assert not make_engine(device="cpu", workers=2).here
    with pytest.raises(UsageError, match="local, ray"):
        make_engine("spark")
    with pytest.raises(UsageError, match="`ray_address` has no meaning"):
        make_engine(address="auto")


@pytest.mark.slow
def test_two_workers_give_what_one_gives_though_one_is_killed(
    made: Path, pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    log = Watching(kill_one)
    run(tiny, pairs, tmp_path / "cache", log)
    assert log.rows == 23
    assert parts_of(tmp_path / "cache") == parts_of(made)
    one, other = (json.loads((folder / "cache.json").read_text()) for folder in (made, tmp_path / "cache"))
    assert one == other
    assert not (tmp_path / "cache" / HOME).exists()
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_an_interrupted_pass_of_workers_leaves_none_behind_and_goes_on(
    made: Path, pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny, pairs, tmp_path / "cache", Watching(interrupt))
    assert multiprocessing.active_children() == []
    tiny.extract(pairs, tmp_path / "cache")
    assert parts_of(tmp_path / "cache") == parts_of(made)


@pytest.mark.slow
def test_what_a_worker_fails_with_is_told(pairs: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"

    class Spoiling(Log):
        def plan(self, plan: object) -> None:
            for model in tmp_path.glob("cnn/*"):
                model.unlink()

    shutil.copytree(tiny.cnn.rpartition(":")[2], tmp_path / "cnn")
    config = tiny.config(backbones=(f"timm:local-dir:{tmp_path / 'cnn'}",))
    with pytest.raises(Img2PromptError, match="cnn"):
        run_pass(folder, open_source(pairs), config, Spoiling(), Local("cpu", 2))
    assert multiprocessing.active_children() == []
