from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from img2prompt_cache import compare
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.progress import ignore
from img2prompt_cache.reporting.material import Material
from img2prompt_cache.reporting.report import plain, report
from img2prompt_cache.reporting.sections.heads import coverage_curves, gather, scale_of
from synthetic import SETTINGS, edit_run, make_cache
from webpages import check_page


@pytest.fixture(scope="module")
def found(fitted):
    return gather(Material.of_cache(Cache(fitted)), ignore)


def test_the_leaderboard_is_that_of_compare(found, fitted):
    board = compare(fitted, against=compare(fitted).best)
    assert [row.name for row in found.runs] == [run.name for run in board.runs]
    assert found.best == board.best.name
    for row, difference in zip(found.runs, board.differences, strict=True):
        if difference is None:
            assert row.difference is None
        else:
            assert row.difference == difference.cosine
            assert (row.difference_low, row.difference_high) == difference.ci95
            assert row.p == difference.p
    low, high = found.scale
    for row in found.runs:
        assert low < row.values["ci95_low"] <= row.values["cosine"] <= row.values["ci95_high"] < high
    assert "4.0 groups" in found.few_groups


def test_every_run_has_what_it_recorded(found):
    assert [chart.title for chart in found.losses] == ["mlp-one+other-01"]
    assert {row.head for row in found.runs} == {*SETTINGS}


def test_scores_are_broken_down(found, fitted):
    length, cluster = found.breakdowns
    assert length.runs == [row.name for row in found.runs]
    assert sum(cell.n for cell in length.cells) == sum(cell.n for cell in cluster.cells) == 12


def test_scores_by_program_are_the_means_of_their_rows(tmp_path):
    folder = make_cache(tmp_path / "cache")
    run = fit(folder, head="ridge", settings={"alpha": 1.0}, folds=3, leakage_gap=False)
    material = Material.of_cache(Cache(folder))
    material.rows.found_in[:40] = ["a1111"] * 40
    material.rows.found_in[40:] = ["comfyui"] * 20
    by = gather(material, ignore).breakdowns[-1]
    assert [(cell.name, cell.n) for cell in by.cells] == [("a1111", 40), ("comfyui", 20)]
    mean = sum(cell.n * cell.cosines[0] for cell in by.cells) / 60
    assert mean == pytest.approx(run.metrics["cosine"])


def test_blends_and_steps_are_shown(fitted, tmp_path):
    folder = shutil.copytree(fitted, tmp_path / "cache")
    members = ["ridge-one+other-01", "knn-one+other-01"]
    run = fit(folder, head="blend", members=members)
    (blend,) = gather(Material.of_cache(Cache(folder)), ignore).blends
    assert {member.name for member in blend.members} == {*members}
    assert sum(member.weight for member in blend.members) == pytest.approx(1)
    assert blend.members[0].weight >= blend.members[1].weight
    assert blend.cosine == run.metrics["cosine"]


def test_a_study_is_shown_with_or_without_runs(tmp_path):
    pytest.importorskip("optuna")
    from img2prompt_cache.tuning.tune import tune

    folder = make_cache(tmp_path / "cache")
    tune(folder, "knn", trials=3, fit=False)
    section = gather(Material.of_cache(Cache(folder)), ignore)
    (study,) = section.studies
    assert study.scored + study.pruned + study.failed == 3
    assert section.runs == []
    assert {each.setting for each in study.influence} == {*study.best}
    assert list(study.trials.curves[0].y) == sorted(study.trials.curves[0].y)


def test_a_run_without_predictions_leaves_the_leaderboard_and_a_note(fitted, tmp_path):
    folder = shutil.copytree(fitted, tmp_path / "cache")
    (folder / "runs" / "knn-one+other-01" / "validation.npy").unlink()
    section = gather(Material.of_cache(Cache(folder)), ignore)
    assert len(section.runs) == len(SETTINGS)
    assert any("not compared row by row" in line for line in section.notes)
    assert section.breakdowns == []


def test_runs_of_an_older_version_are_shown(fitted, tmp_path):
    folder = shutil.copytree(fitted, tmp_path / "cache")
    for name in ("ridge-one+other-01", "mlp-one+other-01"):
        for key in ("ci95", "floor", "effective_groups", "r@10", "leakage_gap"):
            edit_run(folder / "runs" / name, **{f"metrics__{key}": KeyError})
        edit_run(folder / "runs" / name, parameters=None, predict_rows_per_second=None)
    page = report(folder).html()
    assert "ridge-one+other-01" in page


def test_the_whole_page_of_runs_is_well_formed_and_its_data_are_json(fitted: Path):
    pytest.importorskip("html5lib")
    made = report(fitted)
    assert {*made.sections} == {"checks", "data", "map", "heads", "cases"}
    assert made.failed == {}
    check_page(made.html())
    values = made.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert plain(made.sections["heads"]) == values["heads"]


def test_expected_cosines_are_compared_with_true_ones(found, fitted):
    known = {row.run: row for row in found.expected}
    for run in compare(fitted).runs:
        error = (run.expected or {}).get("calibration_error")
        assert (run.name in known) == (error is not None)
        if error is not None:
            assert known[run.name].calibration_error == error


def test_the_rows_kept_are_drawn_by_their_share(fitted):
    from dataclasses import replace

    run = compare(fitted).best
    coverage = [
        {"min_expected": 0.1, "share": 1.0, "cosine": 0.4},
        {"min_expected": 0.5, "share": 0.2, "cosine": 0.7},
    ]
    drawn = coverage_curves([replace(run, expected={"coverage": coverage})])
    assert drawn.curves[0].x == (20.0, 100.0)
    assert drawn.curves[0].y == (0.7, 0.4)
    assert coverage_curves([replace(run, expected=None)]) is None


def test_a_run_that_somebody_wrote_by_hand_keeps_no_other_section_back(fitted, tmp_path):
    folder = shutil.copytree(fitted, tmp_path / "cache")
    edit_run(folder / "runs" / "ridge-one+other-01", settings={"weights": "what", "members": [1, 2]})
    made = report(folder)
    assert {*made.sections} == {"checks", "data", "map", "cases"}
    assert "Heads" in made.failed
    page = made.html()
    assert "<strong>Heads</strong> is left out" in page
    check_page(page)


def test_an_axis_has_room_for_everything():
    low, high = scale_of([0.2, None, 0.4])
    assert low < 0.2
    assert high > 0.4
    low, high = scale_of([0.3])
    assert low < 0.3 < high
