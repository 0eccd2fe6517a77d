"""Members of a blend that are outdated are fitted again as they were asked for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

import img2prompt_cache as ipc
from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.fitting.again import config_of
from synthetic import ENCODER, ONE, OTHER, Cli, edit_run, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture
def folder(tmp_path):
    """Two runs whose cache has grown from 60 to 75 rows since; its first rows are what they were."""
    folder = make_cache(tmp_path / "cache", 60)
    ipc.fit(folder, "ridge", settings={"alpha": 2.0}, features=ONE, seed=4, holdout=0.3, leakage_gap=False)
    ipc.fit(folder, "knn", settings={"k": 3}, features=(OTHER, ONE), seed=4, holdout=0.3, leakage_gap=False)
    grown = make_cache(tmp_path / "grown", 75)
    shutil.copytree(folder / "runs", grown / "runs")
    shutil.rmtree(folder)
    return grown


def test_members_on_fewer_rows_than_the_cache_has_now(cli, folder):
    arguments = ("fit", "--head", "blend", "--members", "ridge,knn", "--cache", folder)
    said = cli(*arguments)
    assert said.code == 1
    assert "--refit-members fits the members of a blend again" in said.err
    said = cli(*arguments, "--refit-members", "--json")
    assert said.code == 0, said.err
    assert [each["run"] for each in said.json["members"]] == ["ridge-one-02", "knn-other+one-02"]
    for old, new in (("ridge-one-01", "ridge-one-02"), ("knn-other+one-01", "knn-other+one-02")):
        assert f"{old} is outdated (the cache does not have the rows" in said.err
        assert f"fitted again as {new}" in said.err
        before, after = (ipc.Run.load(folder / "runs" / name) for name in (old, new))
        assert after.request == before.request
        assert [use.spec for use in after.features] == [use.spec for use in before.features]
        assert (after.split["seed"], after.rows) == (4, 75)
        assert after.split["validation"] == pytest.approx(0.3 * 75, abs=4)
    ridge = ipc.Run.load(folder / "runs" / "ridge-one-02")
    alone = ipc.fit(folder, "ridge", settings={"alpha": 2.0}, features=ONE, seed=4, holdout=0.3)
    assert ridge.metrics["cosine"] == alone.metrics["cosine"]
    # What is not outdated stays.
    said = cli(*arguments, "--refit-members", "--json", "--members", "ridge-one-02,knn")
    assert [each["run"] for each in said.json["members"]] == ["ridge-one-02", "knn-other+one-02"]
    assert "outdated" not in said.err


def test_members_whose_rows_were_replaced(cli, tmp_path):
    folder = make_cache(tmp_path / "cache", 60)
    for head in ("mean", "nearest"):
        ipc.fit(folder, head, features=ONE, folds=4, leakage_gap=False)
    update = {"at": "2026-11-27T20:00:00+00:00", "changed": "2 images changed"}
    save_manifest(folder, replace(load_manifest(folder), updates=(update,)))
    ipc.fit(folder, "nearest", features=ONE, folds=4, leakage_gap=False)
    said = cli(
        *("fit", "--head", "blend", "--members", "mean-one-01,nearest-one-02", "--refit-members"),
        *("--cache", folder, "--json"),
    )
    assert "mean-one-01 is outdated (2 images changed" in said.err
    assert [each["run"] for each in said.json["members"]] == ["mean-one-02", "nearest-one-02"]


def test_a_run_that_does_not_say_what_it_was_asked_for(cli, folder):
    edit_run(folder / "runs" / "ridge-one-01", request=KeyError)
    names = "ridge-one-01,knn-other+one-01"
    arguments = ("fit", "--head", "blend", "--members", names, "--refit-members", "--cache", folder)
    cli(*arguments).refused(2, "--refit-members: ridge-one-01 is outdated", "of an older version")
    edit_run(folder / "runs" / "ridge-one-01", request={"extra": 3, "head": "ridge"})
    cli(*arguments).refused(1, "run.json of ridge-one-01 is not what was saved")
    said = cli("fit", "--head", "ridge", "--refit-members", "--cache", folder)
    said.refused(2, "--refit-members goes with --head blend")


def test_all_that_was_asked_for_is_kept(tmp_path):
    folder = make_cache(tmp_path / "cache", 60)
    other = make_cache(tmp_path / "other", 40, seed=1)
    table = tmp_path / "rows.csv"
    table.write_text("imgId\n" + "".join(f"i{row:03d}\n" for row in range(50)))
    run = ipc.fit(
        folder, "kernel", settings={"gain": 1.0, "alpha": (0.1, 0.2)}, features=ONE, encoder=ENCODER, folds=3,
        extra=other, soften="train", train_on="first", only=table, seed=2, leakage_gap=False,
    )  # fmt: skip
    assert run.request == json.loads((run.folder / "run.json").read_text())["request"]
    config = config_of(ipc.Run.load(run.folder), "cpu")
    assert (config.head, config.folds, config.seed, config.soften) == ("kernel", 3, 2, "train")
    assert config.settings == {"gain": 1.0, "alpha": [0.1, 0.2]}
    assert (config.extra, config.only) == ((other.resolve(),), table.resolve())
    assert (config.features, config.encoder, config.device) == ((ONE,), ENCODER, "cpu")
    assert (config.train_on, config.leakage_gap, config.refit) == ("first", False, True)
    again = ipc.fit(
        folder, config.head, settings=config.settings, features=config.features, folds=3, extra=config.extra,
        soften="train", train_on="first", only=config.only, seed=2, leakage_gap=False,
    )  # fmt: skip
    assert again.metrics["cosine"] == run.metrics["cosine"]
