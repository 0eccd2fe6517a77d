from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from img2prompt_cache.numerics.kernel_ridge import fit_exact
from img2prompt_cache.numerics.metrics import cosine, unit
from img2prompt_cache.numerics.within_class import SHRINKAGE, fit_normalisation, held_out_gain


def problem(n=60, seed=0):
    """Rows of unit length; classes of one to three rows."""
    rng = np.random.default_rng(seed)
    classes = np.sort(rng.integers(n // 2, size=n))
    rows = rng.normal(size=(n // 2, 8))[classes] + rng.normal(size=(n, 8)) * np.linspace(0.1, 2, 8)
    return unit(rows), classes


def normalised(rows, classes, new):
    """The cosines of normalised rows by their definition, with the covariance matrix."""
    centred = rows.astype(np.float64).copy()
    for number in np.unique(classes):
        centred[classes == number] -= centred[classes == number].mean(axis=0)
    within = centred.T @ centred
    ridge = SHRINKAGE * np.trace(within) * np.eye(rows.shape[1])
    root = linalg.inv(linalg.sqrtm(within + ridge))
    a, b = (each / np.linalg.norm(each, axis=1)[:, None] for each in (new @ root, rows @ root))
    return a @ b.T


def test_the_kernel_is_that_of_rows_normalised_by_their_covariance():
    rows, classes = problem()
    new = problem(seed=1)[0]
    found = fit_normalisation(rows @ rows.T, classes)
    assert 0 < len(found.members) < len(rows)
    for each in (new, rows):
        squares = np.einsum("ij,ij->i", each, each)
        got = found.kernel(each @ rows.T, squares, 2.5)
        np.testing.assert_allclose(got, np.exp(2.5 * (normalised(rows, classes, each) - 1)), atol=1e-5)


def test_a_row_of_zeros_has_cosine_0():
    rows, classes = problem()
    rows[0] = 0
    found = fit_normalisation(rows @ rows.T, classes)
    values = found.kernel(np.zeros((1, len(rows)), np.float32), np.zeros(1, np.float32), 2.0)
    np.testing.assert_allclose(values, np.exp(-2.0), atol=1e-6)


def test_there_is_nothing_to_discount_where_rows_of_a_class_do_not_differ():
    rows, _ = problem()
    assert fit_normalisation(rows @ rows.T, np.arange(len(rows))) is None
    twice = np.vstack([rows, rows])
    assert fit_normalisation(twice @ twice.T, np.tile(np.arange(len(rows)), 2)) is None


@pytest.mark.parametrize("extra", [0, 20])
def test_the_gain_is_measured_on_rows_that_nothing_was_fitted_on(extra):
    rows, classes = problem()
    y = unit(np.random.default_rng(2).normal(size=(60, 5)) + rows[:, :5]).astype(np.float64)
    kinds = np.arange(60) // (60 - extra) if extra else np.zeros(60, int)
    fold = np.where(kinds == 0, classes % 3, -1)
    alpha, total = np.array([0.1, 0.3])[: 1 + kinds.max()], 3.0
    scale = np.float32(np.sqrt(total))
    products = (scale * rows) @ (scale * rows).T
    gain = held_out_gain(products, y, fold, kinds, classes, total=total, alpha=alpha)
    assert not gain[fold < 0].any()
    for number in range(3):
        held, train = fold == number, fold != number
        mean = y[train & (kinds == 0)].mean(axis=0)
        own = np.stack([y[train & (kinds == kind)].mean(axis=0) for kind in range(1 + extra // 20)])
        centred = y[train] - own[kinds[train]]
        scores = []
        for cosines in (
            lambda a, t=train: rows[a] @ rows[t].T,
            lambda a, t=train: normalised(rows[t], classes[t], rows[a]),
        ):
            inner = np.exp(total * (cosines(train) - 1)).astype(np.float32)
            dual = fit_exact(inner, centred, alpha[kinds[train]])
            scores.append(cosine(np.exp(total * (cosines(held) - 1)) @ dual + mean, y[held]))
        np.testing.assert_allclose(gain[held], scores[1] - scores[0], atol=2e-4)
