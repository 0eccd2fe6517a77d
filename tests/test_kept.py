"""Caches, runs and studies that commit faa44d7 wrote stay readable; see `fixtures/make_faa44d7.py`."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from kit import paint
from synthetic import Cli

ARCHIVE = Path(__file__).parent / "fixtures" / "faa44d7.tar.gz"
MOST_BYTES = 200_000

RESNET, VIT = "timm:local-dir:models/resnet", "timm:local-dir:models/vit"
CLIP, ENCODER = "open_clip:local-dir:models/clip", "st:local-dir:models/encoder"
COLUMNS = {
    ("rows", "rows"): [30],
    ("features", RESNET): [30, 4],
    ("features", CLIP): [30, 8],
    ("features", VIT): [30, 8],
    ("features", f"{VIT}#levels"): [30, 48],
    ("trunk", f"{VIT}#k2"): [30, 5, 8],
    ("trunk", f"{VIT}#k2-int8"): [30, 5, 8],
    ("views", f"{VIT}#v2f"): [30, 2, 8],
    ("views", f"{VIT}#k2-v2f"): [30, 2, 5, 8],
    ("targets", ENCODER): [30, 8],
    ("targets", CLIP): [30, 8],
}
HELD_OUT = {  # runs by name: their heads; each scored on one hold-out
    **{name: name for name in ("mean", "nearest", "knn", "clip", "ridge", "kernel", "linear", "mlp")},
    **{name: name for name in ("wide-mlp", "seed-resnet50", "seed-vit", "seed-tuned-resnet", "finetune")},
    "finetune-int8": "finetune",
    "blend": "blend",
}
IN_FOLDS = {"folds": "ridge", "distil": "distil"}
RUNS = HELD_OUT | IN_FOLDS
IDS = [f"img{number:02d}" for number in range(29)]
"""Rows that are predicted for; a 30th image cannot be read, and the 29th has no prompt."""


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """A folder with `cache`, `images`, `models`, `study.db` and `predictions.npz`, as the current folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path / "faa44d7")
    return tmp_path / "faa44d7"


@pytest.fixture
def cli(kept, capsys) -> Cli:
    return Cli(capsys)


def ran(said):
    assert said.code == 0, said.err
    return said.json


def read_ids() -> list[str]:
    """Check the form of the predictions in `out.npy`, and give the ids that stand beside them."""
    vectors = np.load("out.npy")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    with Path("out.ids.csv").open(newline="") as file:
        ids = [row["imgId"] for row in csv.DictReader(file)]
    assert vectors.shape == (len(ids), 8)
    return ids


def furthest(name: str) -> float:
    """Give 1 − the smallest cosine between `out.npy` and what faa44d7 predicted."""
    with np.load("predictions.npz") as expected:
        return float(1 - (np.load("out.npy").astype(float) * expected[name]).sum(axis=1).min())


def test_the_archive_is_small_and_holds_a_run_of_every_head_of_its_time(kept):
    assert ARCHIVE.stat().st_size < MOST_BYTES
    heads = {
        path.parent.name: json.loads(path.read_text())["head"] for path in kept.glob("cache/runs/*/run.json")
    }
    assert heads == RUNS
    with np.load("predictions.npz") as expected:
        assert {name: expected[name].shape for name in expected} == dict.fromkeys(RUNS, (29, 8))
        distinct = {np.round(expected[name], 4).tobytes() for name in expected}
    assert len(distinct) == len(RUNS)


def test_info_tells_what_it_holds(cli):
    told = ran(cli("info", "--cache", "cache", "--json"))
    assert (told["rows"], told["ok"], told["failed"]) == (30, 29, 1)
    assert {(column["kind"], column["name"]): column["shape"] for column in told["columns"]} == COLUMNS


def test_verify_finds_no_damage(cli):
    told = ran(cli("verify", "--cache", "cache", "--json"))
    assert not told.get("damaged")
    part = Path("cache/features/timm-local-dir-models-vit/00000.h5")
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    assert cli("verify", "--cache", "cache").code == 1


@pytest.mark.parametrize("names", [HELD_OUT, IN_FOLDS])
def test_compare_lists_its_runs(cli, names):
    chosen = list(names) if names is IN_FOLDS else []
    rows = {
        Path(row["run"]).name: row
        for row in ran(cli("compare", *chosen, "--cache", "cache", "--json"))["runs"]
    }
    assert {name: row["head"] for name, row in rows.items()} == names
    for name, row in rows.items():
        metrics = json.loads(Path("cache/runs", name, "run.json").read_text())["metrics"]
        leakage_gap = row["leakage_gap"] if "leakage_gap" in row else row["optimism"]
        assert leakage_gap == metrics["optimism"]
        assert [row[key] for key in ("cosine", "mse", "ci95", "floor", "r@1", "n")] == [
            metrics[key] for key in ("cosine", "mse", "ci95", "floor", "r@1", "n")
        ]
    if names is HELD_OUT:
        against = ran(cli("compare", "--against", "mean", "--by", "length", "--cache", "cache", "--json"))
        assert len(against["runs"]) == len(HELD_OUT)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_predicts_the_same_from_cached_features(cli, name):
    told = ran(cli("predict", "cache", "--cache", "cache", "--run", name, "--out", "out.npy", "--json"))
    assert (told["head"], told["rows"], list(told["bad"])) == (RUNS[name], 29, ["img29"])
    assert read_ids() == IDS
    assert furthest(name) < 1e-5


@pytest.mark.parametrize("name", RUNS)
def test_a_run_predicts_the_same_from_images(cli, name):
    told = ran(cli("predict", "images", "--cache", "cache", "--run", name, "--out", "out.npy", "--json"))
    assert list(told["bad"]) == ["img29"]
    assert read_ids() == IDS
    assert furthest(name) < 1e-3  # another processor may round a feature to the float16 next to it


