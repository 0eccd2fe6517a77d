from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import cosine_similarity

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.kernel_ridge import (
    cross_validated_cosine,
    fit_exact,
    kernel,
    normalise_blocks,
    nystroem_map,
    sample_landmarks,
    scale_blocks,
    search,
)
from img2prompt_cache.numerics.metrics import mean_cosine, unit

BLOCKS = (5, 8)
GAINS = np.array([2.0, 0.5])


def problem(n=90, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, sum(BLOCKS))).astype(np.float32)
    y = np.tanh(x[:, :4]) + 0.2 * rng.normal(size=(n, 4)) + 0.3
    return x, unit(y).astype(np.float64), np.arange(n) % 3


def scaled(x, gains=GAINS):
    return scale_blocks(normalise_blocks(x, BLOCKS), BLOCKS, gains)


def oracle(a, b, gains=GAINS):
    """The kernel by its definition, in float64."""
    parts = zip(np.split(a.astype(float), [5], axis=1), np.split(b.astype(float), [5], axis=1), strict=True)
    return np.exp(sum(g * (cosine_similarity(*pair) - 1) for g, pair in zip(gains, parts, strict=True)))


def test_the_kernel_is_what_its_formula_says():
    x, _, _ = problem()
    x[3] = 0
    got = kernel(scaled(x), scaled(x[:20]), GAINS)
    np.testing.assert_allclose(got, oracle(x, x[:20]), atol=1e-6)


@pytest.mark.parametrize("alpha", [1e-3, 0.3, 50.0])
def test_the_exact_fit_equals_scikit_learn(alpha):
    x, y, _ = problem()
    dual = fit_exact(kernel(scaled(x), scaled(x), GAINS), y, alpha)
    fitted = KernelRidge(alpha=alpha, kernel="precomputed").fit(oracle(x, x), y)
    new = problem(seed=1)[0]
    np.testing.assert_allclose(
        kernel(scaled(new), scaled(x), GAINS) @ dual, fitted.predict(oracle(new, x)), atol=1e-4
    )


def test_identical_rows_need_a_penalty():
    x, y, _ = problem()
    rows = np.vstack([scaled(x), scaled(x)])
    with pytest.raises(Img2PromptError, match="penalty 1e-300 is too small"):
        fit_exact(kernel(rows, rows, GAINS), np.vstack([y, y]), 1e-300)


def test_all_rows_as_landmarks_give_the_kernel_back():
    x, _, _ = problem()
    rows = scaled(np.vstack([x, x[:10]]))
    features = kernel(rows, rows, GAINS) @ nystroem_map(rows, GAINS)
    np.testing.assert_allclose(features @ features.T, kernel(rows, rows, GAINS), atol=2e-3)


def test_landmarks_are_distinct_rows_and_prefer_the_rare():
    rng = np.random.default_rng(0)
    common = rng.normal(size=13) + 0.01 * rng.normal(size=(900, 13))
    x = np.vstack([common, rng.normal(size=(100, 13))]).astype(np.float32)
    picked = sample_landmarks(scaled(x), GAINS, 0.1, 150, 0)
    assert len(np.unique(picked)) == 150
    assert np.array_equal(picked, sample_landmarks(scaled(x), GAINS, 0.1, 150, 0))
    assert np.count_nonzero(picked >= 900) > 70


def centred_cosines(x):
    return [
        (part @ part.T - 1).astype(float)
        for part in np.split(normalise_blocks(x, BLOCKS), [BLOCKS[0]], axis=1)
    ]


def test_the_score_is_that_of_refitting():
    x, y, fold = problem()
    score, _, _ = cross_validated_cosine(centred_cosines(x), y, fold, GAINS, np.array([0.3]))
    values, found = oracle(x, x), []
    for k in range(3):
        train, mean = fold != k, y[fold != k].mean(axis=0)
        model = KernelRidge(alpha=0.3, kernel="precomputed").fit(
            values[np.ix_(train, train)], y[train] - mean
        )
        found.append(mean_cosine(model.predict(values[np.ix_(~train, train)]) + mean, y[~train]))
    assert score == pytest.approx(np.mean(found), abs=1e-5)


