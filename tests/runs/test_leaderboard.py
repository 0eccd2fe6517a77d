from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.numerics.bootstrap import interval
from img2prompt_cache.runs.entries import Entry
from img2prompt_cache.runs.held_out import cosines_of, load_validation
from img2prompt_cache.runs.leaderboard import compare
from img2prompt_cache.runs.left_out import why_left_out
from img2prompt_cache.runs.run import load_run
from synthetic import make_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(make_cache(tmp_path_factory.mktemp("compare") / "cache"))


@pytest.fixture(scope="module")
def grouped(cache):
    return [fit_head(cache, FitConfig(head)).folder for head in ("mean", "nearest")]


def test_best_first_and_only_what_was_scored_on_the_same_rows(cache, grouped, tmp_path):
    leaking = fit_head(cache, FitConfig("mean", split="random"), tmp_path / "random").folder
    seeded = fit_head(cache, FitConfig("mean", seed=1), tmp_path / "seeded").folder
    newest = fit_head(cache, FitConfig("ridge", {"alpha": 1.0}), tmp_path / "newest").folder
    board = compare(cache, [newest, leaking, *grouped, seeded, newest.parent / "." / "newest"])
    scores = [run.metrics["cosine"] for run in board.runs]
    assert scores == sorted(scores, reverse=True)
    assert {run.folder for run in board.runs} == {newest, *grouped}
    assert {run.folder for run in board.others} == {leaking, seeded}
    assert board.reasons == {leaking: "split random, not group", seeded: "split seed 1, not 0"}
    assert [[run.folder for run in runs] for runs in board.left_out.values()] == [[leaking], [seeded]]
    assert board.split["strategy"] == "group"
    assert [run.folder for run in compare(cache, [leaking]).runs] == [leaking]


def test_why_a_run_is_left_out(cache, grouped, tmp_path):
    run = load_run(grouped[0])
    wanted = Entry((run,))

    def why(**split):
        return why_left_out(Entry((replace(run, split={**run.split, "digest": "other", **split}),)), wanted)

    assert why(strategy="random") == "split random, not group"
    assert why(seed=3) == "split seed 3, not 0"
    assert why(folds=5) == "by 5 folds, not by one hold-out"
    assert why(train=28).startswith("scored on 40 rows, not 60: the cache has other rows since")
    assert "found by st:other from 0.8 on, not by st:some" in why(group_encoder="st:other")
    assert why(train=47, validation=13) == "13 rows held out, not 12"
    assert why().startswith("as many rows, but other ones")
    target = replace(run.target, spec="st:other", fingerprint={"weights": "others"})
    assert why_left_out(Entry((replace(run, target=target),)), wanted).startswith("predicts st:other, not st")


def test_another_target_is_another_contest(cache, grouped, tmp_path):
    other = fit_head(cache, FitConfig("mean"), tmp_path / "other").folder
    data = json.loads((other / "run.json").read_text())
    data["target"]["fingerprint"]["weights"] = "others"
    (other / "run.json").write_text(json.dumps(data))
    board = compare(cache, [*grouped, other])
    assert [run.folder for run in board.runs] == [other]
    assert [run.folder for run in board.others] == grouped


def test_another_content_of_the_training_rows_is_another_contest(grouped, tmp_path):
    folder = shutil.copytree(grouped[0].parents[1], tmp_path / "cache")
    path = folder / "runs" / "other" / "run.json"
    shutil.copytree(grouped[0], path.parent)
    record = json.loads(path.read_text())
    names = {run.name for run in (load_run(grouped[0]), load_run(grouped[1]))}

    def ranked(**change):
        path.write_text(json.dumps({**record, "split": {**record["split"], **change}}))
        return {run.name for run in compare(folder, against=grouped[0].name).runs}

    assert ranked() == {*names, "other"}
    assert ranked(contents_digest="0" * 64) == names
    # A run of an older version has only the digest of what it held out.
    del record["split"]["contents_digest"]
    assert ranked() == {*names, "other"}
    assert ranked(digest="0" * 64) == names


