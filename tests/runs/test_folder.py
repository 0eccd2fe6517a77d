from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from img2prompt_cache import files
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import hash_file
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.runs.folder import load_head, remove_empty, reserve, save_run
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.run import load_run
from synthetic import ONE, OTHER, SETTINGS, edit_run, make_cache


@pytest.mark.parametrize("head", SETTINGS)
def test_a_run_comes_back_as_it_was(fitted, tmp_path, head):
    cache = Cache(fitted)
    made = fit_head(cache, FitConfig(head, SETTINGS[head], refit=False), tmp_path / "run")
    assert replace(load_run(made.folder), settings={}) == replace(made, settings={})
    held = load_validation(made.folder)
    loaded = load_head(made.folder, load_run(made.folder))
    data = np.hstack([cache.values(cache.column("features", spec)) for spec in (ONE, OTHER)])
    rows = [int(name[1:]) for name in held.ids]
    np.testing.assert_array_equal(loaded.predict(data[rows]), held.predictions)
    assert held.cosine.mean() == pytest.approx(made.metrics["cosine"])
    assert len(held.groups) == made.metrics["n"] == len(rows)
    assert {path.name for path in made.folder.iterdir()} == {
        *(
            "run.json",
            "head.safetensors",
            "expected.safetensors",
            "history.csv",
            "validation.npy",
            "validation.csv",
            "rows.csv",
        )
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"head": "rigde"}, "unknown head 'rigde'; did you mean ridge"),
        ({"settings__alhpa": 1}, "unknown setting"),
        ({"head": "mlp", "settings": {}}, "lacks"),
        ({"head": "mean", "settings": {}}, "lacks|values|not what was fitted"),
        ({"features__0__width": 23, "features__0__shape": [23]}, "is expecting 32 features"),
        ({"target__width": 16, "target__shape": [16]}, "predicts 384 values, not 16"),
    ],
)
def test_a_head_that_does_not_fit_its_description_is_refused(run, values, words):
    edit_run(run, **values)
    with pytest.raises(Img2PromptError, match=words) as caught:
        load_head(run, load_run(run))
    assert caught.value.exit_code == 1


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run that has enough held-out rows to tell good predictions from bad ones."""
    folder = make_cache(tmp_path_factory.mktemp("told") / "cache", 120, groups=60)
    return fit(folder, "ridge", settings={"alpha": 1.0}, folds=2, leakage_gap=False)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_every_file_of_a_run_may_be_read_by_whom_the_umask_allows(told):
    modes = {path.name: path.stat().st_mode & 0o666 for path in told.folder.iterdir()}
    assert modes == dict.fromkeys(modes, told.folder.stat().st_mode & 0o666)


def test_what_is_expected_of_predictions_is_read_back(told):
    loaded, X = load_run(told.folder), np.zeros((2, 32), np.float32)
    assert loaded.expected == told.expected
    assert loaded.expectation.signals == tuple(told.expected["signals"])
    np.testing.assert_array_equal(loaded.predict(X).expected, told.predict(X).expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": np.full(5, -1.0)}, "a weight is below 0"),
        ({"weight": np.full(5, np.nan)}, "'weight' holds NaN or infinity"),
        ({"weight": np.zeros(4)}, r"'weight' is not of shape \(5,\)"),
        ({"low": np.full(5, 99.0)}, "a weight is below 0, or a range is empty"),
        ({"high": np.zeros(5, np.float32)}, "'high' is not of shape"),
        ({"knots": np.array([0, np.inf])}, "'knots' holds NaN or infinity"),
        ({"knots": np.zeros((6, 2))}, "'knots' is not of shape"),
        ({"knots": np.zeros(6)}, "'knots' do not rise"),
        ({"knots": np.zeros(0), "levels": np.zeros(0)}, "'knots' do not rise"),
        ({"levels": np.zeros(2)}, "'levels' is not of shape"),
        ({"levels": -np.arange(6.0)}, "'levels' are no cosines that rise"),
        ({"levels": np.arange(6.0)}, "'levels' are no cosines that rise"),
        ({"bank": np.zeros((3, 384), np.float32)}, "'bank' is no matrix of float16"),
        ({"bank": np.full((3, 384), np.nan, np.float16)}, "'bank' holds NaN or infinity"),
        ({"bank": np.zeros((3, 16), np.float16)}, "its prompts have 16 values"),
        ({"bank": np.zeros((0, 384), np.float16)}, "nearest is no signal of it"),
    ],
)
def test_an_expectation_that_does_not_fit_its_run_is_refused(told, tmp_path, change, words):
    run = shutil.copytree(told.folder, tmp_path / "run")
    path = run / "expected.safetensors"
    whole = load_file(path)
    save_file({**whole, **change}, path)
    with pytest.raises(Img2PromptError, match="is not the file that was saved with this run; fit it again"):
        load_run(run).predict(np.zeros((1, 32), np.float32))
    edit_run(run, expected__sha256=hash_file(path))
    with pytest.raises(Img2PromptError, match=f"does not fit run.json: {words}.*; fit the run again"):
        load_run(run).predict(np.zeros((1, 32), np.float32))
    path.unlink()
    with pytest.raises(Img2PromptError, match=r"expected.safetensors cannot be read: No such file"):
        load_run(run).predict(np.zeros((1, 32), np.float32))


@pytest.mark.parametrize("signals", [["norm"], ["mood", "nearest", "nearest_5", "near", "concentration"]])
def test_an_expectation_of_other_signals_is_refused(told, tmp_path, signals):
    run = shutil.copytree(told.folder, tmp_path / "run")
    edit_run(run, expected__signals=signals)
    with pytest.raises(Img2PromptError, match=r"does not fit run.json: .*; fit the run again"):
        _ = load_run(run).expectation


def test_a_run_of_an_earlier_version_says_nothing_of_what_to_expect(told, tmp_path):
    run = shutil.copytree(told.folder, tmp_path / "run")
    edit_run(run, expected=KeyError)
    (run / "expected.safetensors").unlink()
    old, X, said = load_run(run), np.zeros((2, 32), np.float32), []
    assert old.expectation is None
    found = old.predict(X, progress=said.append)
    assert found.expected is None
    assert [event.message for event in said if event.kind == "note"] == [
        "this run was fitted before runs had an expected cosine; fit it again to have it"
    ]
    with pytest.raises(UsageError, match="`min_expected`: this run was fitted before") as caught:
        old.predict(X, min_expected=0.5)
    assert caught.value.parameter == "min_expected"


def test_a_changed_head_is_refused(run):
    path = run / "head.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(Img2PromptError, match="is not the file that was saved with this run; fit it again"):
        load_head(run, load_run(run))
    path.unlink()
    with pytest.raises(Img2PromptError, match="cannot be read: No such file"):
        load_head(run, load_run(run))


@pytest.mark.parametrize("head", SETTINGS)
@pytest.mark.parametrize("damage", ["cut", "shape", "nan", "gone", "text"])
def test_a_head_whose_hash_was_forged_too_still_has_to_fit(fitted, tmp_path, head, damage):
    run = shutil.copytree(fitted / "runs" / f"{head}-one+other-01", tmp_path / "run")
    path = run / "head.safetensors"
    state = load_file(path)
    name = max(state, key=lambda key: state[key].size)
    state[name] = {
        "shape": state[name].reshape(-1)[:-1],
        "nan": np.full_like(state[name], np.nan),
    }.get(damage, state[name])
    if damage == "gone":
        del state[name]
    save_file(state, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    if damage == "text":
        path.write_bytes(b"no head at all")
    edit_run(run, head_sha256=hash_file(path))
    with pytest.raises(Img2PromptError, match=r"head\.safetensors|saved head"):
        load_head(run, load_run(run))


def test_a_folder_is_claimed_once(tmp_path):
    run = tmp_path / "a" / "run"
    with reserve(run), pytest.raises(UsageError, match="exists; give `overwrite=True`"), reserve(run):
        pass
    assert not run.exists()
    with reserve(run):
        (run / "run.json").touch()
    with pytest.raises(UsageError, match="exists; give `overwrite=True`"), reserve(run):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked")
def test_a_folder_that_a_killed_process_claimed_is_taken(tmp_path):
    code = """
