from __future__ import annotations

import json

import pytest

from synthetic import ONE, OTHER, Cli, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from img2prompt_cache.cache import Cache
    from img2prompt_cache.fit import Choice, fit

    folder = make_cache(tmp_path_factory.mktemp("compare") / "cache")
    fit(Cache(folder), Choice("mean", split="random"))
    for head in ("nearest", "mean"):
        fit(Cache(folder), Choice(head, features=(ONE, OTHER) if head == "mean" else (ONE,)))
    return folder


def test_json_is_what_scripts_rely_on(cli, folder):
    said = cli("compare", "--cache", folder, "--json")
    assert said.code == 0
    assert list(said.json) == ["runs"]
    runs = said.json["runs"]
    assert [run["head"] for run in runs] == ["nearest", "mean"]
    assert runs[0]["cosine"] > runs[1]["cosine"]
    for run in runs:
        assert {"run", "head", "features", "cosine", "mse", "n", "seconds"} <= {*run}
        kept = json.loads((folder / "runs" / run["run"].rpartition("/")[2] / "run.json").read_text())
        assert run["cosine"] == kept["metrics"]["cosine"]
        assert run["mse"] == pytest.approx(2 * (1 - run["cosine"]) / 384, abs=1e-6)
        assert run["features"] == [use["spec"] for use in kept["features"]]
    assert "left out, scored on another split or target: mean-one+other-01" in said.err


def test_people_see_a_table(cli, folder):
    lines = cli("compare", "--cache", folder).out.splitlines()
    assert lines[0].startswith("split group, seed 0: 12 rows held out of 60")
    assert lines[1].split() == ["run", "head", "features", "cosine", "mse", "R@1", "R@5", "n", "seconds"]
    assert [line.split()[:3] for line in lines[2:]] == [
        ["nearest-one-01", "nearest", "one"],
        ["mean-one+other-02", "mean", "one+other"],
    ]


def test_runs_are_named_by_name_or_folder(cli, folder):
    one = folder / "runs" / "mean-one+other-02"
    said = cli("compare", one, "nearest-one-01", one, "--cache", folder, "--json")
    assert [run["head"] for run in said.json["runs"]] == ["nearest", "mean"]
    cli("compare", "nearest-one-02", "--cache", folder).refused(2, "unknown run", "nearest-one-01")
    cli("compare", folder, "--cache", folder).refused(2, "unknown run")


def test_a_run_of_a_newer_version(cli, folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"schema": 7}')
    cli("compare", run, "--cache", folder).refused(1, "schema 7", "Upgrade")


def test_help_says_what_mse_means(cli):
    assert "mse = 2 (1 − cosine) / 384" in " ".join(cli("compare", "--help").out.split())
