"""Fits on rows with several prompts: what they learn from, what they are scored on, against NumPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting.additions import add_extra_pairs, add_soft_bank
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.evaluate import evaluate_head
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.space import Choices
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.progress import ignore
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.leaderboard import compare
from img2prompt_cache.runs.run import load_run
from img2prompt_cache.tuning.search import TuneConfig, search
from img2prompt_cache.tuning.tune import tune
from synthetic import ENCODER, ONE, Cli, edit_run, make_cache

COUNTS = [row % 5 for row in range(60)]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("several") / "cache", further=COUNTS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows with their first prompts alone."""
    return make_cache(tmp_path_factory.mktemp("plain") / "cache")


def read(folder: Path, **options: object) -> Dataset:
    cache = Cache(folder)
    return load_dataset(cache, choose_features(cache, (ONE,)), choose_target(cache, None), **options)  # type: ignore[arg-type]


def means_of(folder: Path) -> np.ndarray:
    cache = Cache(folder)
    first = cache.values(cache.column("targets", ENCODER)).astype(np.float64)
    others = cache.values(cache.column("more_targets", ENCODER))
    return np.nanmean(np.concatenate([first[:, None], others], axis=1), axis=1)


def test_a_run_learns_from_the_mean_and_is_scored_on_both(several: Path, tmp_path: Path) -> None:
    run = fit(several, "mean", folds=3, run=tmp_path / "run", leakage_gap=True)
    held = load_validation(run.folder, run)
    data, means = read(several), means_of(several)
    assert held.ids == data.ids
    for number in range(3):
        wanted = means[held.fold != number].mean(axis=0, keepdims=True)
        np.testing.assert_allclose(
            held.predictions[held.fold == number],
            unit(np.repeat(wanted, (held.fold == number).sum(), 0)),
            atol=1e-6,
        )
    cosines = (held.predictions * data.y).sum(1), (held.predictions * unit(means)).sum(1)
    assert run.metrics["cosine"] == pytest.approx(cosines[0].mean(), abs=1e-6)
    assert run.metrics["cosine_mean_prompt"] == pytest.approx(cosines[1].mean(), abs=1e-6)
    low, high = run.metrics["ci95_mean_prompt"] or (0, 0)
    assert low < run.metrics["cosine_mean_prompt"] < high
    assert run.metrics["floor"] == pytest.approx(run.metrics["cosine"], abs=1e-6)
    assert run.metrics["leakage_gap"] == pytest.approx(0, abs=1e-6)
    assert (run.train_on, load_run(run.folder).train_on) == ("mean", "mean")
    assert load_run(run.folder).metrics == run.metrics


@pytest.mark.parametrize("head", ["ridge", "knn"])
def test_on_the_first_prompts_a_run_is_what_it_always_was(
    several: Path, plain: Path, tmp_path: Path, head: str
) -> None:
    first = fit(several, head, train_on="first", run=tmp_path / "first")
    always = fit(plain, head, run=tmp_path / "always")
    mean = fit(several, head, run=tmp_path / "mean")
    more = ("cosine_mean_prompt", "ci95_mean_prompt")
    assert {name: value for name, value in first.metrics.items() if name not in more} == always.metrics
    assert {*more} == {*first.metrics} - {*always.metrics}
    assert (first.train_on, always.train_on, mean.train_on) == ("first", "first", "mean")
    predicted = [load_validation(run.folder, run).predictions for run in (first, always, mean)]
    np.testing.assert_array_equal(predicted[0], predicted[1])
    assert not np.array_equal(predicted[0], predicted[2])
    assert mean.split == first.split  # so that they can be compared
    board = compare(several, [first, mean], against=first)
    assert {record["cosine_mean_prompt"] for record in board.records()} == {
        run.metrics["cosine_mean_prompt"] for run in (first, mean)
    }


@pytest.mark.parametrize("head", ["mean", "nearest", "knn", "ridge", "kernel", "mlp", "blend"])
def test_prompts_of_held_out_rows_change_nothing(several: Path, head: str) -> None:
    cache, data = Cache(several), read(several)
    split = make_split(cache, data, "group", 0.2, 0)
    settings: dict[str, object] = {
        "mlp": {"hidden": (8,), "epochs": 2},
        "blend": {"members": [{"head": "knn"}]},
    }.get(head, {})
    made = make_head(head, **settings)
    data = replace(data, bank=data.y[:0] if made.takes_bank else None)
    assert data.means is not None
    before = evaluate_head(made, data, split).predictions
    means = data.means.copy()
    means[split.validation] = np.random.default_rng(0).normal(size=means[split.validation].shape)
    np.testing.assert_array_equal(evaluate_head(made, replace(data, means=means), split).predictions, before)
    means[split.train] = means[split.validation][0]
    assert not np.array_equal(evaluate_head(made, replace(data, means=means), split).predictions, before)