import sys
from pathlib import Path
from img2prompt_cache.runs.folder import reserve
with reserve(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""
    run = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", code, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(UsageError, match="exists; give `overwrite=True`"), reserve(run):
            pass
        assert run.is_dir()
        other.kill()
    assert run.is_dir()
    with reserve(run):
        assert list(run.iterdir()) == []
    assert not run.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked")
def test_empty_folders_of_runs_go_unless_somebody_holds_them(tmp_path):
    for name in ("killed", "made"):
        (tmp_path / name).mkdir()
    (tmp_path / "made" / "run.json").touch()
    (tmp_path / "link").symlink_to(tmp_path / "killed")
    remove_empty(tmp_path / "none")
    with reserve(tmp_path / "held"):
        remove_empty(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"held", "link", "made"}


def test_where_folders_cannot_be_locked_an_empty_one_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with reserve(tmp_path / "run"), pytest.raises(UsageError, match="exists"), reserve(tmp_path / "run"):
        pass
    with reserve(tmp_path / "run"), reserve(tmp_path / "run", overwrite=True):
        pass


def test_only_a_run_is_overwritten(run, tmp_path):
    with reserve(run, overwrite=True):
        pass
    (run / "notes.txt").write_text("mine")
    with (
        pytest.raises(UsageError, match=r"holds notes\.txt, which is no part of a run"),
        reserve(run, overwrite=True),
    ):
        pass
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="holds file"), reserve(tmp_path / "file", overwrite=True):
        pass
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(UsageError, match="holds link"), reserve(tmp_path / "link", overwrite=True):
        pass
    with (
        pytest.raises(Img2PromptError, match=r"cannot be written: (File exists|Not a directory)"),
        reserve(tmp_path / "file" / "run"),
    ):
        pass


def test_a_run_that_cannot_be_written_leaves_the_old_one(run, monkeypatch):
    made = load_run(run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    head, held = load_head(run, made), load_validation(run)
    with pytest.raises(ValueError, match="JSON"):
        save_run(run, replace(made, metrics={**made.metrics, "mse": math.inf}), head, [], held)
    rename = os.rename

    def fail(source, target, **options):
        if str(source).endswith(".tmp"):
            raise OSError(28, "No space left on device")
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", fail)
    monkeypatch.setattr(files, "exchange", lambda *_: False)
    with pytest.raises(Img2PromptError, match="cannot be written: No space left"):
        save_run(run, made, head, [], held)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert [path.name for path in run.parent.iterdir() if path.name.startswith(".")] == []
