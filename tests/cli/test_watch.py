"""`watch`: new images are predicted once they are complete, a line each, and a later call goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

import img2prompt_cache as ipc
from img2prompt_cache.prediction.arrivals import Arrivals
from img2prompt_cache.prediction.watch_log import WatchLog
from img2prompt_cache.runs import watch as module
from kit import paint, prompt_of
from synthetic import Cli

ONCE = ("--once", "--interval", "0.01")


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def fitted(tiny, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("watch") / "cache"
    tiny.extract(pairs, folder)
    ipc.fit(folder, "ridge", settings={"alpha": 0.1}, split="random")
    return folder


@pytest.fixture
def here(fitted, tmp_path, monkeypatch):
    shutil.copytree(fitted, tmp_path / "cache" / "default")
    (tmp_path / "inbox" / "sub").mkdir(parents=True)
    paint(tmp_path / "inbox" / "a.png", 900)
    paint(tmp_path / "inbox" / "sub" / "b.png", 901)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_images_are_predicted_as_by_predict_and_a_later_call_goes_on(cli, here):
    said = cli("watch", "inbox", "--out", "seen.jsonl", "--top-k", "2", *ONCE)
    assert said.code == 0
    assert "run ridge-" in said.err
    assert [line.split("  ")[0] for line in said.out.splitlines()] == ["a.png", "sub/b.png"]
    seen = lines(here / "seen.jsonl")
    assert [each["file"] for each in seen] == ["a.png", "sub/b.png"]
    expected = ipc.predict(None, ["inbox/a.png"], top_k=2)
    assert [each["prompt"] for each in seen[0]["prompts"]] == expected.prompts[0]
    assert seen[0]["expected"] == pytest.approx(float(expected.expected[0]), abs=1e-3)
    assert "(expected cosine " in said.out
    assert cli("watch", "inbox", "--out", "seen.jsonl", *ONCE).out == ""
    paint(here / "inbox" / "c.png", 902)
    paint(here / "inbox" / "a.png", 903, size=(50, 50))  # another image under the same name
    said = cli("watch", "inbox", "--out", "seen.jsonl", "--json", *ONCE)
    assert [json.loads(line)["file"] for line in said.out.splitlines()] == ["a.png", "c.png"]
    assert len(lines(here / "seen.jsonl")) == 4


def test_an_image_of_the_cache_and_one_that_cannot_be_used_are_told(cli, here, pairs):
    shutil.rmtree("inbox")
    (here / "inbox").mkdir()
    shutil.copy(pairs / "img004.png", "inbox/known.png")
    (here / "inbox" / "broken.png").write_bytes(b"no image")
    said = cli("watch", "inbox", "--out", "seen.jsonl", *ONCE)
    assert said.code == 0
    assert "broken.png: not an image" in said.err
    by_name = {each["file"]: each for each in lines(here / "seen.jsonl")}
    assert by_name["known.png"]["own_prompt"] == prompt_of(4)
    assert by_name["broken.png"]["reason"] == "not an image"
    assert "broken.png" not in cli("watch", "inbox", "--out", "seen.jsonl", *ONCE).err


def test_without_a_log_only_what_arrives_later_is_shown(here, monkeypatch):
    names = iter(["c.png", "d.png"])

    def arrive(seconds):
        name = next(names, None)
        if name:
            paint(here / "inbox" / name, ord(name[0]))

    monkeypatch.setattr(module.time, "sleep", arrive)
    seen = ipc.watch("inbox")
    assert [next(seen)["file"], next(seen)["file"]] == ["c.png", "d.png"]
    seen.close()


def test_a_file_counts_once_it_has_stopped_growing(tmp_path):
    arrivals = Arrivals(tmp_path, {})
    path = tmp_path / "a.png"
    assert arrivals.look() == {}
    for size in (1, 2):
        path.write_bytes(b"x" * size)
        assert arrivals.look() == {}
        assert arrivals.waiting == 1
    assert [*arrivals.look()] == ["a.png"]
    assert arrivals.look() == {}
    assert arrivals.waiting == 0
    path.write_bytes(b"xyz")
    assert arrivals.look() == {}
    path.unlink()
    assert arrivals.look() == {}
    assert arrivals.waiting == 0


def test_a_line_that_was_cut_off_is_predicted_again(cli, here):
    cli("watch", "inbox", "--out", "seen.jsonl", *ONCE)
    whole = (here / "seen.jsonl").read_bytes()
    (here / "seen.jsonl").write_bytes(whole[:-20])
    assert cli("watch", "inbox", "--out", "seen.jsonl", *ONCE).out.startswith("sub/b.png  ")
    assert [each["file"] for each in lines(here / "seen.jsonl")] == ["a.png", "sub/b.png"]


@pytest.mark.parametrize(
    "content",
    [b"mine", b"mine\n", b'{"file": "a.png"}\n', b"[1]\n", b"[" * 99_999 + b"\n", b'{"file": "x'],
)
def test_a_file_of_the_user_is_left_as_it_is(cli, here, content):
    (here / "mine.jsonl").write_bytes(content)
    cli("watch", "inbox", "--out", "mine.jsonl", *ONCE).refused(2, "--out mine.jsonl", "left as it is")
    assert (here / "mine.jsonl").read_bytes() == content


def test_two_do_not_write_one_log(cli, here):
    with WatchLog(here / "seen.jsonl"):
        cli("watch", "inbox", "--out", "seen.jsonl", *ONCE).refused(2, "written by another process")


def test_what_cannot_be_watched_is_refused(cli, here):
    cli("watch", "none").refused(2, "there is no folder none")
    cli("watch", "inbox", "--interval", "0").refused(2, "--interval")
    cli("watch", "inbox", "--run", "none", *ONCE).refused(2, "unknown run")
    cli("watch", "inbox", "--zero-shot", "--run", "x", *ONCE).refused(2, "--zero-shot takes no --run")
    shutil.rmtree("cache/default/runs")
    cli("watch", "inbox", "--cache", "cache/default", *ONCE).refused(2, "no run in", "nor is there a way")


@pytest.mark.slow
def test_ctrl_c_ends_it_and_keeps_what_was_written(here):
    command = [sys.executable, "-m", "img2prompt_cache.cli", "watch", "inbox", "--out", "seen.jsonl"]
    process = subprocess.Popen(
        [*command, "--interval", "0.05"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline().startswith("a.png  ")
        assert process.stdout.readline().startswith("sub/b.png  ")
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "what was finished is kept. Run the same command again to go on." in err
    assert len(lines(here / "seen.jsonl")) == 2


def test_looking_takes_a_small_share_of_the_time(here, monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        raise KeyboardInterrupt

    ticks = iter([0.0, 7.0])
    monkeypatch.setattr(module, "time", type("Clock", (), {"monotonic": lambda: next(ticks), "sleep": sleep}))
    with pytest.raises(KeyboardInterrupt):
        next(ipc.watch("inbox"))
    assert slept == [70.0]
