from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads import kernel as module
from img2prompt_cache.heads import kernel_choice
from img2prompt_cache.heads.kernel import Kernel
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.numerics import kernel_ridge
from img2prompt_cache.numerics.metrics import mean_cosine, unit


def problem(n=200, seed=0):
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(n, 12)) * rng.uniform(0.1, 5, 12) + 2).astype(np.float32)
    z = (X - 2) / np.random.default_rng(0).uniform(0.1, 5, 12)
    return X, unit(np.sin(2 * z[:, :6]) + 0.2 * rng.normal(size=(n, 6)) + 0.3), np.arange(n) // 4


@pytest.mark.parametrize("blocks", [(12,), (6, 6)])
def test_kernel_equals_scikit_learn(blocks):
    X, y, _ = problem()
    new = problem(seed=1)[0]
    gain, alpha = 2.0, 0.1
    head = Kernel(gain=gain, alpha=alpha).fit(X, y, widths=blocks)
    scaler = StandardScaler().fit(X.astype(float))

    def values(a, b):
        edges = np.cumsum(blocks)[:-1]
        a, b = (np.split(scaler.transform(x.astype(float)), edges, axis=1) for x in (a, b))
        pairs = [
            (u / np.linalg.norm(u, axis=1)[:, None], v / np.linalg.norm(v, axis=1)[:, None])
            for u, v in zip(a, b, strict=True)
        ]
        return np.exp(sum(gain * (u @ v.T - 1) for u, v in pairs))

    mean = y.mean(axis=0)
    oracle = KernelRidge(alpha=alpha, kernel="precomputed").fit(values(X, X), y - mean)
    np.testing.assert_allclose(head.predict(new), unit(oracle.predict(values(new, X)) + mean), atol=2e-4)


def test_what_is_chosen_beats_a_linear_map_where_the_truth_is_not_linear():
    (X, y, groups), (new, true, _) = problem(), problem(seed=1)
    head = Kernel().fit(X, y, groups=groups, widths=(6, 6))
    assert head.score(new, true) > Ridge().fit(X, y, groups=groups, widths=(6, 6)).score(new, true) + 0.02
    assert [*head.history[0]] == ["gain 1", "gain 2", "alpha", "cosine"]
    assert len(head.chosen["gain"]) == 2
    assert max(record["cosine"] for record in head.history) > head.history[0]["cosine"]


def test_landmarks_come_near_the_exact_fit(monkeypatch):
    (X, y, _), (new, true, _) = problem(900), problem(seed=1)
    exact = Kernel(gain=2.0, alpha=5.0).fit(X, y).predict(new)
    monkeypatch.setattr(module, "EXACT", 100)
    head = Kernel(gain=2.0, alpha=5.0, landmarks=300).fit(X, y)
    assert len(head.rows_) == 300
    assert mean_cosine(head.predict(new), true) == pytest.approx(mean_cosine(exact, true), abs=0.01)
    few = Kernel(gain=2.0, alpha=5.0, landmarks=20).fit(X, y)
    assert mean_cosine(few.predict(new), exact) < mean_cosine(head.predict(new), exact) < 1
    assert np.array_equal(clone(head).load_state(head.state()).predict(new), head.predict(new))


def test_every_row_as_a_landmark_is_the_exact_fit(monkeypatch):
    X, y, _ = problem(150)
    exact = Kernel(gain=1.0, alpha=1.0).fit(X, y).predict(X)
    monkeypatch.setattr(module, "EXACT", 100)
    same = Kernel(gain=1.0, alpha=1.0, landmarks=999).fit(X, y).predict(X)
    np.testing.assert_allclose(same, exact, atol=5e-3)


def test_settings_are_chosen_on_a_sample_of_every_fold(monkeypatch):
    monkeypatch.setattr(kernel_choice, "MOST", 60)
    X, y, groups = problem()
    head = Kernel().fit(X, y, groups=groups)
    assert len(head.rows_) == 200
    fold = np.repeat([0, 1, 2], [150, 49, 1])
    monkeypatch.setattr(kernel_choice, "MOST", 20)
    monkeypatch.setattr(kernel_choice, "k_folds", lambda groups, folds, seed: fold)
    drawn, folds = kernel_choice.drawn_rows(np.arange(200), np.zeros(200, int), 3, 0)
    assert np.array_equal(folds, fold[drawn])
    assert np.bincount(folds).tolist() == [15, 5, 1]
    assert (np.diff(drawn) > 0).all()


