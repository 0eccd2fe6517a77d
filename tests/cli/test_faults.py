"""What the world does to a pass: other writers, folders that cannot be written, signals, sources that change.

Kills are drilled in `test_extract.py` and, a hundred at a time, by `benchmarks/kill_drill.py`; damage in
`test_repair.py`; full disks in `test_cli_extract.py` and `benchmarks/disk_full.py`. Decoding runs in threads,
so there is no decode worker that could be killed by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.writer import writing
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.targets import CachedTargets
from kit import Log, Tiny, make_source, paint, parts_of, run_cli

pytestmark = pytest.mark.usefixtures("no_weights")


def slow_source(folder: Path, rows: int = 3000) -> Path:
    """Many images that are all different and quickly made."""
    folder.mkdir()
    data = paint(folder.with_name("one.png"), 0, (300, 200)).read_bytes()
    for row in range(rows):
        # What follows the end of a PNG is not read, and makes it another file.
        (folder / f"{row:04d}.png").write_bytes(data + b"%d" % row)
    return folder


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "img2prompt_cache.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_of_two_writers_the_second_is_told_who_the_first_is(tiny: Tiny, tmp_path: Path) -> None:
    source = slow_source(tmp_path / "images")
    arguments = [*tiny.arguments(source, tmp_path / "cache"), "--format", "folder"]
    with start(*arguments) as first:
        wait_for(tmp_path / "cache" / "rows" / "00000.h5", first)
        for command in (arguments, ["repair", "--cache", str(tmp_path / "cache")]):
            second = run_cli(*command)
            assert second.returncode == 1
            assert f"is being written by process {first.pid} on " in second.stderr
            assert second.stderr.splitlines()[-1].endswith("wait for it to end")
        # Whoever reads does not wait.
        read = run_cli("verify", "--cache", str(tmp_path / "cache"), "--json")
        assert json.loads(read.stdout)["damaged"] == []
        assert first.poll() is None
        first.kill()


STUCK = """
import sys, time
from pathlib import Path
from img2prompt_cache.extraction import encode
from img2prompt_cache.cli import main
decode, begun = encode.decode, Path(sys.argv.pop(1))

def slow(data):
    time.sleep(60 if begun.exists() else 0)
    return decode(data)

encode.decode = slow
main.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_twice_it_leaves_at_once_and_loses_nothing(number: int, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    source = slow_source(tmp_path / "images")
    arguments = [*tiny.arguments(source, folder), "--format", "folder"]
    begun = folder / "rows" / "00001.h5"
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, begun, *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(begun, process)
        time.sleep(0.5)
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):  # a batch is in hand
            process.wait(1)
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "once more stops at once" in err
    assert "Traceback" not in err
    assert Cache(folder).verify() == []
    with writing(folder):  # the lock is free
        assert load_manifest(folder).rows >= 8


