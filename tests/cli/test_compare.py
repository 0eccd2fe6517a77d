from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest

from img2prompt_cache import fit
from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.runs.run import load_run
from synthetic import ONE, OTHER, Cli, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_cache(tmp_path_factory.mktemp("compare") / "cache")
    fit_head(Cache(folder), FitConfig("mean", split="random"))
    for head in ("nearest", "mean"):
        fit_head(Cache(folder), FitConfig(head, features=(ONE, OTHER) if head == "mean" else (ONE,)))
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
        assert {"r@1", "r@5", "r@10", "ci95", "floor", "leakage_gap", "difference", "parameters"} <= {*run}
        assert run["difference"] is None
        assert "by" not in run
        assert run["ci95"][0] <= run["cosine"] <= run["ci95"][1]
        kept = json.loads((folder / "runs" / run["run"].rpartition("/")[2] / "run.json").read_text())
        assert run["cosine"] == kept["metrics"]["cosine"]
        assert run["mse"] == pytest.approx(2 * (1 - run["cosine"]) / 384, abs=1e-6)
        assert run["features"] == [use["spec"] for use in kept["features"]]
    assert "left out, scored on another split or target: mean-one+other-01" in said.err


def test_people_see_a_table(cli, folder):
    lines = cli("compare", "--cache", folder).out.splitlines()
    assert lines[0].startswith("split group, seed 0: 12 rows held out of 60")
    assert re.split("  +", lines[1]) == [
        *("run", "head", "features", "cosine", "95 % interval", "mse", "R@1", "R@5", "R@10"),
        *("bank", "floor", "leakage gap", "seconds", "parameters", "rows/s"),
    ]
    assert lines[4].startswith("  few groups: the held-out rows are 4 groups of near-identical ones")
    assert [line.split()[:3] for line in lines[2:4]] == [
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


def test_a_run_that_cannot_be_read_does_not_keep_the_others_from_being_shown(cli, folder):
    broken = folder / "runs" / "broken"
    broken.mkdir()
    try:
        (broken / "run.json").write_text("{")
        said = cli("compare", "--cache", folder, "--json")
    finally:
        shutil.rmtree(broken)
    assert said.code == 0
    assert [run["head"] for run in said.json["runs"]] == ["nearest", "mean"]
    assert re.search(r"left out: .*broken/run\.json cannot be read", said.err)


def test_help_says_what_mse_means(cli):
    assert "mse = 2 (1 − cosine) / 384" in " ".join(cli("compare", "--help").out.split())


def test_against_a_run(cli, folder):
    options = ("--against", "mean-one+other-02", "--cache", folder)
    best, worst = cli("compare", *options, "--json").json["runs"]
    assert worst["difference"] is None
    low, high = best["difference"]["ci95"]
    assert low < best["difference"]["cosine"] < high
    assert best["difference"]["cosine"] == pytest.approx(best["cosine"] - worst["cosine"])
    lines = cli("compare", *options).out.splitlines()
    assert f"{best['difference']['cosine']:+.4f} ({low:.4f} to {high:.4f})" in lines[2]
    assert re.split("  +", lines[2])[6] == f"{best['difference']['p']:.4f}"
    assert re.split("  +", lines[3])[5:7] == ["–", "–"]
    assert lines[5].startswith("difference: cosine minus that of mean-one+other-02; p: of no difference")
    # Named alone it is compared with, and it decides which split counts.
    said = cli("compare", "nearest-one-01", "--against", "mean-one+other-01", "--cache", folder, "--json")
    assert [run["run"].rpartition("/")[2] for run in said.json["runs"]] == ["mean-one+other-01"]
    cli("compare", "--against", "nobody", "--cache", folder).refused(2, "unknown run 'nobody'")


def test_broken_down(cli, folder):
    said = cli("compare", "--by", "length", "--cache", folder, "--json")
    for run in said.json["runs"]:
        assert [cell["cell"] for cell in run["by"]] == ["≤5", "6–10", "11–20", "21–40", ">40"]
        assert sum(cell["n"] for cell in run["by"]) == run["n"]
        assert run["by"][0]["cosine"] == pytest.approx(run["cosine"])
        assert run["by"][1]["cosine"] is None
    lines = cli("compare", "--by", "cluster", "--cache", folder).out.splitlines()
    assert lines[6] == "cosine by cluster"
    assert lines[7].split() == ["n", "nearest-one-01", "mean-one+other-02"]
    assert re.fullmatch(r"prompt \d+ of \d+ +12 +0\.\d+ +-?0\.\d+", lines[8])
    said = cli("compare", "nearest-one-01", "--by", "size", "--cache", folder)
    said.refused(2, "unknown --by 'size'", "length", "cluster")


def test_runs_of_an_older_version_have_dashes(cli, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "cache")
    for path in (copy / "runs").iterdir():
        data = json.loads((path / "run.json").read_text())
        later = ("ci95", "r@10", "bank", "floor", "leakage_gap", "groups", "effective_groups")
        for name in (*later, "leakage_gap_ci95"):
            del data["metrics"][name]
        for name in ("parameters", "predict_rows_per_second", "fold_metrics"):
            del data[name]
        for name in ("held_digest", "folds", "contents_digest", "largest_group"):
            del data["split"][name]
        (path / "run.json").write_text(json.dumps(data))
    lines = cli("compare", "--cache", copy).out.splitlines()
    assert lines[0].startswith("split group, seed 0: 12 rows held out of 60")
    for line in lines[2:]:
        cells = re.split("  +", line)
        assert [cells[column] for column in (4, 8, 9, 10, 11, 13, 14)] == ["–"] * 7
    for run in cli("compare", "--cache", copy, "--json").json["runs"]:
        assert {run[name] for name in ("ci95", "r@10", "floor", "leakage_gap", "parameters")} == {None}
    assert cli("compare", "--against", "nearest-one-01", "--cache", copy, "--json").code == 0
    said = cli("compare", "nearest-one-01", "--by", "length", "--cache", copy)
    said.refused(1, "of an older version; fit again")


def test_runs_fitted_before_rows_were_changed_are_marked(cli, folder, tmp_path):
    folder = shutil.copytree(folder, tmp_path / "cache")
    manifest = load_manifest(folder)
    update = {"at": "2026-11-27T20:00:00+00:00", "changed": "2 images changed, 1 removed"}
    save_manifest(folder, replace(manifest, updates=(update,)))
    fit_head(Cache(folder), FitConfig("nearest", features=(ONE,)))
    said = cli("compare", "--cache", folder, "--json")
    old = "2 images changed, 1 removed (2026-11-27T20:00:00+00:00)"
    assert {run["run"].rpartition("/")[2]: run["outdated"] for run in said.json["runs"]} == {
        "nearest-one-01": old,
        "nearest-one-02": "",
        "mean-one+other-02": old,
    }
    told = f"nearest-one-01 was fitted on other rows than the cache has now: {old}; fit it again"
    assert told in said.err
    assert "nearest-one-02 was" not in said.err
    assert "mean-one+other-01 was fitted on other rows" in said.err  # of another split
    # A blend is as old as its oldest member.
    ids = [str(folder / "runs" / name) for name in ("nearest-one-01", "nearest-one-02")]
    assert fit(folder, "blend", members=ids).updates == 0
    newest = load_run(folder / "runs" / "nearest-one-02")
    assert (newest.updates, newest.outdated) == (1, "")
    assert old in load_run(ids[0])._repr_html_()
    (folder / "cache.json").write_text("{")
    assert load_run(ids[0]).outdated == ""
