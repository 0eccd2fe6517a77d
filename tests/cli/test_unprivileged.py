"""Users who may not write, and disks that have no room: one line, exit code 1, and nothing changes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from img2prompt_cache import files
from img2prompt_cache.cli import main
from kit import parts_of
from synthetic import make_cache

NOBODY = 65534
AS_NOBODY = f"""
import os, sys
from img2prompt_cache.cli import main

warm, folder, *arguments = sys.argv[1:]
# What a command imports lies where only the owner may read: it is run once before, on a cache of its own.
main.run([*arguments, "--cache", warm])
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.stdout.flush()
print("---", flush=True)
print("---", file=sys.stderr, flush=True)
sys.exit(main.run([*arguments, "--cache", folder]))
"""
READERS = (["info"], ["compare"], ["verify"])
WRITERS = (["fit", "--head", "mean"], ["dedup"], ["repair"])


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(
    not hasattr(os, "setuid") or os.getuid() != 0, reason="only root can become somebody else"
)
@pytest.mark.parametrize("arguments", [*READERS, *WRITERS], ids=lambda arguments: arguments[0])
def test_somebody_elses_cache_is_read_and_never_written(arguments, open_folder):
    warm, folder = make_cache(open_folder / "warm", 20), make_cache(open_folder / "cache", 20)
    assert main.run(["fit", "--head", "mean", "--cache", str(folder)]) == 0
    before = sorted(path.relative_to(folder) for path in folder.rglob("*")), parts_of(folder)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, warm, folder, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    err = done.stderr.partition("---\n")[2]
    assert "Traceback" not in err
    assert "unexpected" not in err
    if arguments in READERS:
        assert (done.returncode, err) == (0, "")
        assert done.stdout.partition("---\n")[2]
    else:
        assert done.returncode == 1, done.stderr
        assert "Permission denied" in err.splitlines()[-1]
    assert (sorted(path.relative_to(folder) for path in folder.rglob("*")), parts_of(folder)) == before


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC, errno.EIO])
def test_a_run_that_finds_no_room_leaves_none(number, tmp_path, monkeypatch, capsys):
    folder = make_cache(tmp_path / "cache", 20)

    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", full)
    assert main.run(["fit", "--head", "mean", "--cache", str(folder)]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "unexpected" not in told
    assert os.strerror(number) in told or "the disk is full" in told
    assert [path for path in folder.glob("runs/*") if path.is_dir()] == []
    monkeypatch.undo()
    assert main.run(["fit", "--head", "mean", "--cache", str(folder)]) == 0


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="it is not there anyway")
def test_nothing_needs_shared_memory(tmp_path):
    """Workers are given jobs through pipes, and no loader of PyTorch is used."""
    library = Path(files.__file__).parent
    for path in library.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "shared_memory" not in text
        assert "DataLoader(" not in text
        assert "share_memory" not in text