def test_how_many_groups_the_intervals_rest_on_is_told(cache, grouped):
    board = compare(cache, grouped)
    assert board.effective_groups == load_run(grouped[0]).metrics["effective_groups"] == 4
    assert board.title == "split group, seed 0: 12 rows held out of 60, like 4.0 equal groups"


def test_nothing_to_compare(cache, grouped, tmp_path):
    with pytest.raises(UsageError, match="no cache in"):
        compare(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(Img2PromptError, match="does not describe a run"):
        compare(cache, [*grouped, tmp_path / "run"])


def test_the_run_compared_against_says_which_contest_it_is(cache, grouped, tmp_path):
    leaking = fit_head(cache, FitConfig("mean", split="random"), tmp_path / "random").folder
    board = compare(cache, [leaking, grouped[0]], grouped[1])
    assert {run.folder for run in board.runs} == {*grouped}
    assert [run.folder for run in board.others] == [leaking]
    assert [run.folder for run in compare(tmp_path / "none", against=leaking).runs] == [leaking]


def test_differences_are_paired_by_row_whatever_the_order(cache, grouped):
    best, worst = (run.folder for run in compare(cache, grouped).runs)
    one, other = load_validation(best), load_validation(worst)
    rows = (worst / "validation.csv").read_text().splitlines()
    (worst / "validation.csv").write_text("\n".join([rows[0], *rows[:0:-1]]))
    np.save(worst / "validation.npy", other.predictions[::-1])
    none, found = compare(cache, grouped, best).differences
    assert none is None
    assert found.cosine == pytest.approx((other.cosine - one.cosine).mean())
    low, high = interval(other.cosine - one.cosine, one.groups)
    wider = np.sqrt(1 + 12 / 48)
    assert found.ci95 == pytest.approx([found.cosine + wider * (end - found.cosine) for end in (low, high)])
    assert 0 <= found.p <= 1
    assert found.ci95[0] < found.cosine < found.ci95[1]
    turned, none = compare(cache, grouped, worst).differences
    assert turned.cosine == pytest.approx(-found.cosine)


def test_predictions_of_other_rows_are_no_pair(cache, grouped, tmp_path):
    run = fit_head(cache, FitConfig("ridge", {"alpha": 1.0}), tmp_path / "run")
    held = load_validation(run.folder)
    assert cosines_of(run.folder, run, held.ids[::-1]).tolist() == held.cosine[::-1].tolist()
    text = (run.folder / "validation.csv").read_text()
    (run.folder / "validation.csv").write_text(text.replace(held.ids[0], "other"))
    with pytest.raises(Img2PromptError, match="are of other rows than its split held out; fit it again"):
        compare(cache, [run.folder, *grouped], grouped[0])
    (run.folder / "validation.csv").write_text(text.replace("0.", "0.9"))
    with pytest.raises(Img2PromptError, match=r"mean cosine is not the one in run\.json"):
        compare(cache, [run.folder, *grouped], grouped[0])


def test_runs_of_folds_are_a_contest_of_their_own(cache, grouped, tmp_path):
    folds = [
        fit_head(cache, FitConfig(head, folds=4), tmp_path / head).folder for head in ("mean", "nearest")
    ]
    board = compare(cache, [*grouped, *folds])
    assert {run.folder for run in board.runs} == {*folds}
    assert load_run(folds[0]).split["folds"] == board.split["folds"] == 4
    none, found = sorted(compare(cache, folds, folds[0]).differences, key=lambda each: each is not None)
    assert none is None
    one, other = (load_validation(folder) for folder in folds)
    difference = other.cosine - one.cosine
    low, high = interval(difference, one.groups)
    assert found.ci95 == pytest.approx(
        [found.cosine + np.sqrt(1 + 4 / 3) * (end - found.cosine) for end in (low, high)]
    )
