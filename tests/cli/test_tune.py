from __future__ import annotations

import csv
import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.runs.names import find_runs
from img2prompt_cache.runs.run import load_run
from img2prompt_cache.tuning.study import reading
from synthetic import ONE, OTHER, Cli, make_cache

SLOW = {
    "lr": {"log": [1e-5, 1e-3]},
    "hidden": [[512], [256, 256]],
    "max_epochs": [30],
    "patience": [30],
}


@pytest.fixture
def folder(tmp_path):
    return make_cache(tmp_path / "cache")


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def test_json_is_what_scripts_rely_on(cli, folder):
    said = cli("tune", "--head", "knn", "--trials", "9", "--cache", folder, "--json")
    assert said.code == 0, said.err
    assert list(said.json) == ["study", "head", "trials", "best", "influence", "run"]
    assert said.json["study"] == str(folder / "studies" / "knn-one+other.db")
    assert sum(said.json["trials"].values()) == 9
    assert said.json["trials"]["scored"] >= 5
    top = said.json["best"]
    assert {*top["settings"]} == {"k", "power"}
    made = said.json["run"]
    assert made["run"] == str(folder / "runs" / "knn-one+other-01")
    kept = load_run(folder / "runs" / "knn-one+other-01")
    assert {name: kept.settings[name] for name in top["settings"]} == top["settings"]
    assert made["metrics"] == kept.metrics
    with reading(folder / "studies" / "knn-one+other.db") as study:
        scores = [trial.cosine for trial in study.trials if trial.cosine is not None]
    assert top["cosine"] == max(scores)
    assert {each["main_effect"] for each in said.json["influence"]} == {None}
    told = cli("influence", "knn-one+other", "--cache", folder, "--json")
    assert told.json["settings"] == said.json["influence"]
    assert told.json["trials"] == said.json["trials"]


def test_people_are_told_the_same(cli, folder, tmp_path):
    arguments = ("tune", "--head", "ridge", "--trials", "4", "--cache", folder, "--study", tmp_path / "s.db")
    said = cli(*arguments, "--run", tmp_path / "run", "--features", ONE)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'run'}: cosine ")
    assert lines[1] == f"{tmp_path / 's.db'}: 4 scored, 0 pruned, 0 failed"
    assert lines[2].split() == ["trial", "inner", "cosine", "seconds", "alpha"]
    scores = [float(line.split()[1]) for line in lines[3:7]]
    assert scores == sorted(scores, reverse=True)
    assert lines[7] == ""
    assert lines[8].split()[:6] == ["setting", "main", "effect", "by", "chance", "value"]
    assert [line.split()[:3] for line in lines[9:13]] == [["alpha", "–", "–"]] * 4
    assert lines[13].startswith("main effects are told from 50 trials")
    told = cli("influence", tmp_path / "s.db")
    assert told.out.splitlines() == [
        f"{tmp_path / 's.db'}: head ridge, 4 scored, 0 pruned, 0 failed",
        *lines[8:14],
    ]
    assert told.err == ""


def test_the_table_as_csv(cli, folder, tmp_path):
    cli("tune", "--head", "knn", "--trials", "8", "--no-prune", "--no-fit", "--cache", folder)
    said = cli("influence", "knn-one+other", "--cache", folder, "--out", tmp_path / "x.csv", "--json")
    with (tmp_path / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = [(each["setting"], marginal) for each in said.json["settings"] for marginal in each["marginals"]]
    assert [(row["setting"], row["value"]) for row in rows] == [(s, m["value"]) for s, m in wanted]
    assert [row["best"] for row in rows] == ["" if m["best"] is None else str(m["best"]) for _, m in wanted]
    assert sum(int(row["scored"]) for row in rows if row["setting"] == "k") == 8
    cli("influence", "knn-one+other", "--cache", folder, "--out", tmp_path / "no" / "x.csv").refused(
        1, "x.csv cannot be written"
    )


def test_without_fit_there_is_no_run(cli, folder):
    said = cli("tune", "--head", "ridge", "--trials", "2", "--no-fit", "--cache", folder, "--json")
    assert said.json["run"] is None
    assert find_runs(folder) == []


def test_the_same_command_goes_on(cli, folder):
    arguments = ("tune", "--head", "ridge", "--no-fit", "--cache", folder, "--json")
    assert cli(*arguments, "--trials", "2").json["trials"]["scored"] == 2
    assert cli(*arguments, "--trials", "3").json["trials"]["scored"] == 3


def test_every_option_reaches_the_search(cli, folder, tmp_path):
    space = tmp_path / "mine.json"
    space.write_text('{"alpha": [0.5, 2]}')
    said = cli(
        *("tune", "--head", "ridge", "--trials", "7", "--space", space, "--sampler", "tpe", "--seed", "3"),
        *("--features", OTHER, "--split", "random", "--holdout", "0.4", "--cache", folder, "--json"),
    )
    assert said.code == 0, said.err
    assert said.json["study"] == str(folder / "studies" / "ridge-other-mine.db")
    with reading(folder / "studies" / "ridge-other-mine.db") as study:
        assert {trial.settings["alpha"] for trial in study.trials} <= {0.5, 2}
        assert study.space == {"alpha": study.space["alpha"]}
        assert [use["spec"] for use in study.identity["features"]] == [OTHER]
        assert study.identity["seed"] == 3
        assert (study.identity["split"]["strategy"], study.identity["split"]["validation"]) == ("random", 24)
    kept = load_run(folder / "runs" / "ridge-other-01")
    assert kept.split["digest"] == study.identity["split"]["digest"]


def test_groups_that_straddle_the_users_own_split_are_told(cli, tmp_path):
    folder = make_cache(tmp_path / "cache", 40, fold=["val" if row < 10 else "train" for row in range(40)])
    said = cli("tune", "--head", "ridge", "--trials", "1", "--split", "fold", "--cache", folder)
    assert said.code == 0, said.err
    assert "--split fold: 10 of 20 groups of near-identical prompts" in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("tune", "--head", "mean"), 2, ["head 'mean' has nothing to search", "knn"]),
        (("tune", "--head", "ridge", "--space", "seed"), 2, ["setting 'lr' of head 'ridge'"]),
        (("tune", "--space", "sede"), 2, ["--space: there is no file sede", "seed"]),
        (("tune", "--sampler", "grid"), 2, ["unknown sampler 'grid'"]),
        (("tune", "--trials", "0"), 2, ["'--trials'"]),
        (("tune", "--features", "timm:none"), 2, ["timm:none"]),
        (("influence", "none"), 2, ["no study none", "`img2prompt-cache tune --cache "]),
    ],
)
def test_wrong_use(cli, folder, arguments, code, words):
    said = cli(*arguments, "--cache", folder)
    assert (said.code, said.out) == (code, "")
    for word in words:
        assert word in said.err
    assert not (folder / "studies").exists()


