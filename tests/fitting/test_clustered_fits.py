"""Fits on splits of many rows, whole clusters of which are held out; here a hundred rows are many."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data import clustered
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.fitting.blend import fit_blend
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.distil import fit_distil
from img2prompt_cache.fitting.run_rows import load_rows
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.numerics import clusters
from img2prompt_cache.numerics.bootstrap import split_widening
from img2prompt_cache.progress import Event, ignore
from img2prompt_cache.reporting.case_study import CaseStudy
from img2prompt_cache.reporting.material import Material
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.leaderboard import compare
from img2prompt_cache.runs.record import same_split
from img2prompt_cache.runs.run import load_run
from img2prompt_cache.runs.used_rows import load_used_rows
from img2prompt_cache.tuning.tune import tune
from synthetic import ONE, make_cache


@pytest.fixture(autouse=True)
def many(monkeypatch):
    monkeypatch.setattr(clustered, "MOST_COMPONENTS", 100)
    monkeypatch.setattr(clustered, "MOST_HELD", 30)
    monkeypatch.setattr(clusters, "PER_CLUSTER", 2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "cache"
    return Cache(make_cache(folder, 180, groups=60, further=[int(row % 5 == 0) for row in range(180)]))


@pytest.fixture(params=[None, 3], ids=["hold-out", "folds"])
def folds(request):
    return request.param


SETTINGS = {"ridge": {"alpha": 1.0}, "mlp": {"hidden": [8], "max_epochs": 2}, "mean": {}}


def fitted(cache, tmp_path, head, folds, tell=ignore, **options):
    config = FitConfig(head, SETTINGS[head], folds=folds, **options)
    return fit_head(cache, config, tmp_path / head, tell=tell)


def test_a_fit_says_what_it_held_out_and_that_nothing_leaks(cache, tmp_path, folds):
    told: list[Event] = []
    run = fitted(cache, tmp_path, "ridge", folds, told.append, leakage_gap=True)
    held = load_validation(run.folder)
    assert len(held.ids) <= 30 * (folds or 1)
    assert run.split["clustered"]
    assert run.split["check"]["rows"] == len(held.ids) == run.split["validation"]
    assert run.split["check"]["found"] == 0
    assert run.split["purged"] > 0
    messages = "\n".join(event.message for event in told)
    assert "clusters of similar prompts are held out" in messages
    assert f"without {run.split['purged']} that are near-identical to a held-out row" in messages
    assert "pairs of prompts none is near-identical" in messages
    assert run.metrics["leakage_gap"] is not None
    assert run.rows == 180  # the saved head is fitted on all
    assert not [event for event in told if event.warning]


def test_the_split_of_a_run_is_found_again(cache, tmp_path, folds):
    run = fitted(cache, tmp_path, "ridge", folds)
    held = load_validation(run.folder)
    data, split = load_rows(cache, run, held, "")
    assert same_split(run.split, load_run(run.folder).split)
    assert len(split.purged) == run.split["purged"]
    y = np.asarray(data.y).astype(np.float64)
    assert all((y[train] @ y[held].T).max() < 0.8 for train, held in split.sides)


def test_the_split_of_a_run_on_some_rows_is_found_again(cache, tmp_path, folds):
    table = tmp_path / "only.csv"
    table.write_text("\n".join(["imgId", *(f"i{row:03d}" for row in range(20, 170))]) + "\n")
    run = fitted(cache, tmp_path, "ridge", folds, only=table)
    assert run.split["clustered"]
    data, split = load_rows(cache, run, load_validation(run.folder), "")
    assert len(data.ids) == 150
    assert len(split.purged) == run.split["purged"]


def test_blends_and_students_take_the_split_of_their_members(cache, tmp_path, folds):
    runs = [fitted(cache, tmp_path, head, folds) for head in ("ridge", "mlp", "mean")]
    blend = fit_blend(cache, runs[:2], tmp_path / "blend")
    student = fit_distil(
        cache, runs[0], tmp_path / "student", settings={"hidden": [8], "max_epochs": 2}, features=(ONE,)
    )
    for one, other in pairwise([*runs, blend, student]):
        assert same_split(one.split, other.split)
        assert one.split["purged"] == other.split["purged"]
    board = compare(cache, [run.folder for run in (*runs, blend, student)], against=runs[2].folder)
    assert len(board.runs) == 5
    assert not board.others


def test_a_search_uses_the_rows_that_are_left(cache, tmp_path):
    run = tune(cache, "ridge", trials=2, run=tmp_path / "tuned", study=tmp_path / "study.jsonl")
    assert run.split["clustered"]
    assert run.split["check"]["found"] == 0


def test_runs_of_an_earlier_version_keep_their_groups(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(clustered, "MOST_COMPONENTS", 1000)
    run = fitted(cache, tmp_path, "ridge", None)
    assert "clustered" not in run.split
    monkeypatch.setattr(clustered, "MOST_COMPONENTS", 100)
    _, split = load_rows(cache, run, load_validation(run.folder), "")
    assert not split.clustered
    assert split.straddling == 0


def test_a_report_knows_which_rows_each_fold_left_out(cache, tmp_path):
    """The nearest training prompt of a held-out row is one that its head was fitted on."""
    run = fitted(cache, tmp_path, "ridge", 3)
    data, split = load_rows(cache, run, load_validation(run.folder), "")
    used = load_used_rows(run.folder)
    assert used is not None
    assert [each.tolist() for each in used.purges] == [each.tolist() for each in split.purges]
    study = CaseStudy(Material.of_cache(cache), cache, run)
    assert study.left_out is not None
    row_of = {name: row for row, name in enumerate(data.ids)}
    sides = list(split.sides)
    for place, name in enumerate(study.ids[:20]):
        number = study.fold[place]
        assert number == split.fold[row_of[name]]
        told = study.train[(study.train_fold != number) & ~study.left_out[number]]
        assert [study.material.rows.ids[row] for row in told] == [data.ids[row] for row in sides[number][0]]


@pytest.mark.parametrize("cell", ["3", "-1", "x"])
def test_a_run_that_names_a_fold_that_it_has_not_is_damaged(cache, tmp_path, cell):
    run = fitted(cache, tmp_path, "mean", 3)
    file = run.folder / "rows.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], f"{lines[1].rpartition(',')[0]},{cell}", *lines[2:]]) + "\n")
    with pytest.raises(Img2PromptError, match=r"rows.csv cannot be read"):
        load_used_rows(run.folder)


def test_heads_by_folds_that_leave_rows_out_are_weighed_by_what_they_were_fitted_on(cache, tmp_path):
    """Intervals of differences widen by the share of the rows that each fold holds out."""
    run = fitted(cache, tmp_path, "mean", 3)
    held = load_validation(run.folder)
    data = load_dataset(cache, choose_features(cache, ()), choose_target(cache, None))
    assert 1 < split_widening(held.fold, len(data.ids)) < 1.5
