"""The Ray engine, on a cluster of this machine alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.engines import make_engine
from img2prompt_cache.extraction.execute import run_pass
from img2prompt_cache.extraction.handover import HOME
from img2prompt_cache.sources import open_source
from kit import Log, Tiny, make_source, parts_of

pytest.importorskip("ray.data", reason="needs the extra: pip install 'img2prompt-cache[ray]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own, on import and on the way
]


def actors() -> list[int]:
    """Process ids of the actors, by the title Ray gives them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"_Actor" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


class Killing(Log):
    """Kills an actor when the first part is done."""

    killed = 0

    def advance(self, rows: int) -> None:
        super().advance(rows)
        if not self.killed:
            self.killed = actors()[0]
            os.kill(self.killed, signal.SIGKILL)


def test_ray_gives_what_the_local_engine_gives_though_an_actor_is_killed(tiny: Tiny, tmp_path: Path) -> None:
    source, folder = make_source(tmp_path / "images", 60), tmp_path / "cache"
    log = Killing()
    run_pass(folder, open_source(source), tiny.config(), log, make_engine("ray", device="cpu", workers=2))
    assert log.killed
    assert log.rows == 60
    tiny.extract(source, tmp_path / "one")
    assert parts_of(folder) == parts_of(tmp_path / "one")
    assert (folder / "cache.json").read_bytes() == (tmp_path / "one" / "cache.json").read_bytes()
    assert not (folder / HOME).exists()
    deadline = time.monotonic() + 20
    while actors() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not actors()


def test_a_cluster_that_is_not_there_is_told(tiny: Tiny, pairs: Path, tmp_path: Path) -> None:
    engine = make_engine("ray", address="127.0.0.1:1")
    with pytest.raises(Img2PromptError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        run_pass(tmp_path / "cache", open_source(pairs), tiny.config(), Log(), engine)
