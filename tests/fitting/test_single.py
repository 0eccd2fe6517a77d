from __future__ import annotations

import csv
import gc
import json
import math
from dataclasses import replace
from weakref import ref

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.texts import Texts
from img2prompt_cache.data import clustered
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.config import FitConfig, seeded
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.heads import HEADS, make_head
from img2prompt_cache.heads.knn import Knn
from img2prompt_cache.heads.mean import Mean
from img2prompt_cache.heads.nearest import Nearest
from img2prompt_cache.numerics import clusters
from img2prompt_cache.numerics.bootstrap import interval
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.runs.folder import load_head
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.run import load_run
from img2prompt_cache.runs.used_rows import load_used_rows
from synthetic import ENCODER, ONE, OTHER, make_cache

ON_FEATURES = [name for name in HEADS if make_head(name).takes == "features" and not make_head(name).texts]
FEW = {"max_epochs": 6, "lr": 1e-2}
MLP = {"hidden": [16], **FEW}
QUICK = {
    "mlp": MLP,
    "linear": FEW,
    "wide-mlp": {"expand": 1, **FEW},
    "seed-tuned-resnet": {"trials": 2, "hidden": (16,)},
    "blend": {"members": [{"head": "ridge"}, {"head": "nearest", "columns": [[24, 32]]}]},
    "distil": {"student": MLP},
}
BOTH = (ONE, OTHER)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(make_cache(tmp_path_factory.mktemp("single") / "cache", without_prompt=[7], failed=[8]))


@pytest.fixture
def data(cache):
    return load_dataset(cache, choose_features(cache, ()), choose_target(cache, None))


@pytest.mark.parametrize("head", ON_FEATURES)
def test_the_score_is_of_rows_the_head_never_saw(cache, data, tmp_path, head):
    run = fit_head(cache, FitConfig(head, QUICK.get(head, {}), BOTH, refit=False), tmp_path / "run")
    held = load_validation(run.folder)
    row_of = {name: row for row, name in enumerate(data.ids)}
    rows = [row_of[name] for name in held.ids]
    assert not held.fold.any()
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
    loaded = load_head(run.folder, load_run(run.folder))
    np.testing.assert_array_equal(loaded.predict(data.X[rows]), held.predictions)


@pytest.mark.parametrize("head", ON_FEATURES)
def test_refitting_takes_all_rows_and_what_was_chosen(cache, data, tmp_path, head):
    settings = QUICK.get(head, {})
    scored = fit_head(cache, FitConfig(head, settings, BOTH, refit=False), tmp_path / "once")
    refitted = fit_head(cache, FitConfig(head, settings, BOTH), tmp_path / "again")
    assert refitted.metrics == scored.metrics
    assert refitted.settings == scored.settings
    assert "device" not in scored.settings
    assert refitted.rows == len(data.ids) > scored.rows
    changed = load_run(refitted.folder).estimator.predict(data.X)
    changed -= load_run(scored.folder).estimator.predict(data.X)
    assert np.abs(changed).max() > 1e-4
    third = fit_head(cache, FitConfig(head, settings, BOTH), tmp_path / "third")
    assert third.metrics == refitted.metrics
    states = [(made.folder / "head.safetensors").read_bytes() for made in (third, refitted)]
    assert states[0] == states[1]


def test_a_refitted_ridge_is_scikit_learns_on_all_rows(cache, data, tmp_path):
    run = fit_head(cache, FitConfig("ridge", features=(ONE,)), tmp_path / "run")
    scale = np.sqrt(data.X[:, :24].var(axis=0, dtype=float).sum())
    oracle = Ridge(alpha=run.settings["alpha"]).fit(data.X[:, :24].astype(float) / scale, data.y)
    wanted = unit(oracle.predict(data.X[:, :24].astype(float) / scale))
    predicted = load_head(run.folder, load_run(run.folder)).predict(data.X[:, :24])
    np.testing.assert_allclose(predicted, wanted, atol=1e-4)


