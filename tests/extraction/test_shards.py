"""A pass shared by processes that have nothing in common but a folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.writer import writing
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.execute import run_pass
from img2prompt_cache.extraction.handover import HOME, load_pass, staged_path
from img2prompt_cache.extraction.shards import ShardReport, extract_shard, finish, parse_shard
from img2prompt_cache.sources import open_source
from kit import Log, Tiny, make_source, parts_of, write_prompts

pytestmark = pytest.mark.usefixtures("no_weights")


def shard(tiny: Tiny, source: Path, folder: Path, which: str, **options: Any) -> ShardReport:
    return extract_shard(folder, open_source(source), tiny.config(**options), parse_shard(which))


def same(one: Path, other: Path) -> bool:
    manifests = [json.loads((folder / "cache.json").read_text()) for folder in (one, other)]
    return parts_of(one) == parts_of(other) and manifests[0] == manifests[1]


def test_shards_and_a_finish_give_what_one_pass_gives(
    made: Path, pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    second = shard(tiny, pairs, folder, "2/2")
    assert (second.parts, second.rows, second.left) == (1, 8, 2)
    assert not (folder / "rows").exists()
    first = shard(tiny, pairs, folder, "1/2")
    assert (first.parts, first.rows, first.left) == (2, 15, 0)
    log = Log()
    report = finish(folder, tiny.config(), log)
    assert (report.rows, report.ok, report.failed, report.identical, log.rows) == (23, 20, 3, 2, 23)
    assert same(folder, made)
    assert not (folder / HOME).exists()
    assert Cache(folder).verify() == []


def test_a_shard_run_again_computes_only_what_it_had_not_finished(
    pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    shard(tiny, pairs, folder, "1/3")
    assert shard(tiny, pairs, folder, "1/3").parts == 0
    assert shard(tiny, pairs, folder, "1/1").parts == 2


def test_finish_refuses_while_parts_are_missing_and_goes_on_after_a_crash(
    made: Path, pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(UsageError, match="no shards to finish"):
        finish(folder, tiny.config())
    shard(tiny, pairs, folder, "1/2")
    with pytest.raises(Img2PromptError, match="1 part is not computed yet"):
        finish(folder, tiny.config())
    shard(tiny, pairs, folder, "2/2")

    class Killed(Log):
        def advance(self, rows: int) -> None:
            raise KeyboardInterrupt

    work = load_pass(folder)
    assert work is not None
    part = staged_path(work, work.jobs[0]) / "rows" / "00000.h5"
    (folder / "rows").mkdir()
    part.replace(folder / "rows" / "00000.h5")  # a finish was killed between moving and recording
    with pytest.raises(KeyboardInterrupt):
        finish(folder, tiny.config(), Killed())
    finish(folder, tiny.config())
    assert same(folder, made)


def test_a_damaged_part_is_found_and_computed_again(
    made: Path, pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    shard(tiny, pairs, folder, "1/1")
    work = load_pass(folder)
    assert work is not None
    (part,) = (staged_path(work, work.jobs[1]) / "features").rglob("*.h5")
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    with pytest.raises(Img2PromptError, match="part 1 was finished but is damaged now"):
        finish(folder, tiny.config())
    assert shard(tiny, pairs, folder, "1/1").parts == 1
    finish(folder, tiny.config())
    assert same(folder, made)


def test_an_ordinary_pass_takes_what_shards_finished(
    made: Path, pairs: Path, tiny: Tiny, tmp_path: Path, log: Log
) -> None:
    folder = tmp_path / "cache"
    shard(tiny, pairs, folder, "2/2")
    report = tiny.extract(pairs, folder, log)
    assert (log.rows, report.rows) == (23, 23)
    assert same(folder, made)
    assert not (folder / HOME).exists()


def test_what_is_left_of_another_pass_is_never_taken(tiny: Tiny, tmp_path: Path) -> None:
    source, folder = make_source(tmp_path / "images", 8), tmp_path / "cache"
    shard(tiny, source, folder, "1/1")
    write_prompts(source, {f"img{n:03d}": "another prompt" for n in range(8)})
    assert shard(tiny, source, folder, "1/1").parts == 0  # the plan was made before
    tiny.extract(source, folder)
    assert set(Cache(folder).text("prompt")["prompt"]) == {"another prompt"}


def test_a_new_backbone_and_new_images_come_by_shards_too(pairs: Path, tiny: Tiny, tmp_path: Path) -> None:
    source, one, two = shutil.copytree(pairs, tmp_path / "images"), tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        tiny.extract(source, folder)
    make_source(tmp_path / "more", 5, first=100)
    for path in (tmp_path / "more").glob("*.png"):
        shutil.copy(path, source)
    wanted = {"backbones": (tiny.cnn, tiny.vit)}
    run_pass(one, open_source(source), tiny.config(**wanted))
    assert shard(tiny, source, two, "1/2", **wanted).left == 2
    assert shard(tiny, source, two, "2/2", **wanted).left == 0
    finish(two, tiny.config(), Log())
    assert same(one, two)


def test_nothing_to_do_leaves_no_plan(cache: Path, pairs: Path, tiny: Tiny) -> None:
    report = shard(tiny, pairs, cache, "1/2")
    assert (report.parts, report.left) == (0, 0)
    assert not (cache / HOME).exists()


def test_shards_must_ask_for_the_same(pairs: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shard(tiny, pairs, folder, "1/3")
    with pytest.raises(UsageError, match="every shard names the same"):
        shard(tiny, pairs, folder, "2/3", backbones=(tiny.vit,))
    with pytest.raises(UsageError, match=r"a pass over .* is under way"):
        shard(tiny, make_source(tmp_path / "other", 3), folder, "2/3")
    with pytest.raises(Img2PromptError, match="precision"):
        shard(tiny, pairs, folder, "2/3", precision="bf16")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "-1/2", "a/b", "1/2/3", "٣/٤"])
def test_a_shard_is_i_of_n(text: str) -> None:
    assert parse_shard("2/8") == (2, 8)
    with pytest.raises(UsageError, match="write i/n"):
        parse_shard(text)


def test_a_damaged_plan_is_told(pairs: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shard(tiny, pairs, folder, "1/3")
    plan = folder / HOME / "plan.arrow"
    plan.write_bytes(plan.read_bytes()[:-40])
    with pytest.raises(Img2PromptError, match="is not the plan of a pass"):
        finish(folder, tiny.config())


def test_a_pass_is_not_led_out_of_the_cache_by_a_link(pairs: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    tiny.extract(pairs, folder)
    (tmp_path / "elsewhere").mkdir()
    (folder / HOME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Img2PromptError, match="is a link"):
        shard(tiny, pairs, folder, "1/2")


@pytest.mark.slow
def test_shards_of_the_command_line_start_together_and_survive_a_kill(tiny: Tiny, tmp_path: Path) -> None:
    source, folder = make_source(tmp_path / "images", 60), tmp_path / "cache"
    command = [sys.executable, "-m", "img2prompt_cache.cli", *tiny.arguments(source, folder), "--shard"]

    def start(which: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, which], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    first, second = start("1/2"), start("2/2")
    deadline = time.monotonic() + 120
    while not list(folder.glob(f"{HOME}/0*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    assert second.wait() == 0
    assert first.wait() == -signal.SIGKILL
    assert start("1/2").wait() == 0
    done = subprocess.run(
        [*command[:3], "extract", "--finish", "--json", "--cache", folder], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["rows"] == 60
    config = tiny.config(backbones=(tiny.cnn, tiny.vit), precision="auto")
    run_pass(tmp_path / "one", open_source(source), config)
    assert same(folder, tmp_path / "one")


def test_the_first_shard_waits_for_a_writer(pairs: Path, tiny: Tiny, tmp_path: Path) -> None:
    from threading import Thread

    folder, done = tmp_path / "cache", []
    with writing(folder):
        waiting = Thread(target=lambda: done.append(shard(tiny, pairs, folder, "1/1")))
        waiting.start()
        time.sleep(0.3)
        assert not done
    waiting.join()
    assert done[0].left == 0
