"""One writer at a time, whatever happens to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from img2prompt_cache.cache.manifest import Column, Manifest, Part
from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.writer import commit, find_writer, open_manifest, writing
from img2prompt_cache.errors import Img2PromptError, UsageError

HOLD = """
import sys, time
from pathlib import Path
from img2prompt_cache.cache.writer import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_holds_the_lock_until_the_holder_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        told = rf"is being written by process {holder.pid} on {socket.gethostname()} since 20.*; wait for it"
        assert f"process {holder.pid} on" in str(find_writer(tmp_path))
        for _ in range(2):
            with pytest.raises(Img2PromptError, match=told), writing(tmp_path):
                pass
        (tmp_path / ".writer.json").write_text("{")
        with pytest.raises(Img2PromptError, match="written by another process"), writing(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (tmp_path / ".writer.json").exists()
    assert find_writer(tmp_path) is None
    assert find_writer(tmp_path / "none") is None
    with writing(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / ".writer.json").read_text()
    assert not (tmp_path / ".writer.json").exists()


def test_the_same_process_cannot_write_twice_at_once(tmp_path: Path) -> None:
    with writing(tmp_path):
        with pytest.raises(Img2PromptError, match=f"process {os.getpid()}"), writing(tmp_path):
            pass
        assert (tmp_path / ".writer.json").exists()


def test_the_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "new" / "cache"):
        raise KeyboardInterrupt
    with writing(tmp_path / "new" / "cache"):
        pass


@contextmanager
def writing_in_vain(folder: Path) -> Iterator[None]:
    with suppress(KeyboardInterrupt), writing(folder):
        yield
        raise KeyboardInterrupt


def test_the_folder_of_a_cache_that_did_not_come_to_be_is_removed(tmp_path: Path) -> None:
    with writing_in_vain(tmp_path / "new" / "cache"):
        pass
    assert list(tmp_path.iterdir()) == []
    for name in ("mine", "empty"):
        (tmp_path / name).mkdir()  # but not one that was there before
    with writing_in_vain(tmp_path / "mine" / "cache"):
        (tmp_path / "mine" / "notes.txt").touch()
    with writing_in_vain(tmp_path / "empty"):
        pass
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert (tmp_path / "empty").is_dir()


def test_whoever_waits_for_a_cache_that_did_not_come_to_be_makes_it(tmp_path: Path) -> None:
    folder, begun = tmp_path / "new" / "cache", threading.Event()

    def wait() -> None:
        begun.set()
        with writing(folder, wait=True):
            save_manifest(folder, Manifest(8, 4, (Column("rows", "", "rows", (), "text", {}),)))

    waiting = threading.Thread(target=wait)
    with writing_in_vain(folder):
        waiting.start()
        begun.wait()
        time.sleep(0.2)  # so that it mostly waits for the lock; the outcome is the same where it does not
    waiting.join(60)
    assert open_manifest(folder) is not None
    assert (folder / ".lock").exists()


def test_leftovers_of_a_crash_are_removed_and_nothing_else(cache: Path) -> None:
    features = Cache(cache).manifest.columns[1].folder
    leftovers = [
        cache / name
        for name in (".cache.json.tmp", ".cache.h5.tmp", "rows/.00003.h5.tmp", f"{features}/.00003.h5.tmp")
    ]
    run = cache / "runs" / "ridge"
    run.mkdir(parents=True)
    others = [run / ".head.tmp", cache / "runs" / ".mlp.0badcafe.tmp", cache / "rows" / "00099.h5"]
    for path in (*leftovers, *others):
        path.write_bytes(b"half")
    (cache / ".run.0badcafe.tmp").mkdir()
    others.append(cache / ".run.0badcafe.tmp")
    with writing(cache):
        assert not any(path.exists() for path in leftovers)
    assert all(path.exists() for path in others)
    assert Cache(cache).verify() == []


def test_a_folder_that_is_no_cache_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(UsageError, match=r"is not a cache and not empty \(it holds photo\.png\)"):
        writing(tmp_path).__enter__()
    assert [entry.name for entry in tmp_path.iterdir()] == ["photo.png"]
    with pytest.raises(UsageError, match=r"photo\.png is a file; `cache` names a folder"):
        writing(tmp_path / "photo.png").__enter__()
    with pytest.raises(Img2PromptError, match=r"cannot be written: Not a directory"):
        writing(tmp_path / "photo.png" / "cache").__enter__()


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(Img2PromptError, match="/proc/none cannot be written"):
        writing(Path("/proc/none")).__enter__()


def test_what_an_interrupted_first_pass_left_is_ours(tmp_path: Path) -> None:
    for name in ("rows", "features", ".gitignore", ".lock"):
        (tmp_path / name).mkdir() if "." not in name else (tmp_path / name).touch()
    with writing(tmp_path):
        assert open_manifest(tmp_path) is None


def test_parts_are_recorded_in_their_order(tmp_path: Path) -> None:
    rows = Column("rows", "", "rows", (), "text", {})
    features = Column("features", "timm:a", "features/timm-a", (2,), "float16", {"weights": "1"})
    manifest = Manifest(8, 4, (rows,), ({"root": "x"},))

    def part(column: Column, number: int, sha256: str = "0" * 64) -> tuple[Column, Part]:
        return column, Part(f"{column.folder}/{number:05d}.h5", 8 * number, 8 * number + 8, 100, sha256)

    manifest = commit(tmp_path, manifest, [part(rows, 0), part(features, 0), part(rows, 1)])
    manifest = commit(tmp_path, manifest, [part(features, 1)])
    manifest = commit(tmp_path, manifest, [part(features, 0, "1" * 64)])
    assert load_manifest(tmp_path) == open_manifest(tmp_path) == manifest
    assert [p.sha256[0] for p in manifest.columns[1].parts] == ["1", "0"]
    assert (manifest.rows, [c.rows for c in manifest.columns]) == (16, [16, 16])