def test_blends_and_students_learn_what_their_runs_did(several: Path, tmp_path: Path) -> None:
    runs = {
        (head, train_on): fit(several, head, folds=3, train_on=train_on, run=tmp_path / f"{head}-{train_on}")
        for head in ("ridge", "knn")
        for train_on in ("mean", "first")
    }
    for train_on in ("mean", "first"):
        pair = [runs["ridge", train_on], runs["knn", train_on]]
        blend = fit(several, "blend", members=pair, run=tmp_path / f"blend-{train_on}")
        assert blend.metrics["nested"] == 1
        assert blend.train_on == train_on
        assert blend.metrics["cosine_mean_prompt"] > 0
        student = {
            "settings": {"hidden": [8], "epochs": 2},
            "features": ONE,
            "run": tmp_path / f"st-{train_on}",
        }
        taught = fit(several, "distil", teacher=blend, **student)  # type: ignore[arg-type]
        assert taught.train_on == train_on
    mixed = fit(
        several, "blend", members=[runs["ridge", "mean"], runs["knn", "first"]], run=tmp_path / "mixed"
    )
    assert mixed.metrics["nested"] == 0


def test_a_run_of_an_older_version_was_fitted_on_the_first_prompts(several: Path, tmp_path: Path) -> None:
    run = fit(several, "mean", run=tmp_path / "run")
    edit_run(run.folder, train_on="first")
    assert load_run(run.folder).train_on == "first"
    text = (run.folder / "run.json").read_text().replace('"train_on": "first",', "")
    (run.folder / "run.json").write_text(text)
    assert load_run(run.folder).train_on == "first"


def test_what_to_learn_from_is_one_of_two(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="train_on") as caught:
        fit(several, "mean", train_on="last")
    assert caught.value.parameter == "train_on"
    cli = Cli(capsys)
    cli("fit", "--cache", several, "--head", "mean", "--train-on", "last").refused(
        2, "--train-on", "mean", "first"
    )
    cli("fit", "--cache", several, "--head", "blend", "--members", "a,b", "--train-on", "first").refused(
        2, "--train-on", "--head blend"
    )
    said = cli("fit", "--cache", several, "--head", "mean", "--train-on", "first")
    assert "on the first prompt" in said.out
    assert "on the mean of all prompts" in said.out


def test_extra_pairs_with_several_prompts(several: Path, tmp_path: Path) -> None:
    cache = Cache(several)
    target = choose_target(cache, None)
    others = make_cache(tmp_path / "others", 30, seed=1, further=[row % 3 for row in range(30)])
    extra = add_extra_pairs(cache, read(several), [others], target, ignore).extra
    assert extra is not None
    np.testing.assert_allclose(extra.y, means_of(others), atol=1e-6)
    alone = add_extra_pairs(cache, read(several, train_on="first"), [others], target, ignore).extra
    assert alone is not None
    np.testing.assert_array_equal(alone.y, read(others).y)
    # A pair is left out if any prompt of it is near any prompt here.
    data, theirs = read(several), read(others)
    assert data.further is not None
    assert theirs.further is not None
    vectors = data.further.vectors.copy()
    vectors[-1] = theirs.further.vectors[0]
    near = replace(data, further=replace(data.further, vectors=vectors))
    found = add_extra_pairs(cache, near, [others], target, ignore).extra
    assert found is not None
    assert (found.left_out, len(found.y)) == (1, 29)
    kept = np.delete(np.arange(30), theirs.further.row[0])
    np.testing.assert_allclose(found.y, means_of(others)[kept], atol=1e-6)


def test_a_study_is_of_what_its_trials_learn_from(several: Path, plain: Path, tmp_path: Path) -> None:
    for folder in (plain, several):
        run = tune(
            folder,
            "knn",
            trials=2,
            study=tmp_path / f"{folder.parent.name}.db",
            run=tmp_path / folder.parent.name,
        )
        assert run.train_on == ("mean" if folder is several else "first")
    with pytest.raises(UsageError, match="train_on"):
        tune(several, "knn", trials=3, study=tmp_path / f"{plain.parent.name}.db")


def test_a_trial_is_scored_on_the_mean(several: Path, tmp_path: Path) -> None:
    config = TuneConfig(FitConfig("ridge", features=(ONE,)), {"alpha": Choices((1.0,))}, 1)
    found = search(Cache(several), config, tmp_path / "study.db").trials[0].cosine
    data = read(several)
    split = make_split(Cache(several), data, "group", 0.2, 0)
    rows, groups = split.train, split.inner_groups(split.train)
    fold = k_folds(groups, 3, 0)
    scores = [
        make_head("ridge", alpha=1.0).validate(
            data.X[rows], y[rows], [fold == number for number in range(3)], groups=groups, widths=data.widths
        )
        for y in (means_of(several).astype(np.float32), data.y)
    ]
    assert found == pytest.approx(scores[0], abs=1e-6)
    assert abs(found - scores[1]) > 1e-4


def test_settings_carry_what_to_learn_from(several: Path) -> None:
    assert FitConfig().train_on == "mean"
    data = add_soft_bank(
        Cache(several), read(several), "train", choose_target(Cache(several), None), "cpu", ignore
    )
    assert data.bank is not None
