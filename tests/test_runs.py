from __future__ import annotations

import json
import math
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from img2prompt_cache.cache import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fit import Choice, fit
from img2prompt_cache.parts import hash_file
from img2prompt_cache.runs import (
    cache_of,
    claim,
    find_runs,
    load_head,
    load_run,
    load_validation,
    new_folder,
    release,
    resolve_run,
    save_run,
    short_name,
)
from synthetic import ENCODER, ONE, OTHER, make_cache

SETTINGS = {
    "mean": {},
    "nearest": {},
    "knn": {"k": 3, "power": 2.0},
    "ridge": {"alpha": 1.0},
    "mlp": {"hidden": (8,), "epochs": 2},
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A cache with a run of every head."""
    folder = make_cache(tmp_path_factory.mktemp("runs") / "cache")
    for head, settings in SETTINGS.items():
        fit(Cache(folder), Choice(head, settings))
    return folder


@pytest.fixture
def run(fitted, tmp_path):
    """A copy of the ridge run, inside its own cache."""
    copy = shutil.copytree(fitted, tmp_path / "cache")
    return copy / "runs" / "ridge-one+other-01"


def edit(folder, **values):
    """Change values of run.json; a dotted name goes into an object."""
    path = folder / "run.json"
    data = json.loads(path.read_text())
    for name, value in values.items():
        *outer, last = name.split("__")
        inner = data
        for key in outer:
            inner = inner[int(key)] if key.isdigit() else inner[key]
        if value is KeyError:
            del inner[last]
        else:
            inner[last] = value
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("head", SETTINGS)
def test_a_run_comes_back_as_it_was(fitted, tmp_path, head):
    cache = Cache(fitted)
    folder, made = fit(cache, Choice(head, SETTINGS[head], refit=False), tmp_path / "run")
    assert replace(load_run(folder), head_sha256="", settings={}) == replace(made, settings={})
    held = load_validation(folder)
    loaded = load_head(folder, load_run(folder))
    data = np.hstack([cache.values(cache.column("features", spec)) for spec in (ONE, OTHER)])
    rows = [int(name[1:]) for name in held.ids]
    np.testing.assert_array_equal(loaded.predict(data[rows]), held.predictions)
    assert held.cosine.mean() == pytest.approx(made.metrics["cosine"])
    assert len(held.groups) == made.metrics["n"] == len(rows)
    assert {path.name for path in folder.iterdir()} == {
        *("run.json", "head.safetensors", "history.csv", "validation.npy", "validation.csv")
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"schema": 2}, "has schema 2; this version reads up to 1. Upgrade"),
        ({"schema": KeyError}, "has no schema"),
        ({"schema": True}, "has no schema"),
        ({"metrics__cosine": math.nan}, "cannot be read: NaN"),
        ({"metrics__cosine": "0.5"}, "cosine is not a number"),
        ({"metrics__cosine": True}, "cosine is not a number"),
        ({"metrics__floor": "0.5"}, "floor is not a number"),
        ({"metrics__optimism": []}, "optimism is not a number"),
        ({"metrics__ci95": [0.1]}, "ci95 is not two numbers"),
        ({"metrics__ci95": [0.1, "x"]}, "ci95 is not two numbers"),
        ({"metrics__ci95": 0.1}, "ci95 is not two numbers"),
        ({"parameters": "many"}, "parameters is not a number"),
        ({"predict_rows_per_second": {}}, "predict_rows_per_second is not a number"),
        ({"fold_metrics": 3}, "fold_metrics is not a list"),
        ({"metrics__r@1": KeyError}, "does not describe a run: 'r@1'"),
        ({"metrics": []}, "metrics is not an object"),
        ({"split__digest": KeyError}, "does not describe a run"),
        ({"split__train": "40"}, "train is not a whole number"),
        ({"split__strategy": 3}, "strategy is not text"),
        ({"seconds": None}, "seconds is not a number"),
        ({"features": []}, "has no features"),
        ({"features": "timm:one"}, "has no features"),
        ({"features__0__width": 0}, "no width"),
        ({"features__0__width": KeyError}, "does not describe a run"),
        ({"features__0__shape": [23]}, "shape is not its width"),
        ({"features__0__shape": [-4, -6]}, "shape is not its width"),
        ({"features__0__shape": 24}, "does not describe a run"),
        ({"target__fingerprint": {"weights": 3}}, "not described in text"),
        ({"head": ["ridge"]}, "head is not text"),
        ({"cache": None}, "cache is not text"),
        ({"settings": None}, "settings is not an object"),
        ({"surprise": 1}, "does not describe a run"),
    ],
)
def test_a_changed_description_is_refused(run, values, words):
    edit(run, **values)
    with pytest.raises(Img2PromptError, match=words.replace("(", r"\(")) as caught:
        load_run(run)
    assert caught.value.exit_code == 1
    assert str(run / "run.json") in str(caught.value)


def test_a_run_of_an_older_version_loads(run):
    later = dict.fromkeys(("metrics__r@10", "metrics__floor", "metrics__optimism"), KeyError)
    later |= dict.fromkeys(("parameters", "predict_rows_per_second", "fold_metrics"), KeyError)
    edit(run, **later, metrics__ci95=KeyError, split__held_digest=KeyError, split__folds=KeyError)
    rows = [line.rpartition(",")[0] for line in (run / "validation.csv").read_text().splitlines()]
    assert rows[0] == "imgId,group,cosine"
    (run / "validation.csv").write_text("\n".join(rows))
    made = load_run(run)
    assert (made.parameters, made.predict_rows_per_second, made.fold_metrics) == (None, None, [])
    assert not load_validation(run, made).fold.any()
    load_head(run, made)


def test_a_run_from_before_columns_had_shapes_is_read(run):
    made = load_run(run)
    edit(run, features__0__shape=KeyError, features__1__shape=KeyError, target__shape=KeyError)
    assert load_run(run) == made
    load_head(run, made)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 100_000, '{"schema": 1}', '{"schema": 1, "features": [1]}', "\xff"]
)
def test_what_is_no_description_is_refused(run, text):
    (run / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(Img2PromptError, match=r"run\.json"):
        load_run(run)


def test_numbers_beyond_all_bounds_are_none(run):
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"n": ', '"n": 1e999, "m": '))
    with pytest.raises(Img2PromptError, match="n is not a number"):
        load_run(run)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"head": "rigde"}, "unknown head 'rigde'; did you mean ridge"),
        ({"settings__alhpa": 1}, "unknown setting"),
        ({"head": "mlp", "settings": {}}, "lacks"),
        ({"head": "mean", "settings": {}}, "lacks|values|not what was fitted"),
        ({"features__0__width": 23}, "do not fit a head fitted on 32 columns"),
        ({"target__width": 16}, "predicts 384 values, not 16"),
    ],
)
def test_a_head_that_does_not_fit_its_description_is_refused(run, values, words):
    edit(run, **values)
    with pytest.raises(Img2PromptError, match=words) as caught:
        load_head(run, load_run(run))
    assert caught.value.exit_code == 1


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
    edit(run, head_sha256=hash_file(path))
    with pytest.raises(Img2PromptError, match=r"head\.safetensors|saved head"):
        load_head(run, load_run(run))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("validation.csv", "imgId\n"),
        ("validation.csv", None),
        ("validation.npy", "x"),
        ("validation.npy", None),
    ],
)
def test_validation_predictions_that_do_not_fit_are_refused(run, file, text):
    (run / file).unlink()
    if text is not None:
        (run / file).write_text(text)
    with pytest.raises(Img2PromptError, match=r"validation predictions of .* cannot be read"):
        load_validation(run)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (r"\bi\d+(?=,)", "i999", "an imgId stands twice"),
        (r"(?<=,)0\.\d+", "0.99", "mean cosine is not the one in run.json"),
        (r"(?<=,)0\.\d+", "nan", "NaN or infinity"),
        (r"(?<=,)0\.\d+", "high", "could not convert"),
        (r"(?<=\n)i\d+,\d+", "i001,one", "invalid literal"),
        (r",0(?=\n)", ",none", "invalid literal"),
        (r",0(?=\n)", "", "NoneType"),
        (r"(?<=,)\d+(?=,)", str(10**30), "too large|too big"),
    ],
)
def test_changed_validation_rows_are_refused(run, old, new, words):
    path = run / "validation.csv"
    text = path.read_text()
    changed = re.sub(old, new, text)
    assert changed != text
    path.write_text(changed)
    with pytest.raises(Img2PromptError, match=f"validation predictions of .*({words}).*fit it again"):
        load_validation(run, load_run(run))


def test_predictions_that_were_not_scored_are_refused(run):
    made, said = load_run(run), np.load(run / "validation.npy")
    for predictions, words in [
        (said[:, :7], "not 384 wide"),
        (said[1:], "12 ids for predictions"),
        (np.full_like(said, np.nan), "NaN or infinity"),
    ]:
        np.save(run / "validation.npy", predictions)
        with pytest.raises(Img2PromptError, match=words):
            load_validation(run, made)
    np.save(run / "validation.npy", said[1:])
    rows = (run / "validation.csv").read_text().splitlines()
    (run / "validation.csv").write_text("\n".join([rows[0], *rows[2:]]))
    with pytest.raises(Img2PromptError, match=r"11 rows, run\.json says 12"):
        load_validation(run, made)


def test_an_array_of_objects_is_never_unpickled(run):
    np.save(run / "validation.npy", np.array([{"a": 1}] * 12, dtype=object), allow_pickle=True)
    with pytest.raises(Img2PromptError, match="validation predictions"):
        load_validation(run)


def test_runs_are_named_readably_and_never_twice(tmp_path):
    specs = ["timm:resnet50.a1_in1k", "timm:hf-hub:me/My Model", "open_clip:ViT-B-32/laion2b_s34b_b79k"]
    names = [new_folder(tmp_path, "ridge", specs).name for _ in range(3)]
    assert names == [f"ridge-resnet50+My-Model+ViT-B-32-{n:02d}" for n in (1, 2, 3)]
    release(tmp_path / "runs" / names[1])
    assert new_folder(tmp_path, "ridge", specs).name == names[1]
    assert len(new_folder(tmp_path, "ridge", specs * 20).name) <= 103


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("packaged:all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("timm:local-dir:/a b/c.d/", "c"),
        ("timm:x.y@v1.2", "x"),
        ("timm:hf-hub:o/n@main", "n"),
        ("timm:../..", "model"),
    ],
)
def test_short_names(spec, name):
    assert short_name(spec) == name


def test_a_folder_is_claimed_once(tmp_path):
    claim(tmp_path / "a" / "run")
    with pytest.raises(UsageError, match="exists; give --overwrite"):
        claim(tmp_path / "a" / "run")
    release(tmp_path / "a" / "run")
    claim(tmp_path / "a" / "run")


def test_only_a_run_is_overwritten(run, tmp_path):
    claim(run, overwrite=True)
    (run / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes\.txt, which is no part of a run"):
        claim(run, overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="holds file"):
        claim(tmp_path / "file", overwrite=True)
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(UsageError, match="holds link"):
        claim(tmp_path / "link", overwrite=True)
    with pytest.raises(Img2PromptError, match=r"cannot be written: (File exists|Not a directory)"):
        claim(tmp_path / "file" / "run")


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
    with pytest.raises(Img2PromptError, match="cannot be written: No space left"):
        save_run(run, made, head, [], held)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert [path.name for path in run.parent.iterdir() if path.name.startswith(".")] == []


def test_the_newest_run_is_told_by_what_it_says_not_by_its_file(run):
    folder = run.parent
    edit(folder / "knn-one+other-01", created="2999-01-01T00:00:00.000+00:00")
    for number, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        os.utime(path / "run.json", (number, number))
    (folder / ".hidden").mkdir()
    (folder / "empty").mkdir()
    (folder / "mlp-one+other-01" / "run.json").write_text("{")
    names = [path.name for path in find_runs(folder.parent)]
    assert names[0] == "mlp-one+other-01"
    assert names[-1] == "knn-one+other-01"
    assert len(names) == len(SETTINGS)
    assert find_runs(folder) == []


def test_runs_are_found_by_name_or_folder(run, tmp_path):
    assert resolve_run(run.name, run.parent.parent) == run
    assert resolve_run(str(run), tmp_path) == run
    with pytest.raises(UsageError, match="did you mean ridge-one"):
        resolve_run("rigde-one-other", run.parent.parent)
    with pytest.raises(UsageError, match="make one with"):
        resolve_run("ridge", tmp_path)
    with pytest.raises(UsageError, match="no run in"):
        load_run(tmp_path)


def test_the_cache_of_a_run_is_around_it_or_where_it_was(run, fitted, tmp_path):
    made = load_run(run)
    assert made.cache == str(fitted)
    assert made.target.spec == ENCODER
    assert cache_of(run, made) == tmp_path / "cache"
    elsewhere = tmp_path / "not" / "in" / "a-cache"
    elsewhere.parent.mkdir(parents=True)
    shutil.move(run, elsewhere)
    assert cache_of(elsewhere, made) == fitted
    assert cache_of(elsewhere, replace(made, cache=str(tmp_path / "gone"))) is None
