"""Limits of the machine: one line says what is short, and no image is blamed for it."""

from __future__ import annotations

import errno
import importlib.util
import os
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from img2prompt_cache import shortage as module
from img2prompt_cache.cli import main
from img2prompt_cache.errors import ImageError, Img2PromptError
from img2prompt_cache.shortage import shortage
from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.embedded.prompts import find_prompt
from kit import Tiny, make_source, paint
from synthetic import make_cache


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.h5"), "the disk is full (a.h5); make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a.h5"), "the disk is full (a.h5); make room"),
        (OSError("Can't write (errno = 122, error message = 'Disk quota')"), "the disk is full; make room"),
        (OSError(errno.EMFILE, "Too many open files", "b.png"), "too many open files (b.png): the limit is"),
        (OSError("unable to open (errno = 24, error message = 'Too many open')"), "too many open files: the"),
        (
            ImportError("x.so: cannot open shared object file: Too many open files"),
            "too many open files: the",
        ),
        (RuntimeError("can't start new thread"), "no more threads or processes can be started: "),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no more threads or processes"),
        (MemoryError(), "out of memory; fewer rows"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory; fewer rows"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "out of memory; fewer"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "out of memory; fewer"),
    ],
)
def test_what_is_short_is_said(error, told):
    assert shortage(error).startswith(told)
    wrapped = KeyError("x")
    wrapped.__cause__ = error
    assert shortage(wrapped) == shortage(error)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "No such file", "x"), ValueError("out of memory"), KeyError("a")]
)
def test_other_errors_are_not_shortages(error):
    assert shortage(error) == ""


def test_a_limit_is_named(monkeypatch):
    monkeypatch.setattr(module, "limit_of", {"AS": 2 << 30, "NOFILE": 40, "NPROC": 7}.get)
    assert "limited to 2,048 MiB (`ulimit -v`)" in shortage(MemoryError())
    assert "the limit is 40 files (`ulimit -n`); raise it" in shortage(OSError(errno.EMFILE, "x"))
    assert "the limit is 7 processes (`ulimit -u`)" in shortage(RuntimeError("can't start new thread"))


@pytest.mark.parametrize(
    "error",
    [
        SystemError("<function f> returned NULL without setting an exception"),
        SystemError("error return without exception set"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_what_libraries_say_where_address_space_is_limited(error, monkeypatch):
    monkeypatch.setattr(module, "limit_of", lambda name: None)
    assert shortage(error) == ""
    monkeypatch.setattr(module, "limit_of", lambda name: 5 << 30)
    assert "limited to 5,120 MiB (`ulimit -v`)" in shortage(error)


def limited(limits: dict[int, int], *arguments: str) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        for name, most in limits.items():
            resource.setrlimit(name, (most, resource.getrlimit(name)[1]))

    return subprocess.run(
        [sys.executable, "-m", "img2prompt_cache.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=limit,
    )


def test_too_little_address_space_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    folder = make_cache(tmp_path / "cache", 20)
    source = make_source(tmp_path / "images", 2)
    for memory, arguments in (
        # With so little, the linear algebra of NumPy waits for memory for ever.
        (300 << 20, ["fit", "--head", "mean", "--cache", str(folder)]),
        # With a little less than PyTorch takes, its threads now and then ended the process.
        *((memory << 20, tiny.arguments(source, tmp_path / "other")) for memory in (1024, 1465, 1514, 3071)),
    ):
        done = limited({resource.RLIMIT_AS: memory}, *arguments)
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: out of memory: address space is limited to {memory >> 20:,} MiB")
    assert limited({resource.RLIMIT_AS: 300 << 20}, "--help").returncode == 0


def test_what_needs_no_torch_runs_with_less_address_space(tmp_path: Path) -> None:
    folder = make_cache(tmp_path / "cache", 20)
    for arguments in (["info"], ["fit", "--head", "ridge"]):
        done = limited({resource.RLIMIT_AS: 2 << 30}, *arguments, "--cache", str(folder))
        assert done.returncode == 0, done.stderr
    done = limited({resource.RLIMIT_AS: 2 << 30}, "fit", "--head", "mlp", "--cache", str(folder))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: out of memory: address space is limited to 2,048")


@pytest.mark.parametrize("limit", [(3 << 30) - 1, 3 << 30, None])
def test_torch_is_imported_from_three_gib_of_address_space_on(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "limit_of", lambda name: limit)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    main._require_memory(["fit"])
    if limit == (3 << 30) - 1:
        with pytest.raises(MemoryError):
            importlib.util.find_spec("torch")
    else:
        assert importlib.util.find_spec("torch")


def test_few_open_files_are_enough_or_one_line(tmp_path: Path) -> None:
    folder = make_cache(tmp_path / "cache", 20)
    for files in (6, 40):
        done = limited(
            {resource.RLIMIT_NOFILE: files},
            "fit",
            "--head",
            "mean",
            "--cache",
            str(folder),
            "--overwrite",
            "--run",
            str(tmp_path / "r"),
        )
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr, done.stderr
        if done.returncode:
            assert done.returncode == 1
            assert "Too many open files" in done.stderr or "too many open files" in done.stderr
    assert done.returncode == 0


def test_no_image_is_blamed_for_too_many_open_files(tmp_path: Path) -> None:
    source = open_source(make_source(tmp_path / "images", 2))
    uri = source.list().table["uri"][0].as_py()
    path = paint(tmp_path / "one.png", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        for read in (lambda: source.read(uri), source.list, lambda: find_prompt(path)):
            with pytest.raises((OSError, Img2PromptError), match="Too many open files") as caught:
                read()
            assert not isinstance(caught.value, ImageError)
    finally:
        for number in opened:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert source.read(uri).startswith(b"\x89PNG")


DECODE = """
import resource, sys
from img2prompt_cache.errors import ImageError
from img2prompt_cache.images.decode import decode

data = open(sys.argv[1], "rb").read()
decode(data)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), resource.RLIM_INFINITY))
try:
    decode(data)
except ImageError as error:
    print("blamed", error)
except MemoryError:
    print("short of memory")
"""


def test_no_image_is_blamed_for_want_of_memory(tmp_path: Path) -> None:
    path = paint(tmp_path / "large.png", 1, (4000, 3000))
    done = subprocess.run(
        [sys.executable, "-c", DECODE, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "short of memory\n", done.stderr


def test_an_image_that_asks_for_too_much_is_to_blame(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from img2prompt_cache.images import decode as decoding

    def greedy(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoding, "_to_rgb", greedy)
    data = paint(tmp_path / "a.jpg", 1).read_bytes()
    with pytest.raises(ImageError, match="damaged: MemoryError"):
        decoding.decode(data)
    monkeypatch.setattr(decoding, "memory_is_short", lambda size: True)
    with pytest.raises(MemoryError):
        decoding.decode(data)
