from __future__ import annotations

import csv

import pytest

from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.run import load_run
from synthetic import ONE, OTHER, Cli, make_cache


@pytest.fixture
def folder(tmp_path):
    return make_cache(tmp_path / "cache", failed=[8])


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def test_dedup_then_fit_on_what_is_kept(cli, folder, tmp_path):
    said = cli("dedup", "--cache", folder, "--features", OTHER, "--json")
    assert (said.code, said.err) == (0, "")
    # 59 good rows in 20 groups of prompts; the features of OTHER are noise.
    assert said.json == {
        "out": str(folder / "dedup.csv"),
        "threshold": 0.9,
        "features": OTHER,
        "rows": 60,
        "good": 59,
        "kept": said.json["kept"],
        "similar_prompts": 39,
        "similar_images": said.json["similar_images"],
        "identical_images": 0,
    }
    with (folder / "dedup.csv").open(newline="") as file:
        kept = [row["imgId"] for row in csv.DictReader(file) if row["keep"] == "1"]
    assert len(kept) == said.json["kept"] <= 20
    options = ("--cache", folder, "--head", "mean", "--folds", "4", "--run", tmp_path / "run")
    assert cli("fit", *options, "--only", folder / "dedup.csv").code == 0
    held = load_validation(tmp_path / "run")
    assert held.ids == kept
    assert load_run(tmp_path / "run").rows == len(kept)
    cli("fit", *options[:-1], tmp_path / "all")
    digests = {load_run(tmp_path / name).split["digest"] for name in ("run", "all")}
    assert len(digests) == 2


def test_people_are_told_and_nothing_is_replaced_unasked(cli, folder, tmp_path):
    out = tmp_path / "x.csv"
    options = ("--cache", folder, "--out", out)
    said = cli("dedup", *options)
    assert said.out.startswith(f"{out}: 20 of 59 good rows kept; 39 rows repeat an earlier prompt, ")
    cli("dedup", *options).refused(2, "exists; give --overwrite")
    assert cli("dedup", *options, "--overwrite", "--threshold", "1").out.startswith(f"{out}: 59 of 59")


def test_wrong_use(cli, folder, tmp_path):
    cli("dedup", "--cache", folder, "--threshold", "0").refused(2, "--threshold")
    cli("dedup", "--cache", folder, "--features", "timm:none").refused(2, "did you mean timm:one")
    cli("dedup", "--cache", folder, "--out", tmp_path / "no" / "x.csv").refused(1, "cannot be written")
    assert not (folder / "dedup.csv").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("imgId\ni001\nzz\nyy\n", ("--only names 2 imgIds", "first 'yy'")),
        ("imgId\ni008\n", ("--only names no usable row",)),
        ("imgId\ni001\n", ("cannot hold out rows of 1",)),
        ("id\ni001\n", ("needs one column imgId",)),
    ],
)
def test_selections_that_do_not_fit_the_cache(cli, folder, tmp_path, text, words):
    (tmp_path / "x.csv").write_text(text)
    said = cli("fit", "--cache", folder, "--features", ONE, "--head", "mean", "--only", tmp_path / "x.csv")
    said.refused(2, *words)
    assert list((folder / "runs").iterdir()) == []
