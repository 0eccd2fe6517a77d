from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data import clustered, purging, test_sets
from img2prompt_cache.data import kept_divisions as module
from img2prompt_cache.data.columns import choose_features
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.grouping import choose_grouping
from img2prompt_cache.data.kept_divisions import FOLDER, KeptDivisions
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.numerics import clusters
from synthetic import make_cache

SPLITS = [("group", None), ("group", 3), ("fold=theirs", None)]


@pytest.fixture(autouse=True)
def many(monkeypatch):
    """Let sets of some rows be clustered, and divisions of them be kept."""
    monkeypatch.setattr(clustered, "MOST_COMPONENTS", 100)
    monkeypatch.setattr(clusters, "PER_CLUSTER", 3)
    monkeypatch.setattr(module, "FEWEST", 50)


@pytest.fixture(params=[120, 90], ids=["clusters", "components"])
def folder(request, tmp_path):
    sets = ["theirs" if row < 10 else "ours" for row in range(request.param)]
    return make_cache(tmp_path / "cache", request.param, groups=40, fold=sets)


def split_of(folder, name="group", folds=None, threshold=None):
    cache = Cache(folder)
    data = load_dataset(cache, choose_features(cache, ()), cache.manifest.of_kind("targets")[0])
    return make_split(cache, data, name, 0.2, 0, folds, choose_grouping(cache, data, threshold))


def same(one, other):
    return (
        np.array_equal(one.fold, other.fold)
        and np.array_equal(one.groups, other.groups)
        and [each.tolist() for each in one.purges] == [each.tolist() for each in other.purges]
    )


def forbid(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("computed again")

    for place, name in ((clustered, "cluster_groups"), (clustered, "prompt_groups"), (purging, "near_held")):
        monkeypatch.setattr(place, name, fail)
    monkeypatch.setattr(test_sets, "near_held", fail)


@pytest.mark.parametrize(("name", "folds"), SPLITS)
def test_the_same_rows_are_divided_once(folder, monkeypatch, name, folds):
    first = split_of(folder, name, folds)
    assert list((folder / FOLDER).iterdir())
    with monkeypatch.context() as context:
        forbid(context)
        assert same(split_of(folder, name, folds), first)
    shutil.rmtree(folder / FOLDER)
    assert same(split_of(folder, name, folds), first)


def test_other_rows_or_settings_are_divided_anew(folder, monkeypatch):
    split_of(folder)
    forbid(monkeypatch)
    with pytest.raises(AssertionError, match="computed again"):
        split_of(folder, threshold=0.7)
    other = make_cache(folder.parent / "other", 120, groups=40, seed=1)
    shutil.copytree(folder / FOLDER, other / FOLDER)
    with pytest.raises(AssertionError, match="computed again"):
        split_of(other)


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def turn_a_bit(file):
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def name_what_is_not_there(file):
    """What anybody may have written, with a right seal: labels far out of range."""
    data = bytes([255, 255, 255, 127]) * ((file.stat().st_size - 32) // 4)
    file.write_bytes(module._seal(file, data) + data)


def make_a_folder(file):
    file.unlink()
    file.mkdir()


def link_to_what_never_ends(file):
    file.unlink()
    file.symlink_to("/dev/zero")


def make_a_pipe(file):
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    "harm", [cut, turn_a_bit, name_what_is_not_there, make_a_folder, link_to_what_never_ends, make_a_pipe]
)
def test_a_file_that_is_not_whole_is_computed_again(folder, harm):
    first = split_of(folder)
    files = sorted((folder / FOLDER).iterdir())
    for file in files:
        if harm is not name_what_is_not_there or (file.stat().st_size - 32) % 4 == 0:
            harm(file)
    found = split_of(folder)
    if harm is not name_what_is_not_there:  # that can name rows to purge
        assert same(found, first)
    assert np.array_equal(found.groups, first.groups)


def test_a_damaged_file_is_replaced(folder, monkeypatch):
    first = split_of(folder)
    for file in (folder / FOLDER).iterdir():
        turn_a_bit(file)
    split_of(folder)
    forbid(monkeypatch)
    assert same(split_of(folder), first)


def test_a_cache_that_cannot_be_written_to_keeps_nothing(folder, monkeypatch):
    def refuse(path, data):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "write_atomically", refuse)
    first = split_of(folder)
    assert not list((folder / FOLDER).iterdir())
    (folder / FOLDER).rmdir()
    (folder / FOLDER).write_text("no folder")
    assert same(split_of(folder), first)


def test_few_rows_leave_no_files(folder, monkeypatch):
    monkeypatch.setattr(module, "FEWEST", 1000)
    split_of(folder)
    assert not (folder / FOLDER).exists()


def test_the_oldest_files_make_room_and_no_other_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    (tmp_path / "notes.txt").write_text("mine")
    kept = KeptDivisions(tmp_path, "rows")
    for number in range(5):
        assert kept.labels([str(number)], 4, lambda: np.array([0, 1, 2, 3])).tolist() == [0, 1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 4
    assert (tmp_path / "notes.txt").read_text() == "mine"
    newest = kept.labels(["4"], 4, lambda: np.array([3, 3, 3, 3]))
    assert newest.tolist() == [0, 1, 2, 3]