def test_another_space_is_refused(cli, folder, tmp_path):
    arguments = ("tune", "--head", "ridge", "--trials", "1", "--no-fit", "--cache", folder)
    study = ("--study", tmp_path / "s.db")
    assert cli(*arguments, *study).code == 0
    (tmp_path / "mine.json").write_text('{"alpha": [1, 2]}')
    said = cli(*arguments, *study, "--space", tmp_path / "mine.json")
    assert said.code == 2
    assert "was made with another space alpha" in said.err
    assert "name another with --study" in said.err


def test_without_optuna_it_says_what_to_install(cli, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    said = cli("tune", "--head", "ridge", "--cache", folder)
    assert said.code == 2
    assert "pip install 'img2prompt-cache[tune]'" in said.err
    cli("influence", "x", "--cache", folder).refused(2, "pip install 'img2prompt-cache[tune]'")


def finished(file):
    if not file.exists():
        return 0
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')"
        return connection.execute(query).fetchone()[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_search_that_is_stopped_loses_one_trial_at_most(cli, folder, tmp_path, number):
    space = tmp_path / "slow.json"
    space.write_text(json.dumps(SLOW))
    arguments = ["tune", "--trials", "9", "--space", space, "--no-fit", "--cache", folder, "--json"]
    file = tmp_path / "study.db"
    command = [sys.executable, "-m", "img2prompt_cache.cli", *map(str, [*arguments, "--study", file])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 90
        while finished(file) < 2:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert out == ""
    if number == signal.SIGINT:
        assert err.splitlines()[-1] == (
            "interrupted; what was finished is kept. Run the same command again to go on."
        )
    kept = finished(file)
    assert 2 <= kept < 9
    again = cli(*arguments, "--study", file)
    assert again.code == 0, again.err
    whole = cli(*arguments, "--study", tmp_path / "whole.db")
    assert sum(again.json["trials"].values()) == 9
    with reading(file) as one, reading(tmp_path / "whole.db") as other:
        assert [t.settings for t in one.trials] == [t.settings for t in other.trials]
    assert again.json["trials"] == whole.json["trials"]
    assert again.json["best"]["settings"] == whole.json["best"]["settings"]


def test_a_test_set_is_held_out_from_the_search(cli, tmp_path, monkeypatch):
    sets = ["external" if row % 20 in (0, 1, 2) and row >= 20 else "own" for row in range(60)]
    cache = make_cache(tmp_path / "cache", fold=sets)
    tried = []
    validate = Ridge.validate

    def looking(self, X, y, held, **more):
        tried.append((X, y, held))
        return validate(self, X, y, held, **more)

    monkeypatch.setattr(Ridge, "validate", looking)
    command = ("tune", "--head", "ridge", "--trials", "2", "--cache", cache)
    said = cli(*command, "--test", "fold=external", "--run", tmp_path / "run", "--json")
    assert said.code == 0, said.err
    assert "test set fold=external: 6 rows; searched on 51 others, without 3 that are near" in said.err
    assert "test set fold=external: 6 rows; fitted on 51 others, without 3 that are near" in said.err
    run = ipc.Run.load(tmp_path / "run")
    assert (run.split["strategy"], run.metrics["n"], run.refit) == ("fold=external", 6, False)
    opened = ipc.Cache(cache)
    data = load_dataset(opened, choose_features(opened, ()), choose_target(opened, None))
    near = {row % 20 for row, name in enumerate(sets) if name == "external"}
    inside = [row for row in range(60) if row % 20 not in near]
    assert len(inside) == 51
    for X, y, held in tried:
        np.testing.assert_array_equal(X, data.X[inside])
        np.testing.assert_array_equal(y, data.y[inside])
        np.testing.assert_array_equal(np.sum(held, axis=0), 1)
    wanted = cli(
        *("fit", "--head", "ridge", "--alpha", said.json["best"]["settings"]["alpha"]),
        *("--test", "fold=external", "--cache", cache, "--json"),
    )
    assert wanted.json["metrics"] == said.json["run"]["metrics"]
    for more in (("--split", "group"), ("--holdout", "0.2")):
        cli(*command, "--test", "fold=external", *more).refused(2, f"leave out {more[0]}")
    cli(*command, "--test", "external").refused(2, "--test names a column and a value")
    cli(*command, "--test", "fold=none").refused(2, "--test: no usable row has fold=none")
    with pytest.raises(ipc.UsageError, match="leave out `holdout`"):
        ipc.tune(cache, "ridge", test="fold=external", holdout=0.3)
