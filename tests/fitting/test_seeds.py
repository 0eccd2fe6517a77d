"""Fits with several seeds: which runs they make, and the one row that `compare` makes of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import wraps

import numpy as np
import pandas as pd
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting import again, seeds
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.numerics.bootstrap import connected_groups, interval
from img2prompt_cache.progress import ignore
from img2prompt_cache.runs.run_file import replace_record
from img2prompt_cache.runs.seeds import read_seeds, seeds_text
from synthetic import ONE, OTHER, Cli, make_cache

MLP = ("--head", "mlp", "--hidden", "8", "--epochs", "2", "--no-leakage-gap")


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("seeds") / "cache")


@pytest.fixture(scope="module")
def grid(folder):
    """Two seeds of the head on each of three splits, and a fit without randomness on the same splits."""
    settings = {"hidden": (8,), "epochs": 2}
    common = {"split_seeds": "0-2", "leakage_gap": False, "folds": 4}
    runs = ipc.fit_seeds(
        folder, "mlp", seeds=[3, 7], settings=settings, run=folder / "runs" / "grid", **common
    )
    plain = ipc.fit_seeds(folder, "mean", seeds="3,7", run=folder / "runs" / "plain", **common)
    return runs, plain


def held(runs) -> pd.DataFrame:
    """What all runs said of held-out rows, from their files."""
    tables = [
        pd.read_csv(run.folder / "validation.csv").assign(run=run.name, split=run.split["seed"])
        for run in runs
    ]
    return pd.concat(tables, ignore_index=True)


def test_seeds_of_the_head_leave_the_split_alone(cli, folder, tmp_path):
    said = cli("fit", *MLP, "--seeds", "0-2", "--seed", "5", "--cache", folder, "--json")
    runs = [ipc.Run.load(each["run"]) for each in said.json["runs"]]
    assert [run.name for run in runs] == [f"mlp-one+other-01-seed{seed}" for seed in range(3)]
    assert {run.split["digest"] for run in runs} == {runs[0].split["digest"]}
    assert [run.split["seed"] for run in runs] == [5, 5, 5]
    assert [run.settings["seed"] for run in runs] == [0, 1, 2]
    assert len({run.metrics["cosine"] for run in runs}) == 3
    scores = [run.metrics["cosine"] for run in runs]
    assert said.json["cosine"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert said.json["sd_head_seeds"] == pytest.approx(np.std(scores, ddof=1), rel=1e-9)
    assert said.json["sd_split_seeds"] is None
    alone = ipc.fit(
        folder, "mlp", settings={"hidden": (8,), "epochs": 2, "seed": 2}, seed=5, run=tmp_path / "alone"
    )
    assert alone.metrics["cosine"] == runs[2].metrics["cosine"]
    again = cli("fit", *MLP, "--seeds", "0-1", "--cache", folder, "--json")
    assert again.json["name"] == "mlp-one+other-02"


def test_people_see_each_run_and_all_together(cli, folder, tmp_path):
    said = cli("fit", *MLP, "--split-seeds", "1,4", "--cache", folder, "--run", tmp_path / "s")
    lines = said.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == [f"{tmp_path}/s-split{seed}" for seed in (1, 4)]
    one, other = (ipc.Run.load(tmp_path / f"s-split{seed}") for seed in (1, 4))
    assert (one.split["seed"], other.split["seed"]) == (1, 4)
    assert one.settings["seed"] == other.settings["seed"] == 0
    sd = np.std([one.metrics["cosine"], other.metrics["cosine"]], ddof=1)
    assert lines[-1].startswith("s: mean cosine ")
    assert lines[-1].endswith(f" of 2 runs; sd {sd:.4f} over split seeds 1,4")


def test_a_head_without_randomness_is_not_fitted_again(cli, folder, grid):
    said = cli("fit", "--head", "mean", "--seeds", "0-4", "--cache", folder, "--json")
    assert len(said.json["runs"]) == 1
    assert "mean has no randomness with these settings" in said.err
    assert ipc.Run.load(said.json["runs"][0]["run"]).series == ""
    said = cli("fit", "--head", "ridge", "--alpha", "1", "--seeds", "0-4", "--cache", folder, "--json")
    assert len(said.json["runs"]) == 1
    said = cli("fit", "--head", "ridge", "--seeds", "0-1", "--cache", folder, "--json", "--no-leakage-gap")
    assert len(said.json["runs"]) == 2
    assert [run.name for run in grid[1]] == [f"plain-split{seed}" for seed in range(3)]
    for head, settings, random in (
        ("nearest", {}, False),
        ("knn", {"k": 3, "power": 2.0}, False),
        ("knn", {"k": 3}, True),
        ("kernel", {}, True),
    ):
        assert ipc.make_head(head, **settings).random is random


def test_one_row_with_the_means_that_pandas_finds(cli, folder, grid):
    runs, plain = grid
    board = ipc.compare(folder, ["grid", "plain"], against="plain")
    assert [entry.name for entry in board.entries] == ["grid", "plain"]
    record = board.records()[0]
    rows = held(runs)
    by_run = rows.groupby(["split", "run"]).cosine.mean()
    assert record["cosine"] == pytest.approx(rows.cosine.mean(), abs=1e-12)
    assert record["runs"] == 6
    assert (record["head_seeds"], record["split_seeds"]) == ("3,7", "0-2")
    assert record["sd_head_seeds"] == pytest.approx(np.sqrt(by_run.groupby("split").var().mean()), rel=1e-9)
    assert record["sd_split_seeds"] == pytest.approx(by_run.groupby("split").mean().std(), rel=1e-9)
    assert (record["n"], record["groups"]) == (60, 20)
    assert record["effective_groups"] == pytest.approx(20)
    assert record["mse"] == pytest.approx(np.mean([run.metrics["mse"] for run in runs]))
    mean = rows.groupby(["split", "imgId"]).cosine.mean()
    difference = mean - held(plain).set_index(["split", "imgId"]).cosine
    assert record["difference"] == pytest.approx(difference.mean(), abs=1e-12)
    header = cli("compare", "grid", "plain", "--cache", folder).out.splitlines()[1].split("  ")
    assert "sd, head seeds" in [cell.strip() for cell in header]
    said = cli("compare", "grid", "plain", "--cache", folder, "--json").json["runs"]
    assert said[0]["run"] == "grid"
    assert len(said[0]["runs"]) == 6
    assert said[0]["cosine"] == record["cosine"]


def test_the_interval_is_that_of_groups_drawn_for_all_runs_at_once(folder, grid):
    runs = grid[0]
    entry = ipc.compare(folder, ["grid", "plain"]).entries[0]
    rows = held(runs)
    group = rows.groupby("imgId").group.first()
    totals = rows.groupby(rows.imgId.map(group)).cosine.agg(["sum", "size"])
    rng = np.random.default_rng(1)
    drawn = rng.integers(len(totals), size=(20_000, len(totals)))
    means = totals["sum"].to_numpy()[drawn].sum(1) / totals["size"].to_numpy()[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    widening = np.sqrt(1 + 3 * 4 * (15 / 45) / 3)  # of 3 splits by 4 folds, each row held out 3 times
    middle = rows.cosine.mean()
    ends = (middle + widening * (low - middle), middle + widening * (high - middle))
    assert entry.ci95 == pytest.approx(ends, abs=4e-3)
    (alone,) = ipc.compare(folder, [run for run in runs if run.split["seed"] == 1]).entries
    assert len(alone.runs) == 2
    assert alone.ci95 == interval(alone.held[0].cosine, alone.held[0].groups)


def test_what_was_scored_on_other_splits_is_left_out(cli, folder, grid):
    said = cli("compare", "grid", "plain-split1", "--cache", folder, "--against", "grid", "--json")
    assert [each["run"] for each in said.json["runs"]] == ["grid"]
    assert "left out, scored on another split or target: plain-split1" in said.err
    said = cli("compare", "grid-split1-seed3", "plain-split1", "--cache", folder, "--json", "--by", "length")
    assert len(said.json["runs"]) == 2
    said = cli("compare", "grid", "plain", "--cache", folder, "--by", "length")
    said.refused(2, "these runs have several")
    cli("compare", "gri", "--cache", folder).refused(2, "unknown run 'gri'")


def test_a_table_for_a_paper_tells_both_spreads(cli, folder, grid):
    text = cli("compare", "grid", "plain", "--cache", folder, "--format", "md").out
    header, _, first, *_ = text.splitlines()
    cells = dict(
        zip(
            [cell.strip() for cell in header.split("|")],
            [cell.strip() for cell in first.split("|")],
            strict=True,
        )
    )
    assert (cells["head seeds"], cells["split seeds"]) == ("3,7", "0-2")
    entry = ipc.compare(folder, ["grid", "plain"]).entries[0]
    assert cells["sd, head seeds"] == f"{entry.sd_head_seeds:.4f}"
    assert cells["sd, split seeds"] == f"{entry.sd_split_seeds:.4f}"
    assert "60 rows in 4 folds each" in text
    assert "sd is the standard deviation" in text


def test_seeds_that_do_not_go(cli, folder, grid, tmp_path):
    for text in ("", "4-0", "a", "1,1", "-1", "0-99999", "5000000000"):
        cli("fit", *MLP, "--seeds", text, "--cache", folder).refused(2, "--seeds")
    said = cli("fit", *MLP, "--seeds", "0-1", "--set", "seed=3", "--cache", folder)
    said.refused(2, "seed is given twice")
    said = cli("fit", "--head", "blend", "--members", "a,b", "--seeds", "0-1", "--cache", folder)
    said.refused(2, "--seeds does not go with --head blend")
    said = cli("fit", "--head", "distil", "--teacher", "a", "--split-seeds", "0-1", "--cache", folder)
    said.refused(2, "--split-seeds does not go with --head distil")
    said = cli(
        "fit", "--head", "mean", "--split-seeds", "0-2", "--run", folder / "runs" / "plain", "--cache", folder
    )
    said.refused(2, "plain-split0 exists")
    with pytest.raises(UsageError, match="name seeds of the head"):
        ipc.fit_seeds(folder, "mlp")
    with pytest.raises(TypeError, match="no parameter nonsense"):
        ipc.fit_seeds(folder, "mlp", seeds=3, nonsense=1)
    assert not [*tmp_path.iterdir()]


def test_a_student_takes_seeds_of_its_own(cli, folder, tmp_path):
    ipc.fit(folder, "ridge", settings={"alpha": 1.0}, features=ONE, run=tmp_path / "teacher")
    said = cli(
        *(
            "fit",
            "--head",
            "distil",
            "--teacher",
            tmp_path / "teacher",
            "--features",
            OTHER,
            "--seeds",
            "1-2",
        ),
        *("--hidden", "8", "--epochs", "2", "--cache", folder, "--json"),
    )
    assert [each["head_seed"] for each in said.json["runs"]] == [1, 2]
    assert said.json["name"] == "distil-other-01"
    assert said.json["sd_head_seeds"] > 0


def test_the_seed_of_a_head_may_be_set_apart_from_that_of_the_split(cli, folder, tmp_path):
    said = cli("fit", *MLP, "--set", "seed=3", "--cache", folder, "--run", tmp_path / "run", "--json")
    run = ipc.Run.load(tmp_path / "run")
    assert said.code == 0
    assert (run.settings["seed"], run.split["seed"]) == (3, 0)


def test_seeds_are_read_as_they_are_written():
    assert read_seeds("0-2,7, 9-9", "seeds") == (0, 1, 2, 7, 9)
    assert read_seeds(np.array([3, 1]).tolist(), "seeds") == (3, 1)
    assert read_seeds(4, "seeds") == (4,)
    for given in ([0], [0, 1, 2], [1, 3, 4, 9], []):
        assert not given or [*read_seeds(seeds_text(given), "seeds")] == given
    assert seeds_text([]) == ""


def test_groups_of_several_splits_are_one_where_they_share_a_row():
    splits = [
        (["a", "b", "c", "d"], np.array([0, 0, 1, 2])),
        (["c", "e", "a"], np.array([5, 5, 0])),
    ]
    label = connected_groups(splits)
    assert len(label) == 7
    assert label[0] == label[1] == label[6]
    assert label[2] == label[4] == label[5]
    assert len({label[0], label[2], label[3]}) == 3


# Going on


QUICK = ("--head", "mlp", "--hidden", "8", "--epochs", "1", "--no-leakage-gap", "--seeds", "0-2")


@pytest.fixture
def fresh(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "cache", ignore=shutil.ignore_patterns("runs"))


def stop_at(monkeypatch, number):
    """Let a fit of several seeds be interrupted in the fit of this number."""
    fits = []

    @wraps(fit)
    def stopping(*arguments, **options):
        fits.append(options["run"].name)
        if len(fits) == number:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(seeds, "fit", stopping)
    return fits


@pytest.mark.parametrize("named", [True, False])
def test_the_same_command_goes_on_after_an_interruption(cli, fresh, tmp_path, monkeypatch, named):
    command = ("fit", *QUICK, "--cache", fresh, *(["--run", tmp_path / "net"] if named else []), "--json")
    name = "net" if named else "mlp-one+other-01"
    stop_at(monkeypatch, 3)
    said = cli(*command)
    assert said.code == 130
    assert said.err.endswith("what was finished is kept. Run the same command again to go on.\n")
    (fresh / "runs" / f"{name}-seed2").mkdir(parents=True)  # as a killed fit leaves it
    kept = tmp_path / "net-seed1" if named else fresh / "runs" / f"{name}-seed1"
    replace_record(kept, replace(ipc.Run.load(kept), series=""))  # killed before it was marked
    before = {path.name: ipc.Run.load(path).head_sha256 for path in kept.parent.glob(f"{name}-seed[01]")}
    fits = stop_at(monkeypatch, 99)
    said = cli(*command)
    assert said.code == 0, said.err
    assert fits == [f"{name}-seed2"]
    assert f"2 of 3 runs are there already: {name}-seed0, {name}-seed1" in said.err
    runs = [ipc.Run.load(each["run"]) for each in said.json["runs"]]
    assert [run.name for run in runs] == [f"{name}-seed{seed}" for seed in range(3)]
    assert {run.name: run.head_sha256 for run in runs[:2]} == before
    assert len({run.series for run in runs}) == 1
    assert runs[0].series.startswith(f"{name}@")
    assert said.json["name"] == name
    again = cli(*command)
    assert again.json["name"] == (name if named else "mlp-one+other-02")
    whole = cli("fit", *QUICK, "--cache", fresh, "--run", tmp_path / "whole", "--json")
    assert whole.json["cosine"] == pytest.approx(said.json["cosine"], abs=1e-9)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (("--epochs", "2"), '--set was {"epochs": 1, "hidden": [8], "seed": 0}, and is {"epochs": 2'),
        (("--folds", "3"), "--folds was not given, and is 3 now"),
        (("--seed", "4"), "--seed was 0, and is 4 now"),
        (("--features", ONE), f"its features were {ONE} + {OTHER}, and are {ONE} now"),
    ],
)
def test_runs_that_were_asked_for_otherwise_are_not_taken_for_these(cli, fresh, monkeypatch, changed, why):
    command = ("fit", *QUICK, "--cache", fresh, "--run", fresh / "runs" / "net")
    stop_at(monkeypatch, 3)
    assert cli(*command).code == 130
    fits = stop_at(monkeypatch, 99)
    said = cli(*command, *changed)
    said.refused(2, "net-seed0 exists, and ", why, "give --overwrite to replace it, or another name")
    assert fits == []
    assert cli(*command, *changed, "--overwrite", "--json").code == 0
    assert fits == ["net-seed0", "net-seed1", "net-seed2"]


def test_runs_on_other_rows_are_not_taken_for_these(cli, fresh, tmp_path, monkeypatch):
    table = tmp_path / "some.csv"
    table.write_text("imgId\n" + "".join(f"i{row:03d}\n" for row in range(50)))
    command = ("fit", *QUICK, "--only", table, "--cache", fresh)
    stop_at(monkeypatch, 2)
    assert cli(*command, "--run", fresh / "runs" / "net").code == 130
    table.write_text("imgId\n" + "".join(f"i{row:03d}\n" for row in range(60)))
    fits = stop_at(monkeypatch, 99)
    said = cli(*command, "--run", fresh / "runs" / "net")
    said.refused(2, "net-seed0 exists, and rows of the cache have changed since, or there are more")
    assert fits == []
    stop_at(monkeypatch, 2)
    assert cli(*command).code == 130
    table.write_text("imgId\n" + "".join(f"i{row:03d}\n" for row in range(55)))
    said = cli(*command, "--json")  # without a name, they are left alone
    assert said.json["name"] == "mlp-one+other-02"
    (fresh / "runs" / "other-seed1").mkdir()
    (fresh / "runs" / "other-seed1" / "mine.txt").touch()
    said = cli(*command, "--run", fresh / "runs" / "other")
    said.refused(2, "other-seed1 exists, and is no run")


def test_more_seeds_are_added_to_a_name(cli, fresh):
    command = ("fit", *QUICK[:-1])
    named = ("--cache", fresh, "--run", fresh / "runs" / "net", "--json")
    first = cli(*command, "0-1", *named)
    said = cli(*command, "0-3", *named)
    assert "2 of 4 runs are there already" in said.err
    assert len({ipc.Run.load(each["run"]).series for each in said.json["runs"]}) == 1
    assert said.json["runs"][:2] == first.json["runs"]


def test_a_student_with_seeds_goes_on_only_with_its_teacher(cli, fresh, monkeypatch):
    for alpha in (1.0, 2.0):
        ipc.fit(fresh, "ridge", settings={"alpha": alpha}, features=ONE, run=fresh / "runs" / f"t{alpha:g}")
    command = (
        *("fit", "--head", "distil", "--features", OTHER, "--seeds", "1-2", "--hidden", "8", "--epochs", "1"),
        *("--cache", fresh, "--run", fresh / "runs" / "student", "--json"),
    )
    stop_at(monkeypatch, 2)
    assert cli(*command, "--teacher", "t1").code == 130
    fits = stop_at(monkeypatch, 99)
    said = cli(*command, "--teacher", "t2")
    said.refused(2, '--teacher was "t1", and is "t2" now')
    cli(*command).refused(2, "name it with --teacher")
    assert cli(*command, "--teacher", "t1").code == 0
    assert fits == ["student-seed2"]
    student = ipc.Run.load(fresh / "runs" / "student-seed2")
    with pytest.raises(UsageError, match="made of runs"):
        again._again(ipc.Cache(fresh), student, "old", "cpu", ignore, None)
