from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import img2prompt_cache as ipc
from img2prompt_cache.data.splits import Split
from img2prompt_cache.fitting import expected as module
from img2prompt_cache.fitting.evaluate import Evaluation
from img2prompt_cache.fitting.expected import FEWEST, fit_expectation, held_out_signals
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.base import SureTargets
from img2prompt_cache.numerics.expected_cosine import BANK_SIGNALS
from img2prompt_cache.numerics.metrics import cosine, unit
from img2prompt_cache.runs.held_out import load_validation
from synthetic import Cli, make_cache

MLP = {"hidden": [8], "epochs": 2}
HEADS = {
    "mean": {},
    "nearest": {},
    "knn": {"k": 3, "power": 2.0},
    "ridge": {"alpha": 1.0},
    "kernel": {"gain": 1.0, "alpha": 0.1},
    "mlp": MLP,
}
OWN = {"ridge": ["norm"], "knn": ["norm"], "kernel": ["norm", "neighbours"]}


def unit_rows(n: int, t: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(n, t)))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of 160 rows in 80 groups, with a run of each of `HEADS` by five folds."""
    folder = make_cache(tmp_path_factory.mktemp("expected") / "cache", 160, groups=80, without_prompt=[159])
    for head, own in HEADS.items():
        ipc.fit(folder, head, settings=own, folds=5, leakage_gap=False, run=folder / "runs" / head)
    return folder


@pytest.mark.parametrize("head", HEADS)
def test_every_head_says_what_to_expect_and_it_is_what_its_record_says(cache, head):
    run = ipc.Run.load(cache / "runs" / head)
    assert run.expected["n"] == 159
    assert run.expected["signals"] == [*OWN.get(head, []), *BANK_SIGNALS]
    assert run.expected["calibration_error"] < 0.05
    found = run.predict(cache, top_k=0)
    assert found.expected.shape == (160,)
    assert found.expected.dtype == np.float32
    assert (np.abs(found.expected) <= 1).all()
    if head == "mean":  # all its predictions are the same, but for the fold
        assert np.ptp(found.expected) < 1e-6
    some = run.predict(features_of(cache, run)[[7, 3]], top_k=0)
    np.testing.assert_allclose(some.expected, found.expected[[7, 3]], atol=1e-5)


def features_of(cache, run):
    opened = ipc.Cache(cache)
    return np.hstack([opened.values(opened.column("features", use.spec)) for use in run.features])


def test_what_is_recorded_is_what_comes_of_the_held_out_rows(cache):
    run = ipc.Run.load(cache / "runs" / "kernel")
    held = load_validation(run.folder)
    for row in run.expected["coverage"]:
        assert 0 < row["share"] <= 1
        assert row["cosine"] <= held.cosine.max()
    assert run.expectation.bank.dtype == np.float16
    # The banks of the folds have 4/5 of the 80 prompts, and so has the one that is kept.
    assert len(run.expectation.bank) == pytest.approx(0.8 * 159, abs=3)


def test_a_blend_of_runs_counts_on_the_agreement_of_its_members(cache, tmp_path):
    run = ipc.fit(cache, "blend", members=["ridge", "kernel"], run=tmp_path / "blend")
    assert run.expected["signals"] == ["agreement", *BANK_SIGNALS]
    assert run.estimator.signals == (
        "norm of ridge",
        "norm of kernel",
        "neighbours of kernel",
        "agreement",
    )
    X = features_of(cache, run)[:9]
    sure = run.estimator.predict_with_signals(X)
    vectors, signals = sure.vectors, sure.signals
    np.testing.assert_array_equal(vectors, run.estimator.predict(X))
    one, other = (ipc.Run.load(cache / "runs" / name).estimator for name in ("ridge", "kernel"))
    np.testing.assert_allclose(signals["norm of ridge"], one.predict_with_signals(X).signals["norm"])
    weights = run.settings["weights"]
    mixed = weights[0] * one.predict(X) + weights[1] * other.predict(X)
    np.testing.assert_allclose(signals["agreement"], np.linalg.norm(mixed, axis=1), atol=1e-5)
    assert ipc.Run.load(run.folder).predict(X).expected.shape == (9,)


def test_the_best_head_and_several_members_of_one_name_have_signals_of_their_own(cache, tmp_path):
    members = [{"head": "ridge", "settings": {"alpha": value}} for value in (0.1, 10.0)]
    run = ipc.fit(
        cache,
        "blend",
        settings={"members": members, "weights": [0.5, 0.5]},
        run=tmp_path / "two",
        holdout=0.65,
    )
    assert run.expected["signals"] == ["norm of ridge", "norm of ridge 2", "agreement", *BANK_SIGNALS]
    best = ipc.fit(
        cache, "best", settings={"members": [{"head": "kernel"}]}, run=tmp_path / "best", holdout=0.65
    )
    assert best.expected["signals"] == ["norm of kernel", "neighbours of kernel", *BANK_SIGNALS]


def test_what_a_soft_bank_does_to_predictions_does_not_hide_how_near_they_were(cache, tmp_path):
    run = ipc.fit(
        cache,
        "kernel",
        settings=HEADS["kernel"],
        soften="train",
        run=tmp_path / "plain",
        folds=3,
        leakage_gap=False,
    )
    head, X = run.estimator, features_of(cache, run)[:5]
    head.draw_towards(unit_rows(1, 384, 5), 0.04, 0.5)
    sure = head.predict_with_signals(X)
    vectors, unsoftened = sure.vectors, sure.unsoftened
    np.testing.assert_array_equal(vectors, head.predict(X))
    assert (cosine(vectors, unsoftened) < 0.99).all()
    softened = run.expectation.expect(head.predict_with_signals(X))
    head.draw_towards(unit_rows(1, 384, 5), 0.04, 0.0)
    np.testing.assert_array_equal(head.predict(X), unsoftened)
    np.testing.assert_array_equal(run.expectation.expect(head.predict_with_signals(X)), softened)


def test_a_prediction_is_shorter_where_the_targets_near_it_disagree():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5)).astype(np.float32)
    y = unit(np.tile(unit_rows(1, 8, 1), (200, 1)) + rng.normal(size=(200, 8)) * (X[:, :1] > 0) * 3)
    head = make_head("kernel", gain=1.0, alpha=0.1).fit(X, y)
    norm = head.predict_with_signals(X).signals["norm"]
    assert norm[X[:, 0] < -0.5].mean() > 1.3 * norm[X[:, 0] > 0.5].mean()


def evaluated(y, fold, groups, seed=0, spread=1.0):
    """Predictions that are off by more where a signal is lower, and what is expected of them."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(-1, 0, len(y))
    predictions = unit(y + spread * (0.1 - sure[:, None]) * rng.normal(size=y.shape))
    split = Split("group", 0, fold, groups)
    held = split.validation
    head = make_head("ridge", alpha=1.0).fit(np.eye(len(y), 3, dtype=np.float32), y)
    evaluation = Evaluation(head, [], predictions[held], None, {"norm": sure[held]})
    return evaluation, split, head, cosine(predictions[held], y[held])


