from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import replace

import pytest

from img2prompt_cache.errors import UsageError
from img2prompt_cache.runs.names import (
    find_runs,
    joined_name,
    new_folder,
    reserve_run,
    resolve_run,
    short_name,
)
from img2prompt_cache.runs.run import load_run
from synthetic import ENCODER, SETTINGS, edit_run


def test_runs_are_named_readably_and_never_twice(tmp_path):
    specs = ["timm:resnet50.a1_in1k", "timm:hf-hub:me/My Model", "open_clip:ViT-B-32/laion2b_s34b_b79k"]
    names = [f"ridge-resnet50+My-Model+ViT-B-32-{n:02d}" for n in (1, 2, 3)]
    with ExitStack() as stack:
        assert [new_folder(tmp_path, "ridge", specs, stack).name for _ in range(3)] == names
        assert len(new_folder(tmp_path, "ridge", specs * 20, stack).name) <= 103
        (tmp_path / "runs" / names[1] / "run.json").touch()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [names[1]]
    (tmp_path / "runs" / names[0]).mkdir()  # left by a fit that was killed
    with ExitStack() as stack:
        assert [new_folder(tmp_path, "ridge", specs, stack).name for _ in range(2)] == [names[0], names[2]]


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be locked")
def test_empty_folders_that_killed_fits_left_are_removed(tmp_path):
    (tmp_path / "runs" / "mlp-a-07").mkdir(parents=True)
    with reserve_run(None, tmp_path, "ridge", ["timm:a"]) as folder:
        assert [path.name for path in (tmp_path / "runs").iterdir()] == [folder.name] == ["ridge-a-01"]
        with reserve_run(tmp_path / "elsewhere", tmp_path, "ridge", ["timm:a"]):
            assert folder.is_dir()  # somebody holds it


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


def test_a_backbone_is_named_once_for_several_of_its_columns():
    specs = [
        "timm:resnet50.a1_in1k",
        "timm:resnet50.a1_in1k#multi",
        "timm:vit_base#k2",
        "timm:resnet50.a1_in1k#names",
    ]
    assert joined_name(specs) == f"resnet50+{short_name('timm:vit_base#k2')}"
    assert joined_name(specs[1:2]) == short_name(specs[1])


def test_the_newest_run_is_told_by_what_it_says_not_by_its_file(run):
    folder = run.parent
    edit_run(folder / "knn-one+other-01", created="2999-01-01T00:00:00.000+00:00")
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
    assert made.home == tmp_path / "cache"
    elsewhere = tmp_path / "not" / "in" / "a-cache"
    elsewhere.parent.mkdir(parents=True)
    shutil.move(run, elsewhere)
    assert replace(made, folder=elsewhere).home == fitted
    assert replace(made, folder=elsewhere, cache=str(tmp_path / "gone")).home is None
