"""A process that is killed while it replaces a run or a file of predictions leaves the old or the new one."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from img2prompt_cache import files
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.prediction.outputs import open_writer
from img2prompt_cache.runs.folder import load_head
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.leaderboard import compare
from img2prompt_cache.runs.names import find_runs, open_run
from img2prompt_cache.runs.run import Run, load_run

CHANGES = ("rename", "replace", "unlink", "rmdir", "mkdir")


class Killed(BaseException):
    """The process ends here: nothing that it would do afterwards happens."""


@contextmanager
def killed_at(call: int) -> Iterator[list[str]]:
    """Let the process die at its `call`-th change of a name; its locks end with it. Gives what it did."""
    done: list[str] = []
    opened: set[int] = set()

    def dying(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **options: Any) -> Any:
            done.append(name)
            if len(done) > call:
                raise Killed
            return real(*arguments, **options)

        return change

    def recording(*arguments: Any, **options: Any) -> int:
        descriptor = real_open(*arguments, **options)
        opened.add(descriptor)
        return descriptor

    def closing(descriptor: int) -> None:
        opened.discard(descriptor)
        real_close(descriptor)

    real_open, real_close = os.open, os.close
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, dying(name, getattr(os, name)))
        patch.setattr(files, "exchange", dying("exchange", files.exchange))
        patch.setattr(os, "open", recording)
        patch.setattr(os, "close", closing)
        with suppress(Killed):
            yield done
    for descriptor in opened:
        with suppress(OSError):
            os.close(descriptor)


def run_of(cache: Path, alpha: float, folder: Path) -> None:
    config = FitConfig("ridge", {"alpha": alpha}, leakage_gap=False, refit=False)
    fit_head(Cache(cache), config, folder, overwrite=True)


def alpha_of(run: Run) -> float:
    """The setting of a run, all of which is read and fits together."""
    load_head(run.folder, run)
    load_validation(run.folder, run)
    return float(np.max(run.settings["alpha"]))


@pytest.fixture(params=["exchanged", "in two steps"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A system that can exchange two folders, and one that cannot."""
    for name in "ab":
        (tmp_path / "tried" / name).mkdir(parents=True)
    able = files.exchange(tmp_path / "tried" / "a", tmp_path / "tried" / "b")
    if request.param == "in two steps":
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    elif not able:
        pytest.skip("this file system cannot exchange two folders")
    return str(request.param)


LOOKS: dict[str, Callable[[Path], Run]] = {
    "by its folder": lambda run: load_run(run),
    "by its name": lambda run: open_run(run.name, run.parents[1]),
    "the newest": lambda run: open_run(None, run.parents[1]),
    "compared": lambda run: compare(run.parents[1]).best,
}


def test_a_run_is_the_old_or_the_new_one(run: Path, tmp_path: Path, system: str) -> None:
    cache = run.parents[1]
    for other in cache.glob("runs/*"):
        if other != run:
            shutil.rmtree(other)
    run_of(cache, 1.0, run)
    first = shutil.copytree(run, tmp_path / "first")
    found = []
    for call in range(100):
        shutil.rmtree(run)
        shutil.copytree(first, run)
        with killed_at(call) as done:
            run_of(cache, 2.0, run)
        if system == "exchanged":
            assert run.is_dir()
        look = list(LOOKS.values())[call % len(LOOKS)]
        found.append(alpha_of(look(run)))
        assert find_runs(cache) == [run]
        run_of(cache, 3.0, run)
        assert alpha_of(load_run(run)) == 3
        assert [path.name for path in run.parent.iterdir()] == [run.name]
        if len(done) <= call:
            break
    assert found == sorted(found)
    assert {*found} == {1, 2}


def test_what_a_live_process_has_set_aside_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".run.old").mkdir()
    held = files.lock(tmp_path / ".run.old")
    files.restore(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    os.close(held)
    files.restore_all(tmp_path)
    assert (tmp_path / "run").is_dir()
    assert not (tmp_path / ".run.old").exists()


def test_a_link_or_a_file_of_that_name_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".run.old").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".other.old").write_text("")
    files.restore_all(tmp_path)
    for odd in (Path(), Path("a\0b"), tmp_path / ("x" * 300), tmp_path / "elsewhere" / "none" / "run"):
        files.restore(odd)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.old", ".run.old", "elsewhere"]


def test_names_never_lie_beside_the_values_of_others(tmp_path: Path) -> None:
    path, beside = tmp_path / "o.npy", tmp_path / "o.ids.csv"

    def write(text: str, rows: int) -> None:
        with open_writer(path, 2, overwrite=True) as writer:
            writer.write([f"{text}{row}" for row in range(rows)], np.full((rows, 2), rows, np.float32))

    found = []
    for call in range(100):
        write("old", 3)
        with killed_at(call) as done:
            write("new", 5)
        if path.exists():
            values = np.load(path)
            with beside.open(newline="") as file:
                ids = [row["imgId"] for row in csv.DictReader(file)]
            rows = len(values)
            assert (values == rows).all()
            assert ids == [f"{'old' if rows == 3 else 'new'}{row}" for row in range(rows)]
            found.append(rows)
        else:
            found.append(4)
        write("next", 7)
        assert len(np.load(path)) == 7
        assert sorted(each.name for each in tmp_path.iterdir()) == ["o.ids.csv", "o.npy"]
        if len(done) <= call:
            break
    assert found == sorted(found)
    assert {*found} == {3, 4, 5}