def test_a_signal_that_tells_is_found_and_scored_on_other_groups():
    y = unit_rows(600, 16, 1)
    evaluation, split, head, cosines = evaluated(y, np.arange(600) % 5, np.arange(600) // 3)
    expectation, record = fit_expectation(head, evaluation, y, split, np.arange(600))
    assert record["spearman"] > 0.65
    assert record["calibration_error"] < 0.05
    assert record["n"] == 600
    assert record["signals"][0] == "norm"
    found = expectation.expect(SureTargets.of(evaluation.predictions, evaluation.signals))
    assert np.corrcoef(found, cosines)[0, 1] > 0.65
    kept = record["coverage"][-1]
    assert kept["cosine"] > kept["min_expected"]


def test_held_out_rows_are_compared_with_prompts_before_a_soft_bank_draws_them():
    y = unit_rows(300, 16, 1)
    evaluation, split, head, _ = evaluated(y, np.arange(300) % 5, np.arange(300) // 3)
    wanted, _ = held_out_signals(head, evaluation, y, split, np.arange(300))
    drawn = replace(evaluation, predictions=unit_rows(300, 16, 9), unsoftened=evaluation.predictions)
    found, _ = held_out_signals(head, drawn, y, split, np.arange(300))
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


def test_signals_that_say_nothing_are_scored_as_such():
    y = unit_rows(600, 16, 1)
    evaluation, split, head, _ = evaluated(y, np.arange(600) % 5, np.arange(600) // 3)
    turned = np.random.default_rng(1).permutation(600)
    noise = Evaluation(head, [], unit_rows(600, 16, 5), None, {"norm": evaluation.signals["norm"][turned]})
    _, record = fit_expectation(head, noise, y, split, np.arange(600))
    assert abs(record["spearman"] or 0.0) < 0.15


def test_the_bank_of_a_row_has_no_prompt_of_its_group_whatever_the_split():
    """Predictions know nothing; only the true prompt in the bank could tell which of them are near it."""
    true = unit_rows(120, 4, 2)
    y, fold = np.tile(true, (2, 1)), np.repeat([0, -1], 120)
    head = make_head("ridge", alpha=1.0).fit(np.eye(240, 3, dtype=np.float32), y)
    evaluation = Evaluation(head, [], unit(-true + 0.9 * unit_rows(120, 4, 3)), None)
    scored = {}
    for name, groups in (("told apart", np.arange(240)), ("one group", np.tile(np.arange(120), 2))):
        split = Split("mine", 0, fold, groups)
        scored[name] = fit_expectation(head, evaluation, y, split, np.arange(240))[1]
    assert "nearest" in scored["told apart"]["signals"]
    assert scored["one group"]["signals"] == []  # every prompt is of a held-out group
    assert scored["one group"]["spearman"] is None


def test_only_prompts_of_other_groups_are_compared_with(monkeypatch):
    y = unit_rows(300, 8, 2)
    groups = np.arange(300) // 2
    seen = []
    real = module.bank_signals
    monkeypatch.setattr(module, "bank_signals", lambda p, bank: seen.append(bank) or real(p, bank))
    fold = np.random.default_rng(0).integers(0, 3, 300)  # it divides groups
    evaluation, split, head, _ = evaluated(y, fold, groups)
    expectation, _ = fit_expectation(head, evaluation, y, split, np.arange(300))
    row_of = {row.tobytes(): number for number, row in enumerate(y)}
    assert len(seen) == 3
    for bank, (_, held) in zip(seen, split.sides, strict=True):
        rows = [row_of[row.tobytes()] for row in bank]
        assert not {*groups[rows]} & {*groups[held]}
        assert len(rows) <= len(expectation.bank)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(seed):
    y = unit_rows(200, 8, seed)
    fold, groups = np.arange(200) % 2, np.arange(200) // 4
    evaluation, split, head, _ = evaluated(y, fold, groups, seed)
    order = np.random.default_rng(seed).permutation(200)
    turned = Evaluation(
        head, [], evaluation.predictions[order], None, {"norm": evaluation.signals["norm"][order]}
    )
    expectation, _ = fit_expectation(head, evaluation, y, split, np.arange(200))
    other = Split("group", 0, fold[order], groups[order])
    again, _ = fit_expectation(head, turned, y[order], other, np.arange(200))
    assert again.signals == expectation.signals
    np.testing.assert_allclose(again.curve.weight, expectation.curve.weight, atol=1e-4)
    np.testing.assert_allclose(again.curve.levels, expectation.curve.levels, atol=1e-4)


@pytest.mark.parametrize(("rows", "groups"), [(FEWEST - 1, np.arange(200)), (150, np.zeros(200, int))])
def test_too_few_rows_or_groups_give_the_mean(rows, groups):
    y = unit_rows(200, 8, 0)
    evaluation, split, head, cosines = evaluated(y, np.where(np.arange(200) < rows, 0, -1), groups)
    expectation, record = fit_expectation(head, evaluation, y, split, np.arange(200))
    assert record["signals"] == record["coverage"] == []
    assert record["spearman"] is record["calibration_error"] is None
    np.testing.assert_allclose(expectation.expect(SureTargets.of(y, {})), cosines.mean(), atol=1e-6)


def test_banks_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "LARGEST_BANK", 50)
    y = unit_rows(400, 8, 0)
    evaluation, split, head, _ = evaluated(y, np.arange(400) % 2, np.arange(400))
    expectation, _ = fit_expectation(head, evaluation, y, split, np.arange(400))
    assert expectation.bank.shape == (50, 8)


def test_the_command_says_how_well_it_knows_or_that_it_does_not(cache, tmp_path, capsys):
    cli = Cli(capsys)
    said = cli("fit", "--head", "ridge", "--cache", cache, "--folds", 5, "--run", tmp_path / "run")
    assert "expected cosine of a prediction: rank correlation" in said.out
    said = cli("fit", "--head", "ridge", "--cache", cache, "--run", tmp_path / "few", "--json")
    assert said.json["expected"]["signals"] == []
    assert json.loads((tmp_path / "few" / "run.json").read_text())["expected"] == said.json["expected"]
    said = cli("fit", "--head", "mean", "--cache", cache, "--run", tmp_path / "mean")
    assert "too few held-out rows (32) or groups to tell good predictions from bad ones" in said.out