def test_prompts_are_found_among_those_cached_and_in_a_file(cli):
    row = "images/img28.png"
    cached = ran(cli("predict", "--cache", "cache", "--run", "ridge", "--json"))["predictions"]
    assert [each["imgId"] for each in cached] == ["img28"]  # the row that has no prompt
    found = ran(cli("predict", row, "--cache", "cache", "--run", "ridge", "--json"))["predictions"]
    assert [prompt["prompt"] for prompt in found[0]["prompts"]] == [
        prompt["prompt"] for prompt in cached[0]["prompts"]
    ]
    Path("bank.txt").write_text("red boat, sea, pixel art\ngreen castle, forest, oil painting\n")
    bank = ran(cli("predict", row, "--cache", "cache", "--run", "ridge", "--bank", "bank.txt", "--json"))
    assert {each["prompt"] for each in bank["predictions"][0]["prompts"]} == {
        "red boat, sea, pixel art",
        "green castle, forest, oil painting",
    }


def test_extraction_goes_on(cli, kept):
    parts = {path: path.read_bytes() for path in kept.glob("cache/*/*/*.h5") if "runs" not in path.parts}
    assert len(parts) == len(COLUMNS) - 1
    told = ran(cli("extract", "images", "--cache", "cache", "--json"))
    assert (told["rows"], told["new"]) == (30, 0)
    paint(kept / "images" / "img30.png", 30)
    with Path("images/prompts.csv").open("a") as file:
        file.write('img30,"white owl, city, watercolour"\n')
    told = ran(cli("extract", "images", "--cache", "cache", "--json"))
    assert (told["rows"], told["new"]) == (31, 1)
    assert {path: path.read_bytes() for path in parts} == parts
    shapes = {
        (c["kind"], c["name"]): c["shape"] for c in ran(cli("info", "--cache", "cache", "--json"))["columns"]
    }
    assert shapes == {key: [31, *shape[1:]] for key, shape in COLUMNS.items()}
    assert cli("verify", "--cache", "cache").code == 0
    ran(cli("predict", "cache", "--cache", "cache", "--run", "blend", "--out", "out.npy", "--json"))
    assert read_ids() == [*IDS, "img30"]


def test_runs_are_blended_and_taught_from(cli):
    blend = ("--members", "ridge,kernel,finetune", "--run", "cache/runs/new")
    made = ran(cli("fit", "--head", "blend", *blend, "--cache", "cache", "--json"))
    assert made["head"] == "blend"
    student = ("--features", VIT, "--hidden", 4, "--epochs", 1)
    made = ran(cli("fit", "--head", "distil", "--teacher", "mlp", *student, "--cache", "cache", "--json"))
    assert made["head"] == "distil"


def test_a_study_can_be_read_but_does_not_go_on(cli):
    """It was searched on rows that are held out now: a hold-out was drawn in another way then."""
    pytest.importorskip("optuna", reason="needs the extra: pip install 'img2prompt-cache[tune]'")
    told = ran(cli("influence", "study.db", "--cache", "cache", "--json"))
    assert told["trials"] == {"scored": 3, "pruned": 0, "failed": 0}
    (alpha,) = told["settings"]
    assert alpha["setting"] == "alpha"
    assert max(value["best"] for value in alpha["marginals"]) == pytest.approx(-0.31504710583367185, abs=1e-6)
    options = ("--head", "ridge", "--features", RESNET, "--cache", "cache", "--study", "study.db")
    said = cli("tune", *options, "--trials", 4)
    assert said.code == 2
    assert "was made with another split digest" in said.err
    assert "name another with --study" in said.err


def test_a_source_that_tells_what_found_its_prompts_is_added(cli, kept):
    """The cache is older than the column `found_in`, which the new source has."""
    before = Cache(kept / "cache").text("imgId", "prompt")
    beside = kept / "beside"
    beside.mkdir()
    for number, name in enumerate(("x1", "x2")):
        paint(beside / f"{name}.png", 60 + number)
        (beside / f"{name}.txt").write_text(f"white owl, city, number {number}")
    told = ran(cli("extract", "beside", "--cache", "cache", "--dry-run", "--json"))
    assert (told["rows"], told["new"], told["readers"]) == (32, 2, {"text": 2})
    told = ran(cli("extract", "beside", "--cache", "cache", "--json"))
    assert (told["rows"], told["new"]) == (32, 2)
    cache = Cache(kept / "cache")
    after = cache.text("imgId", "prompt")
    assert {name: values[:30] for name, values in after.items()} == before
    assert after["prompt"][30:] == ["white owl, city, number 0", "white owl, city, number 1"]
    assert cache.text("found_in")["found_in"][30:] == ["text", "text"]
    assert cli("verify", "--cache", "cache").code == 0
    assert ran(cli("extract", "beside", "--cache", "cache", "--json"))["new"] == 0


@pytest.mark.parametrize("name", ["blend", "finetune-int8"])
def test_a_bundle_of_a_run_predicts_without_its_cache_and_models(cli, kept, name):
    before = ran(cli("predict", "images", "--run", name, "--cache", "cache", "--top-k", "2", "--json"))
    ran(cli("bundle", name, "--cache", "cache", "--out", "bundled", "--json"))
    for folder in ("cache", "models"):
        (kept / folder).rename(kept / f"{folder}-gone")
    found = ran(cli("predict", "images", "--run", "bundled", "--top-k", "2", "--json"))
    left_out = ("own_prompt",)  # a bundle holds no images
    assert [{k: v for k, v in one.items() if k not in left_out} for one in found["predictions"]] == [
        {k: v for k, v in one.items() if k not in left_out} for one in before["predictions"]
    ]
