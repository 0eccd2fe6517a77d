"""What must not change a prediction: how rows are ordered, how blocks are scaled, what tells nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimators import BLOCKS, problem
from img2prompt_cache.heads import make_head
from img2prompt_cache.numerics.metrics import mean_cosine

GIVEN = {
    "kernel": {"gain": (2.0, 1.0), "alpha": 0.1, "whiten": True},
    "ridge": {"alpha": (3.0, 10.0)},
}
"""Settings of heads that then choose nothing."""
CHOOSING = {
    "kernel": {},
    "ridge": {},
    "best": {"members": ({"head": "ridge"}, {"head": "kernel"}, {"head": "knn", "settings": {"k": 5}})},
}
NEW = problem(40, 1)[0]


def pairs(n=120):
    """As `problem`, with two images for each prompt."""
    X, y, _ = problem(n)
    y[1::2] = y[::2]
    return X, y, np.arange(n) // 6


def predicted(name, settings, X, y, groups, new=NEW, widths=BLOCKS):
    return make_head(name, **settings).fit(X, y, groups=groups, widths=widths).predict(new)


def without_knn(name):
    """To knn the scales of features say what counts, and every block counts the same."""
    settings = dict(CHOOSING[name])
    return {"members": settings["members"][:2]} if name == "best" else settings


def alike(one, other, atol):
    np.testing.assert_allclose(one, other, rtol=0, atol=atol)


@pytest.mark.parametrize("name", GIVEN)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(name, seed):
    X, y, groups = pairs()
    order = np.random.default_rng(seed).permutation(len(X))
    alike(
        predicted(name, GIVEN[name], X[order], y[order], groups[order]),
        predicted(name, GIVEN[name], X, y, groups),
        2e-4,
    )


@pytest.mark.parametrize("name", CHOOSING)
def test_the_order_of_rows_within_their_groups_does_not_matter_where_settings_are_chosen(name):
    """Folds are drawn in the order in which groups appear, which stays."""
    X, y, groups = pairs()
    order = np.lexsort([np.random.default_rng(0).random(len(X)), groups])
    assert not np.array_equal(order, np.arange(len(X)))
    alike(
        predicted(name, CHOOSING[name], X[order], y[order], groups[order]),
        predicted(name, CHOOSING[name], X, y, groups),
        2e-3,
    )


@pytest.mark.parametrize("name", GIVEN)
@given(scales=st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), shift=st.floats(-5, 5))
def test_neither_the_scale_of_a_block_nor_its_origin_matters(name, scales, shift):
    X, y, groups = pairs()
    factor = np.repeat(scales, BLOCKS).astype(np.float32)
    moved, new = ((each + np.float32(shift)) * factor for each in (X, NEW))
    alike(
        predicted(name, GIVEN[name], moved, y, groups, new), predicted(name, GIVEN[name], X, y, groups), 1e-3
    )


@pytest.mark.parametrize("name", CHOOSING)
def test_the_scale_of_a_block_does_not_matter_where_settings_are_chosen(name):
    X, y, groups = pairs()
    factor = np.repeat([100.0, 0.01], BLOCKS).astype(np.float32)
    settings = without_knn(name)
    alike(
        predicted(name, settings, X * factor, y, groups, NEW * factor),
        predicted(name, settings, X, y, groups),
        5e-3,
    )


@pytest.mark.parametrize("name", GIVEN)
def test_rows_that_stand_twice_count_as_half_the_penalty(name):
    X, y, groups = pairs()
    alpha = np.asarray(GIVEN[name]["alpha"])
    doubled = {**GIVEN[name], "alpha": (2 * alpha).tolist()}
    twice = [np.concatenate([each, each]) for each in (X, y, groups)]
    alike(predicted(name, doubled, *twice), predicted(name, GIVEN[name], X, y, groups), 2e-4)


@pytest.mark.parametrize("name", CHOOSING)
def test_rows_that_stand_twice_change_little_where_settings_are_chosen(name):
    X, y, groups = pairs()
    twice = [np.concatenate([each, each]) for each in (X, y, groups)]
    found = predicted(name, CHOOSING[name], *twice)
    assert mean_cosine(found, predicted(name, CHOOSING[name], X, y, groups)) > 0.98


@pytest.mark.parametrize("name", CHOOSING)
def test_one_block_is_what_a_head_takes_where_no_widths_are_given(name):
    X, y, groups = pairs()
    one = predicted(name, CHOOSING[name], X, y, groups, widths=(sum(BLOCKS),))
    assert np.array_equal(one, predicted(name, CHOOSING[name], X, y, groups, widths=None))


@pytest.mark.parametrize("name", CHOOSING)
@pytest.mark.parametrize("value", [0.0, 7.5])
def test_features_that_are_the_same_in_every_row_tell_nothing(name, value):
    X, y, groups = pairs()
    columns = np.full((len(X), 3), value, np.float32)
    more = np.hstack([X, columns])
    new = np.hstack([NEW, columns[: len(NEW)]])
    widths = (BLOCKS[0], BLOCKS[1] + 3)
    alike(
        predicted(name, CHOOSING[name], more, y, groups, new, widths),
        predicted(name, CHOOSING[name], X, y, groups),
        5e-3,
    )


@pytest.mark.parametrize("name", CHOOSING)
def test_a_block_that_is_the_same_in_every_row_tells_nothing(name):
    X, y, groups = pairs(180)
    new = np.hstack([NEW, np.ones((len(NEW), 3), np.float32)])
    settings, more = without_knn(name), np.hstack([X, np.ones_like(X[:, :3])])
    found = predicted(name, settings, more, y, groups, new, (*BLOCKS, 3))
    assert np.isfinite(found).all()
    assert mean_cosine(found, predicted(name, settings, X, y, groups)) > 0.98
