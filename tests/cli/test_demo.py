from __future__ import annotations

import csv

import pytest

from img2prompt_cache.cli.demo import _told
from synthetic import Cli


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Cli(capsys)


def test_what_is_no_demo_is_never_written_over(cli, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "prompts.csv").write_text("mine")
    for options in ([], ["--overwrite"]):
        said = cli("demo", "--dir", "mine", "--count", "50", *options)
        assert (said.code, said.out) == (2, "")
        assert said.err.splitlines()[-1].startswith("error: ")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["prompts.csv"]
    cli("demo", "--count", "49").refused(2, "'--count'")


@pytest.mark.weights
@pytest.mark.slow
def test_the_demo_runs_the_commands_it_shows(cli, tmp_path):
    said = cli("demo", "--count", "60", "--json")
    assert said.code == 0, said.err
    assert {run["head"] for run in said.json["runs"]} == {"mean", "nearest", "knn", "ridge", "mlp"}
    cosines = [run["cosine"] for run in said.json["runs"]]
    assert cosines == sorted(cosines, reverse=True)
    with (tmp_path / "demo" / "new" / "truth.csv").open(newline="") as file:
        truth = {row["imgId"]: row["prompt"] for row in csv.DictReader(file)}
    assert {row["imgId"]: row["truth"] for row in said.json["predictions"]} == truth
    assert all(len(row["prompts"]) == 3 for row in said.json["predictions"])
    if said.json["report"] is not None:  # it takes the extra `report`
        assert (tmp_path / said.json["report"]).is_file()
    for command in ("extract", "fit --head mlp", "compare", "predict"):
        assert f"$ img2prompt-cache {command} " in said.err


def test_what_the_demo_says_of_its_report_names_the_sections():
    found = {"title": "x", "checks": {}, "data": {"counts": {}}, "failed": {}, "out": "demo/report.html"}
    assert _told("report", found) == "demo/report.html: checks, data"