def test_the_gradient_is_the_slope_of_the_score():
    x, y, fold = problem()
    cosines = centred_cosines(x)
    at = np.array([*GAINS, 0.3])
    slope = approx_fprime(at, lambda p: cross_validated_cosine(cosines, y, fold, p[:2], p[2:])[0], 1e-6)
    _, by_gain, by_alpha = cross_validated_cosine(cosines, y, fold, GAINS, np.array([0.3]))
    np.testing.assert_allclose([*by_gain, *by_alpha], slope, rtol=1e-4, atol=1e-8)


def chosen(**given):
    x, y, fold = problem()
    tried = []
    found = search(
        normalise_blocks(x, BLOCKS),
        y,
        fold,
        BLOCKS,
        **{"gains": None, "alpha": None, **given},
        on_evaluation=lambda gains, alpha, score: tried.append((score, *gains, *alpha)),
    )
    return found, tried


def test_search_ends_above_its_start_and_gives_little_to_a_backbone_of_noise():
    (gains, alpha), tried = chosen()
    assert max(tried)[0] > tried[0][0] + 0.01
    assert gains[0] > 3 * gains[1]
    assert alpha > 0


def test_what_is_given_is_not_chosen():
    (gains, alpha), tried = chosen(gains=GAINS)
    assert gains is GAINS
    assert len({record[-1] for record in tried}) > 1
    (gains, alpha), tried = chosen(alpha=np.array([0.7]))
    assert alpha.tolist() == [0.7]
    assert len({record[1] for record in tried}) > 1
    assert all(record[-1] == pytest.approx(0.7) for record in tried)


def test_each_kind_has_a_penalty_and_a_mean_of_its_own():
    x, y, fold = problem()
    kinds = (np.arange(len(x)) % 4 == 3).astype(int)
    y[kinds == 1] = unit(y[kinds == 1] + np.array([0, 0, 5.0, 0]))
    fold = np.where(kinds == 1, -1, fold)
    alphas = np.array([0.3, 0.8])
    score, _, _ = cross_validated_cosine(centred_cosines(x), y, fold, GAINS, alphas, kinds)
    values, found = oracle(x, x), []
    for k in range(3):
        train = np.flatnonzero(fold != k)
        held = np.flatnonzero(fold == k)
        means = np.stack([y[train][kinds[train] == kind].mean(axis=0) for kind in (0, 1)])
        penalised = values[np.ix_(train, train)] + np.diag(alphas[kinds[train]])
        dual = np.linalg.solve(penalised, y[train] - means[kinds[train]])
        found.append(mean_cosine(values[np.ix_(held, train)] @ dual + means[0], y[held]))
    assert score == pytest.approx(np.mean(found), abs=1e-5)


def test_the_gradient_is_right_with_kinds_too():
    x, y, fold = problem()
    kinds = (np.arange(len(x)) % 4 == 3).astype(int)
    fold = np.where(kinds == 1, -1, fold)
    cosines = centred_cosines(x)
    at = np.array([*GAINS, 0.3, 0.8])

    def score(p):
        return cross_validated_cosine(cosines, y, fold, p[:2], p[2:], kinds)[0]

    _, by_gain, by_alpha = cross_validated_cosine(cosines, y, fold, GAINS, at[2:], kinds)
    np.testing.assert_allclose([*by_gain, *by_alpha], approx_fprime(at, score, 1e-6), rtol=1e-4, atol=1e-8)


def test_single_precision_searches_as_double_does():
    x, y, fold = problem()
    half = [each.astype(np.float32) for each in centred_cosines(x)]
    exact = cross_validated_cosine(centred_cosines(x), y, fold, GAINS, np.array([0.3]))
    found = cross_validated_cosine(half, y.astype(np.float32), fold, GAINS, np.array([0.3]))
    for ours, oracle_ in zip(found, exact, strict=True):
        np.testing.assert_allclose(ours, oracle_, rtol=1e-3, atol=1e-5)
