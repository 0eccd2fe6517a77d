"""Files that are whole or not there, whatever happens."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from img2prompt_cache import files, locks
from img2prompt_cache.files import Replacement, sync, write_atomically
from img2prompt_cache.locks import temporary_name

TAKEN = temporary_name("a")


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }


def fill(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "a").write_text(text)
    (folder / text).write_text("")


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"one")
    with Replacement(path) as new:
        new.temporary.write_text("half")
        assert path.read_text() == "one"
        new.temporary.write_text("other")
        new.commit()
        assert contents(tmp_path) == {"a": "other"}
    assert contents(tmp_path) == {"a": "other"}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for text in ("one", "two"):
        with Replacement(path, folder=True) as new:
            fill(new.temporary, text)
            new.commit()
        assert contents(tmp_path) == {"run/a": text, f"run/{text}": ""}
        assert [each.name for each in tmp_path.iterdir()] == ["run"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_the_umask_decides_who_may_read_what_a_library_made_private(umask: int, tmp_path: Path) -> None:
    def private(path: Path) -> None:  # as safetensors does: a file of mode 0600 takes the place
        path.unlink(missing_ok=True)
        path.touch(0o600)

    before = os.umask(umask)
    try:
        with Replacement(tmp_path / "run", folder=True) as new:
            (new.temporary / "inner").mkdir()
            private(new.temporary / "inner" / "head")
            (new.temporary / "plain").touch()
            new.commit()
        with Replacement(tmp_path / "index") as new:
            private(new.temporary)
            new.commit()
    finally:
        os.umask(before)
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in made} == dict.fromkeys(
        ("head", "plain", "index"), 0o666 & ~umask
    )


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_not_committed_is_removed(folder: bool, tmp_path: Path) -> None:
    with Replacement(tmp_path / "a", folder=folder) as new:
        if folder:
            fill(new.temporary, "half")
    with pytest.raises(KeyboardInterrupt), Replacement(tmp_path / "a", folder=folder):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "a", b"")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("folder", [False, True])
def test_a_temporary_name_that_is_taken_is_left_alone(
    folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.secrets, "token_hex", lambda size: TAKEN[-12:-4])
    (tmp_path / "victim").write_text("mine")
    (tmp_path / TAKEN).symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        Replacement(tmp_path / "a", folder=folder)
    assert (tmp_path / "victim").read_text() == "mine"
    assert (tmp_path / TAKEN).is_symlink()


@pytest.mark.parametrize("letter", ["a", "船"])
def test_the_longest_name_of_a_file_can_be_replaced(letter: str, tmp_path: Path) -> None:
    path = tmp_path / (letter * (255 // len(letter.encode())))
    write_atomically(path, b"x")
    with Replacement(path) as new:
        assert new.temporary.name.startswith(f".{letter * 40}.")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    with pytest.raises(OSError, match="File name too long"):
        Replacement(tmp_path / (letter * 256))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_it_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def flushing(descriptor: int) -> None:
        happened.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renaming(how: object) -> object:
        return lambda *paths, **options: (happened.append("rename"), how(*paths, **options))

    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(os, "replace", renaming(replace))
    monkeypatch.setattr(os, "rename", renaming(rename))
    write_atomically(tmp_path / "a", b"")
    folders = ["folder"] if os.name == "posix" else []
    assert happened == ["file", "rename", *folders]
    happened.clear()
    with Replacement(tmp_path / "run", folder=True) as new:
        fill(new.temporary, "one")
        new.commit()
    assert happened == ["file", "file", *folders, "rename", *folders]


def test_a_folder_inside_a_folder_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "inner", "one")
    seen: list[int] = []
    monkeypatch.setattr(os, "fsync", seen.append)
    sync(tmp_path)
    assert len(seen) == (4 if os.name == "posix" else 2)


@pytest.mark.parametrize(("folder", "exchanged"), [(False, False), (True, False), (True, True)])
def test_what_cannot_be_renamed_leaves_the_old(
    folder: bool, exchanged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    if folder:
        fill(path, "old")
    else:
        path.write_text("old")
    before = contents(tmp_path)
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if Path(source).suffix == ".tmp":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(os, "rename", fail)
    monkeypatch.setattr(files, "exchange", fail if exchanged else lambda *_: False)
    with Replacement(path, folder=folder) as new:
        if folder:
            fill(new.temporary, "new")
        with pytest.raises(OSError, match="No space"):
            new.commit()
    assert contents(tmp_path) == before
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_nothing_is_made_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "a", b"")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from img2prompt_cache.files import Replacement
with Replacement(Path(sys.argv[1])) as new:
    new.temporary.write_text("half")
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_process_leaves_the_old_file_and_a_leftover_that_the_next_one_removes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("old")
    with subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_text() == "old"
    (leftover,) = set(tmp_path.iterdir()) - {path}
    assert leftover.match(".data.csv.????????????.tmp")
    write_atomically(tmp_path / "other.csv", b"new")
    assert contents(tmp_path) == {"data.csv": "old", "other.csv": "new"}