def test_a_stop_that_a_library_swallowed_is_kept_in_mind(
    pairs: Path,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from img2prompt_cache.cli import console, main
    from img2prompt_cache.extraction import encode

    decode = encode.decode

    def swallowing(data: bytes) -> object:
        console.stop.asked = True
        return decode(data)

    monkeypatch.setattr(encode, "decode", swallowing)
    assert main.run(tiny.arguments(pairs, tmp_path / "cache")) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("interrupted; what was finished is kept")


def test_an_error_that_an_interrupt_became_is_an_interrupt(
    pairs: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from img2prompt_cache.cli import console, main
    from img2prompt_cache.extraction import encode

    def failing(data: bytes) -> object:
        console.stop.asked = True
        raise RuntimeError("interrupted inside")

    monkeypatch.setattr(encode, "decode", failing)
    assert main.run(tiny.arguments(pairs, tmp_path / "cache")) == 130


UNPRIVILEGED = """
import os, sys
from img2prompt_cache.cli import main
from img2prompt_cache.extraction import extract
from img2prompt_cache.models import loader  # what the other user might not be allowed to import
import filelock, pyarrow.compute, pyarrow.parquet, timm, torch, sentence_transformers, zoneinfo
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main.run(sys.argv[1:]))
"""


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that other users may look into, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_folder_that_is_read_only(made: Path, open_path: Path) -> None:
    folder = shutil.copytree(made, open_path / "cache")
    images = make_source(open_path / "images", 6, first=50)
    (open_path / "other").mkdir()
    (open_path / "other").chmod(0o555)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = parts_of(folder)
    for command, code in (
        (["extract", images, "--cache", folder], 1),
        (["extract", images, "--cache", open_path / "other" / "new"], 1),
        (["repair", "--cache", folder], 1),
        (["verify", "--cache", folder], 0),
        (["info", "--cache", folder], 0),
    ):
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        if code:
            last = done.stderr.splitlines()[-1]
            assert last.startswith(f"error: {command[-1]} cannot be written: Permission denied")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (open_path / "other").chmod(0o755)
    assert parts_of(folder) == before


class Meddling(Log):
    """Does something to the source once the first batch is done."""

    def __init__(self, act: object) -> None:
        super().__init__()
        self.act = act

    def advance(self, rows: int) -> None:
        if not self.rows:
            self.act()
        super().advance(rows)


@pytest.mark.parametrize(
    "how", ["gone", "a folder", "a pipe", "cut", "another", "a link to nothing", "forbidden"]
)
def test_an_image_that_something_happens_to_during_the_pass(how: str, tiny: Tiny, tmp_path: Path) -> None:
    source = make_source(tmp_path / "images", 40)
    path = source / "img038.png"

    def act() -> None:
        data = path.read_bytes()
        if how == "another":
            paint(path, 77)
            return
        if how == "forbidden":
            path.chmod(0)
            return
        path.unlink()
        if how == "a folder":
            path.mkdir()
        elif how == "a pipe":
            os.mkfifo(path)
        elif how == "cut":
            path.write_bytes(data[:90])
        elif how == "a link to nothing":
            path.symlink_to("nothing")

    report = tiny.extract(source, tmp_path / "cache", Meddling(act))
    cache = Cache(tmp_path / "cache")
    fine = how == "another" or (how == "forbidden" and os.geteuid() == 0)
    assert (report.rows, report.failed) == (40, 0 if fine else 1)
    assert (cache.text("status")["status"][38] == "ok") == fine
    features = cache.values(cache.manifest.of_kind("features")[0])
    assert np.isfinite(np.delete(features, 38, 0)).all()
    assert cache.verify() == []
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    paint(path, 38)
    tiny.extract(source, tmp_path / "cache", retry_failed=True)
    assert Cache(tmp_path / "cache").text("status")["status"] == ["ok"] * 40


@pytest.mark.parametrize("name", ["rows", "features", "targets", "features/*"])
def test_a_column_that_is_a_link_is_refused(name: str, cache: Path, pairs: Path, tiny: Tiny) -> None:
    (linked,) = cache.glob(name)
    outside = cache.parent / "outside"
    linked.rename(outside)
    linked.symlink_to(outside)
    before = parts_of(outside)
    for attempt in (
        lambda: Cache(cache),
        lambda: tiny.extract(pairs, cache, backbones=(tiny.vit,)),
    ):
        with pytest.raises(Img2PromptError, match=f"{linked.name} is a link, and columns must lie in"):
            attempt()
    assert parts_of(outside) == before


def test_nothing_is_written_through_a_link(pairs: Path, cache: Path, tiny: Tiny, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "features").symlink_to(outside)
    with pytest.raises(UsageError, match=r"is not a cache and not empty \(it holds features\)"):
        tiny.extract(pairs, tmp_path / "new")
    # The folder of a column that is still to be made.
    later = tiny.vit.replace(":", "-").replace("/", "-")
    found = sorted((cache / "features").iterdir())[0].name
    assert later != found
    tiny.extract(pairs, tmp_path / "other", backbones=(tiny.vit,))
    (home,) = (tmp_path / "other" / "features").iterdir()
    (cache / "features" / home.name).symlink_to(outside)
    with pytest.raises(Img2PromptError, match="is a link"):
        tiny.extract(pairs, cache, backbones=(tiny.vit,))
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (cache / "features" / home.name).unlink()
    for name in (".writer.json", "..writer.json.tmp", ".cache.json.tmp", ".cache.h5.tmp", ".redo"):
        (cache / name).symlink_to(victim)
    tiny.extract(pairs, cache, backbones=(tiny.vit,))
    assert victim.read_text() == "mine"
    assert list(outside.iterdir()) == []


def test_targets_are_not_copied_from_a_part_that_changed(cache: Path, tiny: Tiny, pairs: Path) -> None:
    targets = Cache(cache).manifest.of_kind("targets")[0]
    path = cache / targets.parts[0].file
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    reads = CachedTargets(cache)
    assert reads.values(targets, np.array([9, 22])).shape == (2, 16)
    with pytest.raises(Img2PromptError, match=r"00000\.h5 is damaged: its bytes have changed.*repair"):
        reads.values(targets, np.array([9, 3]))
    # A part is hashed once: what happens to it later in the same pass is for `verify` to find.
    (cache / targets.parts[1].file).write_bytes((cache / targets.parts[2].file).read_bytes()[:5])
    with pytest.raises(Img2PromptError, match="does not begin as a part does"):
        reads.values(targets, np.array([9]))


def test_the_view_follows_the_manifest_after_a_crash(
    cache: Path, pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    import h5py

    view = (cache / "cache.h5").read_bytes()
    tiny.extract(pairs, cache, backbones=(tiny.vit,))
    (cache / "cache.h5").write_bytes(view)  # as it is when a crash comes before the view is built
    tiny.extract(pairs, cache)
    with h5py.File(cache / "cache.h5") as file:
        assert len(file["features"]) == 2
    (cache / "cache.h5").write_bytes(b"junk")
    tiny.extract(pairs, cache)
    with h5py.File(cache / "cache.h5") as file:
        assert len(file["features"]) == 2


FULL = """
import resource, signal, sys
from pathlib import Path
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.parts import PartFile
from img2prompt_cache.cache.virtual import build_view
folder = Path(sys.argv[1])
manifest = load_manifest(folder)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
failed = 0
try:
    build_view(folder, manifest)
except OSError:
    failed += 1
try:
    with PartFile(folder / "rows" / "00009.h5") as file:
        file.write_text("prompt", ["a boat" * 20] * 900)
        file.commit()
except OSError:
    failed += 1
sys.exit(10 + failed)
"""


@pytest.mark.parametrize("limit", [0, 700, 3000])
def test_a_full_disk_crashes_no_process_and_leaves_nothing(limit: int, cache: Path) -> None:
    """HDF5 itself ends the process, some of the time, when it cannot write."""
    before = {path.relative_to(cache): path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", FULL, cache, str(limit)], check=False, stdout=subprocess.PIPE
    )
    assert done.returncode == 12
    after = {path.relative_to(cache): path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    assert after == before