def test_a_run_says_what_it_was_made_of(cache, tmp_path):
    folder = fit_head(cache, FitConfig("ridge", features=(OTHER, ONE), seed=3), tmp_path / "run").folder
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
    run = fit_head(cache, FitConfig("ridge", features=(ONE,)), tmp_path / "alone")
    with (run.folder / "history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    assert len(history) > 1
    best = max((record for record in history if record["cosine"]), key=lambda r: float(r["cosine"]))
    assert float(best["alpha"]) == pytest.approx(run.settings["alpha"])


def test_a_random_split_leaks_and_a_grouped_one_does_not(cache):
    honest = fit_head(cache, FitConfig("nearest", features=(ONE,)))
    leaking = fit_head(cache, FitConfig("nearest", features=(ONE,), split="random"))
    assert leaking.metrics["cosine"] > honest.metrics["cosine"] + 0.2


def test_the_users_own_split(tmp_path):
    sides = ["validation" if row % 20 < 4 else "train" for row in range(60)]
    cache = Cache(make_cache(tmp_path / "cache", fold=sides))
    run = fit_head(cache, FitConfig("mean", split="fold"))
    assert run.split["strategy"] == "fold"
    assert run.split["straddling"] == 0
    assert load_validation(run.folder).ids == [f"i{row:03d}" for row in range(60) if row % 20 < 4]
    with pytest.raises(UsageError, match=r'`split="fodl"`: .* columns in the cache: fold'):
        fit_head(cache, FitConfig("mean", split="fodl"))


def test_a_split_of_the_users_own_may_straddle_groups_which_is_told(tmp_path):
    sides = ["validation" if row < 10 else "train" for row in range(60)]
    run = fit_head(Cache(make_cache(tmp_path / "cache", fold=sides)), FitConfig("mean", split="fold"))
    assert (run.split["straddling"], run.split["groups"]) == (10, 20)


def test_labels_of_the_users_own_are_merged_with_groups(tmp_path):
    # Rows of one group are in two folds, 0 and 1 or 2 and 3, so there are two groups.
    labels = [str(row % 20 // 10 * 2 + row % 2) if row < 20 else str(row % 20 // 10 * 2) for row in range(60)]
    cache = Cache(make_cache(tmp_path / "cache", fold=labels))
    run = fit_head(cache, FitConfig("mean", split="fold"))
    # Too few to draw inner folds of: these keep the 20 groups of prompts whole.
    assert (run.split["straddling"], run.split["validation"], run.split["groups"]) == (0, 30, 20)
    held = {int(name[1:]) % 20 // 10 for name in load_validation(run.folder).ids}
    assert len(held) == 1
    assert len(load_validation(run.folder).ids) == 30


@pytest.mark.parametrize(
    ("groups", "folds", "told"), [(3, None, True), (3, 3, False), (4, 5, False), (20, None, False)]
)
def test_a_group_larger_than_what_is_held_out_is_told(tmp_path, groups, folds, told):
    cache = Cache(make_cache(tmp_path / "cache", groups=groups))
    notes = []
    config = FitConfig("mean", folds=None if folds is None else min(folds, groups))
    run = fit_head(cache, config, tell=lambda event: notes.append(event.message))
    assert run.split["largest_group"] == 60 // groups
    assert any("one group of near-identical rows is 33%" in text for text in notes) == told


def test_one_group_can_only_be_split_at_random(tmp_path):
    cache = Cache(make_cache(tmp_path / "cache", groups=1))
    with pytest.raises(UsageError, match='use `split="random"`'):
        fit_head(cache, FitConfig("mean"))
    for head in ON_FEATURES:
        fit_head(cache, FitConfig(head, QUICK.get(head, {}), BOTH, split="random"))


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
        (FitConfig("rigde"), "unknown head 'rigde'; did you mean ridge"),
        (FitConfig("ridge", {"lr": 0.1}), "unknown setting 'lr' of head 'ridge'"),
        (FitConfig("ridge", {"alpha": math.inf}), "alpha must be a finite number"),
        (FitConfig("knn", {"power": math.nan}), "power must be a finite number"),
        (FitConfig("ridge", {"folds": 30}), "cannot fill 30 folds"),
        (FitConfig("mean", features=("timm:none",)), "did you mean timm:one"),
        (FitConfig("mean", encoder="st:some/MiniLM"), "did you mean st:some"),
        (FitConfig("mean", holdout=1.0), "between 0 and 1"),
        (FitConfig("mean", folds=1), "`folds=1`: at least 2"),
        (FitConfig("mean", folds=30), "`folds=30`: there are only 20 groups"),
        (FitConfig("mean", folds=3, refit=False), "`refit=False` keeps the head of the training side"),
    ],
)
def test_wrong_choices_leave_nothing_behind(cache, choice, words):
    runs = cache.folder / "runs"
    before = sorted(runs.iterdir()) if runs.is_dir() else []
    with pytest.raises(UsageError, match=words):
        fit_head(cache, choice)
    assert (sorted(runs.iterdir()) if runs.is_dir() else []) == before


def test_a_folder_that_is_taken_or_cannot_be_made_is_found_out_before_the_work(tmp_path):
    cache = Cache(make_cache(tmp_path / "cache", 20, nan=range(20)))  # fitting it would fail
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"`run` .*file exists"):
        fit_head(cache, FitConfig("mean"), tmp_path / "file")
    with pytest.raises(Img2PromptError, match="cannot be written"):
        fit_head(cache, FitConfig("mean"), tmp_path / "file" / "run")


def test_an_old_run_stays_until_the_new_one_is_whole(cache, tmp_path):
    folder = fit_head(cache, FitConfig("mean"), tmp_path / "run").folder
    before = (folder / "run.json").read_bytes()
    with pytest.raises(UsageError):
        fit_head(cache, FitConfig("ridge", {"folds": 30}), folder, overwrite=True)
    assert (folder / "run.json").read_bytes() == before
    run = fit_head(cache, FitConfig("ridge", {"alpha": 1.0}), folder, overwrite=True)
    assert load_run(folder).head == run.head == "ridge"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_folds_score_every_row_by_a_head_that_never_saw_its_group(cache, data, tmp_path):
    run = fit_head(cache, FitConfig("knn", features=(ONE,), folds=4), tmp_path / "run")
    held = load_validation(run.folder, run)
    assert held.ids == data.ids
    assert run.metrics["n"] == run.rows == len(data.ids)
    assert run.split["folds"] == 4
    group = np.arange(60)[data.rows] % 20
    X, told = data.X[:, :24], []
    for number in range(4):
        inside = held.fold == number
        assert not {*group[inside]} & {*group[~inside]}
        head = make_head("knn").fit(X[~inside], data.y[~inside], groups=held.groups[~inside])
        np.testing.assert_allclose(head.predict(X[inside]), held.predictions[inside], atol=1e-5)
        told.append(
            {
                "cosine": pytest.approx(held.cosine[inside].mean()),
                "n": inside.sum(),
                "chosen": head.chosen,
            }
        )
    assert run.fold_metrics == told
    assert run.metrics["cosine"] == pytest.approx((held.predictions * data.y).sum(axis=1).mean(), abs=1e-6)
    assert run.metrics["ci95"] == list(interval(held.cosine, held.groups))


@pytest.mark.parametrize("head", ON_FEATURES)
def test_after_folds_the_saved_head_chooses_on_all_rows(cache, data, tmp_path, head):
    settings = QUICK.get(head, {})
    run = fit_head(cache, FitConfig(head, settings, BOTH, folds=3, leakage_gap=False), tmp_path / "run")
    split = make_split(cache, data, "group", 0.2, 0)
    made = seeded(make_head(head, **settings), 0)
    made.fit(data.X, data.y, groups=split.groups, widths=data.widths)
    loaded = load_head(run.folder, load_run(run.folder))
    np.testing.assert_array_equal(loaded.predict(data.X), made.predict(data.X))
    assert run.settings == {**made.settings, **made.chosen}
    assert run.parameters == sum(value.size for value in made.state().values())
    assert run.metrics["leakage_gap"] is None


def test_folds_at_random_and_by_label(tmp_path):
    labels = [f"l{row % 20 // 5}" for row in range(60)]
    cache = Cache(make_cache(tmp_path / "cache", fold=labels))
    leaking = fit_head(cache, FitConfig("nearest", features=(ONE,), split="random", folds=5))
    assert leaking.split["straddling"] > 0
    assert leaking.metrics["leakage_gap"] is None
    run = fit_head(cache, FitConfig("nearest", features=(ONE,), split="fold", folds=4))
    held = load_validation(run.folder)
    assert run.split["straddling"] == 0
    assert {(labels[int(name[1:])], number) for name, number in zip(held.ids, held.fold, strict=True)} == {
        (f"l{label}", held.fold[label * 5]) for label in range(4)
    }
    assert leaking.metrics["cosine"] > run.metrics["cosine"] + 0.2
    with pytest.raises(UsageError, match=r"`folds=5`: there are only 4 groups of equal labels"):
        fit_head(cache, FitConfig("mean", split="fold", folds=5))


def test_folds_need_more_than_sides_and_more_than_one_group(tmp_path):
    sides = ["val" if row % 20 < 4 else "train" for row in range(60)]
    with pytest.raises(UsageError, match="`folds`: column 'fold' names two sides"):
        fit_head(Cache(make_cache(tmp_path / "a", fold=sides)), FitConfig("mean", split="fold", folds=3))
    alike = Cache(make_cache(tmp_path / "b", groups=1))
    with pytest.raises(UsageError, match="`folds=3`: there is only 1 group of near-identical"):
        fit_head(alike, FitConfig("mean", folds=3))
    fit_head(alike, FitConfig("mean", split="random", folds=3))


def test_the_leakage_gap_is_left_out_where_it_costs_or_nobody_wants_it(cache, monkeypatch):
    choice = FitConfig("nearest", features=(ONE,))
    run = fit_head(cache, choice)
    assert run.metrics["leakage_gap"] > 0.2
    assert run.metrics["floor"] == pytest.approx(
        fit_head(cache, FitConfig("mean")).metrics["cosine"], abs=1e-7
    )
    assert fit_head(cache, replace(choice, leakage_gap=False)).metrics["leakage_gap"] is None
    with monkeypatch.context() as patch:
        patch.setattr(clustered, "MOST_COMPONENTS", 20)
        patch.setattr(clusters, "PER_CLUSTER", 5)
        many = fit_head(cache, choice)
        assert many.split["clustered"]
        assert many.metrics["leakage_gap"] is None
        assert fit_head(cache, replace(choice, leakage_gap=True)).metrics["leakage_gap"] is not None
    monkeypatch.setattr(Nearest, "costly", True)
    assert fit_head(cache, choice).metrics["leakage_gap"] is None
    assert (
        fit_head(cache, replace(choice, leakage_gap=True)).metrics["leakage_gap"]
        == run.metrics["leakage_gap"]
    )


def test_a_split_of_folds_is_another_contest(cache, data):
    splits = [make_split(cache, data, "group", 0.2, 0, folds) for folds in (None, 3, 4)]
    assert len({split.digest(data.ids, data.prompts, data.images) for split in splits}) == 3


def test_the_head_that_was_evaluated_is_gone_before_the_refit(cache, tmp_path, monkeypatch):
    """Its index and temporary file would take as much as those of the head that is kept."""
    alive, made = [], []
    plain = Knn._fit

    def fit(self, *args, **more):
        alive.append(sum(each() is not None for each in made))
        plain(self, *args, **more)
        made.append(ref(self))

    monkeypatch.setattr(Knn, "_fit", fit)
    run = fit_head(cache, FitConfig("knn", leakage_gap=False), tmp_path / "run")
    assert alive == [0, 0]
    assert run.refit
    assert len(run.history) > 1


def test_the_texts_of_rows_are_gone_before_a_head_is_fitted(cache, tmp_path, monkeypatch):
    """They take more memory than all else that grows with the rows."""
    found = []
    plain = Mean._fit

    def count():
        gc.collect()
        return sum(type(each) is Texts and len(each) > 0 for each in gc.get_objects())

    def fit(self, *args, **more):
        found.append(count())
        plain(self, *args, **more)

    monkeypatch.setattr(Mean, "_fit", fit)
    before = count()
    run = fit_head(cache, FitConfig("mean", leakage_gap=False), tmp_path / "run")
    assert found == [before, before]
    used = load_used_rows(run.folder)
    assert used is not None
    assert len(used.ids) == len(used.contents) == run.rows
