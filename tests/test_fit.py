from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from img2prompt_cache.cache import Cache
from img2prompt_cache.dataset import choose_features, choose_target, load_dataset
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fit import Choice, fit, make_split, score
from img2prompt_cache.heads import HEADS
from img2prompt_cache.metrics import unit
from img2prompt_cache.runs import load_head, load_run, load_validation
from synthetic import ENCODER, ONE, OTHER, make_cache

QUICK = {"mlp": {"hidden": (16,), "max_epochs": 6, "lr": 1e-2}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(make_cache(tmp_path_factory.mktemp("fit") / "cache", without_prompt=[7], failed=[8]))


@pytest.fixture
def data(cache):
    return load_dataset(cache, choose_features(cache, ()), choose_target(cache, None))


@pytest.mark.parametrize("head", HEADS)
def test_the_score_is_of_rows_the_head_never_saw(cache, data, tmp_path, head):
    folder, run = fit(cache, Choice(head, QUICK.get(head, {}), refit=False), tmp_path / "run")
    held = load_validation(folder)
    row_of = {name: row for row, name in enumerate(data.ids)}
    rows = [row_of[name] for name in held.ids]
    assert run.rows == len(data.ids) - len(rows)
    group = np.arange(60)[data.rows] % 20
    assert not {*group[rows]} & {*np.delete(group, rows)}
    truth = data.y[rows]
    np.testing.assert_allclose(np.linalg.norm(held.predictions, axis=1), 1, atol=1e-5)
    cosines = (held.predictions * truth).sum(axis=1)
    np.testing.assert_allclose(held.cosine, cosines, atol=1e-6)
    metrics = run.metrics
    assert metrics["cosine"] == pytest.approx(cosines.mean(), abs=1e-6)
    assert metrics["mse"] == pytest.approx(((held.predictions - truth) ** 2).mean(), abs=1e-9)
    assert metrics["mse"] == pytest.approx(2 * (1 - metrics["cosine"]) / 384, abs=1e-6)
    nearest = (held.predictions @ truth.T).argmax(axis=1)
    if head != "mean":
        assert metrics["r@1"] == pytest.approx((nearest == np.arange(len(rows))).mean())
    assert metrics["n"] == len(rows)
    loaded = load_head(folder, load_run(folder))
    np.testing.assert_array_equal(loaded.predict(data.X[rows]), held.predictions)


@pytest.mark.parametrize("head", HEADS)
def test_refitting_takes_all_rows_and_what_was_chosen(cache, data, tmp_path, head):
    settings = QUICK.get(head, {})
    once, scored = fit(cache, Choice(head, settings, refit=False), tmp_path / "once")
    again, refitted = fit(cache, Choice(head, settings), tmp_path / "again")
    assert refitted.metrics == scored.metrics
    assert refitted.settings == scored.settings
    assert refitted.rows == len(data.ids) > scored.rows
    changed = load_head(again, load_run(again)).predict(data.X) - load_head(once, load_run(once)).predict(
        data.X
    )
    assert np.abs(changed).max() > 1e-4
    _, third = fit(cache, Choice(head, settings), tmp_path / "third")
    assert third.metrics == refitted.metrics
    assert (tmp_path / "third" / "head.safetensors").read_bytes() == (again / "head.safetensors").read_bytes()


def test_a_refitted_ridge_is_scikit_learns_on_all_rows(cache, data, tmp_path):
    folder, run = fit(cache, Choice("ridge", features=(ONE,)), tmp_path / "run")
    scale = np.sqrt(data.X[:, :24].var(axis=0, dtype=float).sum())
    oracle = Ridge(alpha=run.settings["alpha"]).fit(data.X[:, :24].astype(float) / scale, data.y)
    wanted = unit(oracle.predict(data.X[:, :24].astype(float) / scale))
    predicted = load_head(folder, load_run(folder)).predict(data.X[:, :24])
    np.testing.assert_allclose(predicted, wanted, atol=1e-4)


def test_a_run_says_what_it_was_made_of(cache, tmp_path):
    folder, _ = fit(cache, Choice("ridge", features=(OTHER, ONE), seed=3), tmp_path / "run")
    data = json.loads((folder / "run.json").read_text(), parse_constant=pytest.fail)
    assert [use["spec"] for use in data["features"]] == [OTHER, ONE]
    assert [use["width"] for use in data["features"]] == [8, 24]
    assert data["features"][1]["fingerprint"] == {"weights": f"sha256:{ONE}", "precision": "fp32"}
    assert data["target"]["spec"] == ENCODER
    assert data["split"]["strategy"] == "group"
    assert data["split"]["seed"] == data["settings"]["seed"] == 3
    assert data["cache"] == str(cache.folder)
    assert {"python", "torch", "numpy"} <= {*data["versions"]}
    assert 0 < data["seconds"] < 60
    alone, run = fit(cache, Choice("ridge", features=(ONE,)), tmp_path / "alone")
    with (alone / "history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    assert len(history) > 1
    best = max((record for record in history if record["cosine"]), key=lambda r: float(r["cosine"]))
    assert float(best["alpha"]) == pytest.approx(run.settings["alpha"])


def test_a_random_split_leaks_and_a_grouped_one_does_not(cache):
    _, honest = fit(cache, Choice("nearest", features=(ONE,)))
    _, leaking = fit(cache, Choice("nearest", features=(ONE,), split="random"))
    assert leaking.metrics["cosine"] > honest.metrics["cosine"] + 0.2


def test_the_users_own_split(tmp_path):
    sides = ["validation" if row % 20 < 4 else "train" for row in range(60)]
    cache = Cache(make_cache(tmp_path / "cache", fold=sides))
    folder, run = fit(cache, Choice("mean", split="fold"))
    assert run.split["strategy"] == "fold"
    assert run.split["straddling"] == 0
    assert load_validation(folder).ids == [f"i{row:03d}" for row in range(60) if row % 20 < 4]
    with pytest.raises(UsageError, match=r"--split fodl: .* the cache kept: fold"):
        fit(cache, Choice("mean", split="fodl"))


def test_a_split_of_the_users_own_may_straddle_groups_which_is_told(tmp_path):
    sides = ["validation" if row < 10 else "train" for row in range(60)]
    _, run = fit(Cache(make_cache(tmp_path / "cache", fold=sides)), Choice("mean", split="fold"))
    assert (run.split["straddling"], run.split["groups"]) == (10, 20)


def test_labels_of_the_users_own_are_merged_with_groups(tmp_path):
    # Rows of one group are in two folds, 0 and 1 or 2 and 3, so there are two groups.
    labels = [str(row % 20 // 10 * 2 + row % 2) if row < 20 else str(row % 20 // 10 * 2) for row in range(60)]
    cache = Cache(make_cache(tmp_path / "cache", fold=labels))
    folder, run = fit(cache, Choice("mean", split="fold"))
    assert (run.split["straddling"], run.split["groups"]) == (0, 2)
    held = {int(name[1:]) % 20 // 10 for name in load_validation(folder).ids}
    assert len(held) == 1
    assert len(load_validation(folder).ids) == 30


def test_one_group_can_only_be_split_at_random(tmp_path):
    cache = Cache(make_cache(tmp_path / "cache", groups=1))
    with pytest.raises(UsageError, match="use --split random"):
        fit(cache, Choice("mean"))
    for head in HEADS:
        fit(cache, Choice(head, QUICK.get(head, {}), split="random"))


@pytest.mark.parametrize("name", ["group", "random"])
def test_splits_are_drawn_by_the_seed(cache, data, name):
    draws = [make_split(cache, data, name, 0.2, seed) for seed in (0, 0, 1)]
    digests = [draw.digest(data.ids, data.prompts, data.images) for draw in draws]
    assert digests[0] == digests[1] != digests[2]
    # The groups are those of the prompts in any case, so that intervals can be drawn over them.
    assert len(np.unique(draws[0].groups)) == 20


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Choice("rigde"), "unknown head 'rigde'; did you mean ridge"),
        (Choice("ridge", {"lr": 0.1}), "unknown setting of head 'ridge' 'lr'"),
        (Choice("ridge", {"alpha": math.inf}), "alpha must be a finite number"),
        (Choice("knn", {"power": math.nan}), "power must be a finite number"),
        (Choice("ridge", {"folds": 30}), "cannot fill 30 folds"),
        (Choice("mean", features=("timm:none",)), "did you mean timm:one"),
        (Choice("mean", encoder="st:none"), "did you mean st:some"),
        (Choice("mean", fraction=1.0), "between 0 and 1"),
    ],
)
def test_wrong_choices_leave_nothing_behind(cache, choice, words):
    runs = cache.folder / "runs"
    before = sorted(runs.iterdir()) if runs.is_dir() else []
    with pytest.raises(UsageError, match=words):
        fit(cache, choice)
    assert (sorted(runs.iterdir()) if runs.is_dir() else []) == before


def test_a_folder_that_is_taken_or_cannot_be_made_is_found_out_before_the_work(tmp_path):
    cache = Cache(make_cache(tmp_path / "cache", 20, nan=range(20)))  # fitting it would fail
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"--run .*file exists"):
        fit(cache, Choice("mean"), tmp_path / "file")
    with pytest.raises(Img2PromptError, match="cannot be written"):
        fit(cache, Choice("mean"), tmp_path / "file" / "run")


def test_an_old_run_stays_until_the_new_one_is_whole(cache, tmp_path):
    folder, _ = fit(cache, Choice("mean"), tmp_path / "run")
    before = (folder / "run.json").read_bytes()
    with pytest.raises(UsageError):
        fit(cache, Choice("ridge", {"folds": 30}), folder, overwrite=True)
    assert (folder / "run.json").read_bytes() == before
    _, run = fit(cache, Choice("ridge", {"alpha": 1.0}), folder, overwrite=True)
    assert load_run(folder).head == run.head == "ridge"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_retrieval_is_among_distinct_targets():
    truth = unit(np.random.default_rng(0).normal(size=(6, 384)))[[0, 1, 2, 2, 3, 3]]
    nearly = unit(truth + 1e-6 * np.random.default_rng(1).normal(size=truth.shape))
    found = score(truth, nearly)
    assert found["r@1"] == 1
    assert found["n"] == 6
    assert found["cosine"] == pytest.approx(1)
    constant = score(np.tile(truth[:1], (6, 1)), truth)
    assert constant["r@1"] == pytest.approx(1 / 6)
    assert score(np.roll(truth, 1, axis=0), truth)["r@1"] == pytest.approx(2 / 6)