def test_wrong_settings_are_refused():
    X, y, groups = problem(40)
    for setting in ("gain", "alpha"):
        for value in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(UsageError, match=f"'{setting}' of head 'kernel' must be finite and above 0"):
                Kernel(**{setting: value}).fit(X, y)
    with pytest.raises(UsageError, match="'landmarks' of head 'kernel' must be at least 1"):
        Kernel(landmarks=0).fit(X, y)
    with pytest.raises(UsageError, match="one number, or one for each of 2 backbones"):
        Kernel(gain=(1.0, 2.0, 3.0)).fit(X, y, widths=(6, 6))
    with pytest.raises(UsageError, match=r"1 group .* cannot fill 5 folds"):
        Kernel().fit(X, y, groups=0 * groups)


def test_blocks_that_do_not_fit_the_saved_rows_are_refused():
    X, y, _ = problem(40)
    state = Kernel(gain=1.0, alpha=1.0).fit(X, y, widths=(6, 6)).state()
    with pytest.raises(Img2PromptError, match="'blocks' sum to 11"):
        Kernel().load_state({**state, "blocks": np.array([6, 5])})


@pytest.mark.parametrize("alpha", [1e-4, 0.1])
@pytest.mark.parametrize("exact", [True, False])
def test_predictions_do_not_depend_on_the_number_of_threads(exact, alpha, monkeypatch):
    """The bytes of the solution may: the order of sums in BLAS does."""
    monkeypatch.setattr(module, "EXACT", 10_000 if exact else 300)
    X, y, _ = problem(600)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            head = Kernel(gain=2.0, alpha=alpha, landmarks=100).fit(X, y)
            found.append(head.predict(problem(seed=1)[0]))
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("exact", [True, False])
def test_the_head_says_how_far_the_targets_of_similar_rows_agree(exact, monkeypatch):
    monkeypatch.setattr(module, "EXACT", 10_000 if exact else 100)
    (X, y, _), (new, _, _) = problem(300), problem(seed=1)
    head = Kernel(gain=2.0, alpha=0.1, landmarks=120).fit(X, y)
    sure = head.predict_with_signals(new)
    vectors, signals = sure.vectors, sure.signals
    np.testing.assert_allclose(vectors, head.predict(new), atol=1e-6)
    assert tuple(signals) == head.signals == ("norm", "neighbours")
    values = kernel_ridge.kernel(head._scaled(new), head.rows_, head.gains_)
    raw = values @ head.dual_ + head.intercept_
    np.testing.assert_allclose(signals["norm"], np.linalg.norm(raw, axis=1), rtol=1e-5)
    # The rows that were kept are found again by their features: each has a target of its own.
    targets = y[np.argmax(kernel_ridge.kernel(head.rows_, head._scaled(X), head.gains_), axis=1)]
    for row in (0, 7):
        top = np.argsort(-values[row])[:10]
        mean = np.average(targets[top], axis=0, weights=values[row][top])
        assert signals["neighbours"][row] == pytest.approx(np.linalg.norm(mean), abs=2e-3)
    loaded = clone(head).load_state(head.state())
    np.testing.assert_array_equal(
        loaded.predict_with_signals(new).signals["neighbours"], signals["neighbours"]
    )


def test_a_head_that_was_saved_without_targets_says_less():
    X, y, _ = problem(40)
    state = Kernel(gain=1.0, alpha=1.0).fit(X, y).state()
    targets = state.pop("targets")
    old = Kernel().load_state(state)
    assert old.signals == tuple(old.predict_with_signals(X).signals) == ("norm",)
    assert "targets" not in old.state()
    with pytest.raises(Img2PromptError, match=r"the saved head's 'targets', .* is not what was fitted"):
        Kernel().load_state({**state, "targets": targets[:-1]})
