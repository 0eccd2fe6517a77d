"""Several prompts of an image, and several images of a prompt, through seeds, tables, files and blends."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.runs.held_out import load_validation
from synthetic import ENCODER, ONE, Cli, make_cache

ROWS = 60


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cache in which three images at a time share a prompt, and every other one has two further prompts."""
    folder = make_cache(
        tmp_path_factory.mktemp("several") / "cache", ROWS, further=[2 * (row % 2) for row in range(ROWS)]
    )
    common = {"folds": 4, "features": ONE, "leakage_gap": False}
    ipc.fit(folder, "ridge", settings={"alpha": 1.0}, run=folder / "runs" / "line", **common)
    ipc.fit(folder, "mean", run=folder / "runs" / "mean", train_on="first", **common)
    return folder


def truths(folder) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By id, the embedding of the first prompt, and the mean of those of all."""
    cache = ipc.Cache(folder)
    first = cache.values(cache.column("targets", ENCODER))
    more = cache.values(cache.column("more_targets", ENCODER))
    names = cache.text("imgId")["imgId"]
    means = [
        np.vstack([one[None], others[np.isfinite(others).all(1)]]).mean(0)
        for one, others in zip(first, more, strict=True)
    ]
    return dict(zip(names, first, strict=True)), dict(zip(names, means, strict=True))


def cosines(vectors, truth) -> np.ndarray:
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = truth / np.linalg.norm(truth, axis=1, keepdims=True)
    return (vectors * truth).sum(1)


def test_seeds_and_tables_have_both_scores(cli, folder, tmp_path):
    options = ("--hidden", "8", "--epochs", "2", "--folds", "4", "--features", ONE, "--no-leakage-gap")
    said = cli(
        *("fit", "--head", "mlp", "--seeds", "0-1", *options, "--cache", folder, "--json"),
        *("--run", folder / "runs" / "net"),
    )
    runs = [ipc.Run.load(each["run"]) for each in said.json["runs"]]
    first, means = truths(folder)
    record = ipc.compare(folder, ["net", "line"], against="line").records()
    net = next(each for each in record if each["run"] == "net")
    held = [load_validation(run.folder) for run in runs]
    on_first = [
        cosines(each.predictions, np.stack([first[name] for name in each.ids])).mean() for each in held
    ]
    on_means = [
        cosines(each.predictions, np.stack([means[name] for name in each.ids])).mean() for each in held
    ]
    assert net["cosine"] == pytest.approx(np.mean(on_first), abs=1e-6)
    assert net["cosine_mean_prompt"] == pytest.approx(np.mean(on_means), abs=1e-6)
    assert (net["n"], net["groups"]) == (ROWS, 20)
    text = cli("compare", "net", "line", "--cache", folder, "--format", "md").out
    assert "cosine of means" in text.splitlines()[0]


def test_files_have_one_row_for_each_image(cli, folder, tmp_path):
    for name in ("oof.parquet", "oof.csv"):
        said = cli(
            *("fit", "--head", "ridge", "--alpha", "1", "--folds", "4", "--features", ONE, "--cache", folder),
            *("--run", tmp_path / "run", "--oof", tmp_path / name, "--overwrite"),
        )
        assert said.code == 0, said.err
    assert pq.read_table(tmp_path / "oof.parquet")["imgId"].to_pylist() == [
        f"i{row:03d}" for row in range(ROWS)
    ]
    assert len(pd.read_csv(tmp_path / "oof.csv")) == ROWS * 384


def test_blends_with_other_programs_keep_groups_and_both_scores(cli, folder, tmp_path):
    first, means = truths(folder)
    rng = np.random.default_rng(7)
    names = [*first]
    vectors = np.stack([first[name] for name in names]) + 0.09 * rng.normal(size=(ROWS, 384))
    oof = tmp_path / "oof.parquet"
    pq.write_table(pa.table({"imgId": names, "embedding": list(vectors.astype(np.float32))}), oof)
    said = cli(
        *("fit", "--head", "blend", "--members", f"ridge,theirs={oof}", "--cache", folder, "--json"),
        *("--run", tmp_path / "run", "--refit-members"),
    )
    assert said.code == 0, said.err
    run, held = ipc.Run.load(tmp_path / "run"), load_validation(tmp_path / "run")
    wanted = np.stack([means[name] for name in held.ids])
    found = cosines(held.predictions, wanted).mean()
    assert run.metrics["cosine_mean_prompt"] == pytest.approx(found, abs=1e-6)
    assert said.json["members"][1]["cosine"] == pytest.approx(
        cosines(vectors, np.stack([*first.values()])).mean()
    )
    assert (run.metrics["groups"], run.metrics["n"]) == (20, ROWS)
    fold_of = pd.DataFrame({"group": held.groups, "fold": held.fold}).groupby("group").fold.nunique()
    assert fold_of.max() == 1


def test_members_fitted_on_means_and_on_first_prompts_are_blended_and_fitted_again(cli, folder, tmp_path):
    run = ipc.fit(folder, "blend", members=["line", "mean"], run=tmp_path / "run")
    assert run.metrics["nested"] == 0  # they were not fitted on the same targets
    grown = make_cache(tmp_path / "grown", ROWS + 15, further=[2 * (row % 2) for row in range(ROWS + 15)])
    for name, train_on in (("a", "mean"), ("b", "first")):
        ipc.fit(
            folder,
            "ridge",
            settings={"alpha": 1.0},
            features=ONE,
            train_on=train_on,
            run=grown / "runs" / name,
        )
    said = cli(
        *("fit", "--head", "blend", "--members", "a,b", "--refit-members", "--cache", grown, "--json"),
    )
    assert said.code == 0, said.err
    again = [ipc.Run.load(grown / "runs" / each["run"]) for each in said.json["members"]]
    assert [each.train_on for each in again] == ["mean", "first"]
    assert {each.rows for each in again} == {ROWS + 15}
