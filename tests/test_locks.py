"""Files and folders locked by one process; what killed processes left is removed, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from img2prompt_cache import locks
from img2prompt_cache.files import Replacement, write_atomically
from img2prompt_cache.locks import (
    STALE_SECONDS,
    lock,
    lock_folder,
    remove_leftovers,
    remove_old_folders,
    temporary_name,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files cannot be locked")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def age(path: Path, seconds: float) -> None:
    then = path.lstat().st_mtime - seconds
    os.utime(path, (then, then), follow_symlinks=False)


def test_a_folder_is_locked_by_one(tmp_path: Path) -> None:
    held = lock_folder(tmp_path)
    with pytest.raises(BlockingIOError):
        lock_folder(tmp_path)
    os.close(held)
    os.close(lock_folder(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_only_a_folder_is_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link", "gone"):
        with pytest.raises(OSError):
            lock_folder(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotADirectoryError):
        lock_folder(tmp_path / "pipe")


def test_a_shared_lock_keeps_out_whoever_wants_it_alone(tmp_path: Path) -> None:
    held = [lock(tmp_path, shared=True), lock(tmp_path, shared=True)]
    for each in held:
        with pytest.raises(BlockingIOError):
            lock(tmp_path)
        os.close(each)
    os.close(lock(tmp_path))


KILLED = """
import sys, time
from pathlib import Path
from img2prompt_cache.files import Replacement
with Replacement(Path(sys.argv[1]), folder=sys.argv[2] == "folder") as new:
    if sys.argv[2] == "folder":
        (new.temporary / "inner").mkdir()
        new.temporary /= "inner/file"
    new.temporary.write_text("half")
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_live_process_writes_stays_and_what_a_killed_one_wrote_goes(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, tmp_path / "run", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        (half,) = tmp_path.iterdir()
        age(half, 10 * STALE_SECONDS)
        write_atomically(tmp_path / "one", b"")
        assert names(tmp_path) == {"one", half.name}
        process.send_signal(signal.SIGKILL)
    (tmp_path / f"{half.name}-journal").touch()
    with Replacement(tmp_path / "run", folder=kind == "folder") as new:
        assert names(tmp_path) == {
            "one",
            new.temporary.name,
            *([f"{half.name}-journal"] * (kind == "folder")),
        }


def test_what_is_of_another_name_or_kind_stays(tmp_path: Path) -> None:
    others = (
        ".a.tmp",
        ".a.0badcafe.tmp",
        "a.0123456789ab.tmp",
        ".a.0123456789aG.tmp",
        ".a.0123456789ab.tmp~",
    )
    for name in others:
        (tmp_path / name).touch()
        age(tmp_path / name, 10 * STALE_SECONDS)
    (tmp_path / "victim").touch()
    link, pipe = tmp_path / temporary_name("link"), tmp_path / temporary_name("pipe")
    link.symlink_to("victim")
    os.mkfifo(pipe)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {*others, "victim", link.name, pipe.name}
    remove_leftovers(tmp_path / "none")


def test_what_another_machine_wrote_goes_only_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "0000" if locks._HOST != "0000" else "1111"
    young, old = tmp_path / f".a.{other}00000000.tmp", tmp_path / f".a.{other}11111111.tmp"
    young.touch()
    old.touch()
    age(old, STALE_SECONDS + 10)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {young.name}


def test_where_no_lock_can_tell_age_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with Replacement(tmp_path / "a") as young, Replacement(tmp_path / "b") as old:
        age(old.temporary, STALE_SECONDS + 10)
        remove_leftovers(tmp_path)
        assert names(tmp_path) == {young.temporary.name}


def test_old_folders_that_nobody_has_locked_go(tmp_path: Path) -> None:
    for name in (".fetch-old", ".fetch-locked", ".fetch-young", "models"):
        (tmp_path / name / "inner").mkdir(parents=True)
        age(tmp_path / name, 10 if name == ".fetch-young" else STALE_SECONDS + 10)
    (tmp_path / ".fetch-link").symlink_to(tmp_path / "models")
    age(tmp_path / ".fetch-link", STALE_SECONDS + 10)
    held = lock_folder(tmp_path / ".fetch-locked")
    remove_old_folders(tmp_path, ".fetch-*")
    assert names(tmp_path) == {".fetch-locked", ".fetch-young", ".fetch-link", "models"}
    assert (tmp_path / "models" / "inner").is_dir()
    os.close(held)
    remove_old_folders(tmp_path, ".fetch-*")
    assert not (tmp_path / ".fetch-locked").exists()


def test_writers_and_sweepers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            remove_leftovers(tmp_path)

    sweepers = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in sweepers:
        thread.start()
    try:
        for number in range(120):
            with Replacement(tmp_path / "a", folder=number % 2 == 0) as new:
                if number % 2 == 0:
                    (new.temporary / "x").touch()
                    continue
                new.temporary.write_text(str(number))
                new.commit()
                assert (tmp_path / "a").read_text() == str(number)
    finally:
        stop.set()
        for thread in sweepers:
            thread.join()
    assert names(tmp_path) == {"a"}


WRITES = """
import sys
from pathlib import Path
from img2prompt_cache.files import Replacement
for number in range(200):
    with Replacement(Path(sys.argv[1])) as new:
        with new.temporary.open("wb") as file:
            for _ in range(20):
                file.write(sys.argv[2].encode() * 1000)
        new.commit()
"""


def test_of_two_processes_that_write_one_file_the_last_one_wins_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_atomically(path, b"a" * 20_000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITES, path, letter]) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        data = path.read_bytes()
        assert data in (b"a" * 20_000, b"b" * 20_000)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert names(tmp_path) == {"out"}
