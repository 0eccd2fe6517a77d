"""Members of a blend by name, what a blend gains, and out-of-fold predictions as files."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.cli.run_output import source_lines
from img2prompt_cache.numerics.bootstrap import paired_difference, split_widening
from img2prompt_cache.runs.held_out import load_validation
from synthetic import ONE, OTHER, Cli, edit_run, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of two heads by folds, then newer ones on a hold-out, of one head twice."""
    folder = make_cache(tmp_path_factory.mktemp("members") / "cache")
    common = {"features": ONE, "leakage_gap": False}
    for head, settings in (("ridge", {"alpha": 1.0}), ("knn", {"k": 3, "power": 2.0}), ("mean", {})):
        ipc.fit(folder, head, settings=settings, folds=4, run=folder / "runs" / f"{head}-folds", **common)
    for name, alpha in (("old", 9.0), ("new", 1.0)):
        ipc.fit(folder, "ridge", settings={"alpha": alpha}, run=folder / "runs" / name, **common)
    return folder


def members(said) -> list[str]:
    return [each["run"] for each in said.json["members"]]


def test_a_head_stands_for_its_newest_run_on_a_split_that_all_share(cli, folder):
    said = cli("fit", "--head", "blend", "--members", "ridge,knn", "--cache", folder, "--json")
    assert members(said) == ["ridge-folds", "knn-folds"]
    assert "members: ridge is ridge-folds, knn is knn-folds" in said.err
    said = cli("fit", "--head", "blend", "--members", "ridge,old", "--cache", folder, "--json")
    assert members(said) == ["new", "old"]
    said = cli("fit", "--head", "blend", "--members", "mean-folds,ridge,knn", "--cache", folder, "--json")
    assert members(said) == ["mean-folds", "ridge-folds", "knn-folds"]
    run = ipc.fit(folder, "blend", members=["knn", ipc.Run.load(folder / "runs" / "ridge-folds")])
    assert [each["run"] for each in run.settings["members"]] == ["knn-folds", "ridge-folds"]


def test_a_head_without_a_run_there_is_refused(cli, folder):
    said = cli("fit", "--head", "blend", "--members", "ridge,mlp", "--cache", folder)
    said.refused(2, "--members: no run of mlp on one split that all of them share")
    said = cli("fit", "--head", "blend", "--members", "knn,old", "--cache", folder)
    said.refused(2, "no run of knn on the split of old")
    said = cli("fit", "--head", "blend", "--members", "knn,knn", "--cache", folder)
    said.refused(2, "is named twice")
    said = cli("fit", "--head", "blend", "--members", "knn,rigde", "--cache", folder)
    said.refused(2, "unknown run or head 'rigde'; did you mean ridge")


def test_what_a_blend_gains_on_its_best_member_is_told(cli, folder, tmp_path):
    said = cli(
        *("fit", "--head", "blend", "--members", "ridge-folds,mean-folds", "--cache", folder),
        *("--run", tmp_path / "blend"),
    )
    run = ipc.Run.load(tmp_path / "blend")
    read = [
        pd.read_csv(place / "validation.csv").set_index("imgId").sort_index()
        for place in (run.folder, folder / "runs" / "ridge-folds", folder / "runs" / "mean-folds")
    ]
    blend, best = read[0], max(read[1:], key=lambda each: each.cosine.mean())
    difference, inside = paired_difference(
        blend.cosine.to_numpy(), best.cosine.to_numpy(), blend.group.to_numpy(),
        widening=split_widening(blend.fold.to_numpy(), 60),
    )  # fmt: skip
    assert run.metrics["beyond_best"] == pytest.approx(difference, abs=1e-7)
    assert run.metrics["beyond_best_ci95"] == pytest.approx(inside, abs=1e-6)
    assert inside[0] <= 0
    assert "no better than its best member, ridge-folds, as far as these rows can tell" in said.out
    edit_run(run.folder, metrics__beyond_best=0.02, metrics__beyond_best_ci95=[0.01, 0.03])
    told = source_lines(ipc.Run.load(run.folder))[1]
    assert told == "  better than its best member, ridge-folds, by +0.0200 (0.0100 to 0.0300)"
    edit_run(run.folder, metrics__beyond_best=KeyError)
    assert len(source_lines(ipc.Run.load(run.folder))) == 1


def test_out_of_fold_predictions_are_read_by_others(cli, folder, tmp_path):
    common = ("fit", "--head", "ridge", "--alpha", "1", "--folds", "4", "--no-leakage-gap", "--cache", folder)
    for name in ("oof.parquet", "oof.csv", "oof.npy", "oof.jsonl"):
        said = cli(*common, "--run", tmp_path / "run", "--oof", tmp_path / name, "--overwrite")
        assert said.code == 0, said.err
    held = load_validation(tmp_path / "run")
    assert len(held.ids) == 60
    table = pq.read_table(tmp_path / "oof.parquet").to_pandas()
    assert table["imgId"].tolist() == held.ids
    np.testing.assert_array_equal(np.stack(table["embedding"]), held.predictions)
    wide = pd.read_csv(tmp_path / "oof.csv")
    wide[["imgId", "place"]] = wide["imgId_eId"].str.rsplit("_", n=1, expand=True)
    square = wide.assign(place=wide.place.astype(int)).pivot(index="imgId", columns="place", values="val")
    np.testing.assert_allclose(square.loc[held.ids].to_numpy(), held.predictions, atol=1e-7)
    np.testing.assert_array_equal(np.load(tmp_path / "oof.npy"), held.predictions)
    assert pd.read_csv(tmp_path / "oof.ids.csv")["imgId"].tolist() == held.ids
    lines = [json.loads(line) for line in (tmp_path / "oof.jsonl").read_text().splitlines()]
    assert [line["imgId"] for line in lines] == held.ids
    # They are what the score was taken on.
    with (tmp_path / "run" / "validation.csv").open() as file:
        cosines = [float(row["cosine"]) for row in csv.DictReader(file)]
    assert np.mean(cosines) == pytest.approx(ipc.Run.load(tmp_path / "run").metrics["cosine"])


def test_of_a_hold_out_only_that_share_is_written(cli, folder, tmp_path):
    run = ipc.fit(folder, "mean", features=OTHER, run=tmp_path / "run", oof=tmp_path / "oof.parquet")
    assert pq.read_table(tmp_path / "oof.parquet").num_rows == run.metrics["n"] == 12


def test_where_out_of_fold_predictions_may_not_go(cli, folder, tmp_path):
    common = ("fit", "--head", "mean", "--cache", folder, "--run", tmp_path / "run")
    cli(*common, "--oof", tmp_path / "oof.txt").refused(2, "--oof", "the extension must be one of .npy, .csv")
    (tmp_path / "folder").mkdir()
    cli(*common, "--oof", tmp_path / "folder").refused(2, "--oof", "would be a folder of captions")
    (tmp_path / "oof.csv").write_text("imgId,prompt\n")
    cli(*common, "--oof", tmp_path / "oof.csv").refused(2, "--oof", "exists")
    cli(*common, "--oof", tmp_path / "oof.csv", "--overwrite").refused(2, "--oof", "was not made by")
    cli(*common, "--oof", tmp_path / "o.csv", "--split-seeds", "0-1").refused(
        2, "--oof takes the predictions"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"oof.csv", "folder"}
