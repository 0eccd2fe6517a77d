from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone

from estimators import BLOCKS, MEMBERS, problem
from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads import make_head
from img2prompt_cache.numerics import blending, soft_bank
from img2prompt_cache.numerics.blending import ablation, best_weights, cross_weights, inner_products, mix
from img2prompt_cache.numerics.metrics import unit


def test_weights_come_from_rows_that_no_member_was_fitted_on():
    X, y, groups = problem()
    head = make_head("blend", members=MEMBERS).fit(X, y, groups=groups, widths=BLOCKS)
    fold = k_folds(groups, 5, 0)
    views = [X[:, :12], X[:, [*range(12, 20), *range(12)]], X]
    blocks = [(12,), (8, 12), BLOCKS]
    settings = [{}, {"k": 5}, {}]
    held, whole = [], []
    for view, widths, member, given in zip(views, blocks, MEMBERS, settings, strict=True):
        found = np.empty_like(y)
        for number in range(5):
            out = fold == number
            made = make_head(member["head"], **given)
            made.fit(view[~out], y[~out], groups=groups[~out], widths=widths)
            found[out] = made.predict(view[out])
        held.append(found)
        made = make_head(member["head"], **given).fit(view, y, groups=groups, widths=widths)
        whole.append(made.predict(view))
    weights = best_weights(inner_products(held, y))
    np.testing.assert_allclose(head.weights_, weights, atol=1e-6)
    np.testing.assert_allclose(head.predict(X), mix(whole, weights), atol=1e-5)
    assert [record["weight"] for record in head.history] == head.weights_.tolist()


def test_a_member_sees_the_blocks_inside_its_columns():
    X, y, groups = problem()
    members = [
        {"head": "kernel", "settings": {"gain": [1.0, 2.0], "alpha": 0.1}, "columns": [[0, 12]]},
        {"head": "kernel", "settings": {"gain": [1.0, 2.0], "alpha": 0.1}, "columns": [[5, 12], [0, 5]]},
    ]
    head = make_head("blend", members=members).fit(X, y, groups=groups, widths=(5, 7, 8))
    assert [each.widths_.tolist() for each in head.heads_] == [[5, 7], [7, 5]]


def test_weights_that_sum_to_1_up_to_rounding_are_taken_to_the_last_bit():
    X, y, _ = problem()
    weights = [0.9924792586037359, 0.0075207413962640095]
    assert sum(weights) != 1
    members = [{"head": "ridge", "settings": {"alpha": 1.0}}, {"head": "mean"}]
    head = make_head("blend", members=members, weights=weights).fit(X, y)
    assert head.chosen["weights"] == weights


def test_a_member_of_weight_0_is_not_asked():
    X, y, _ = problem()
    head = make_head("blend", members=[{"head": "ridge", "settings": {"alpha": 1.0}}, {"head": "mean"}])
    head.set_params(weights=[2.0, 0.0]).fit(X, y)
    alone = make_head("ridge", alpha=1.0).fit(X, y)
    assert head.heads_[1] is None
    np.testing.assert_allclose(head.predict(X), alone.predict(X), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"members": []}, "needs `members`"),
        ({"members": [{"head": "blend"}]}, "no blend itself"),
        ({"members": [{"settings": {}}]}, "not None"),
        ({"members": [{"head": "rigde"}]}, "did you mean ridge"),
        ({"members": [{"head": "mean", "columns": []}]}, r"takes columns \[\]"),
        (
            {"members": [{"head": "mean", "columns": [[0, 21]]}]},
            r"columns \[\(0, 21\)\], but there are 20 features",
        ),
        ({"members": [{"head": "mean"}], "weights": [1.0, 1.0]}, "one for each member, at least 0"),
        ({"members": [{"head": "mean"}], "weights": [-1.0]}, "one for each member, at least 0"),
        ({"members": [{"head": "mean"}], "weights": [0.0]}, "not all 0"),
        ({"members": [{"head": "mean"}], "weights": [float("nan")]}, "finite numbers"),
    ],
)
def test_wrong_members_and_weights(settings, words):
    X, y, groups = problem()
    with pytest.raises(UsageError, match=words):
        make_head("blend", **settings).fit(X, y, groups=groups, widths=BLOCKS)


def test_settings_of_another_type_are_refused():
    with pytest.raises(UsageError, match="takes members as list"):
        make_head("blend", members=["ridge"])


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [0.0, 0.0]])
def test_tampered_weights(weights):
    X, y, _ = problem()
    head = make_head("blend", members=[{"head": "mean"}, {"head": "nearest"}], weights=[1.0, 1.0])
    state = head.fit(X, y).state()
    with pytest.raises(Img2PromptError, match="'weights' are"):
        clone(head).load_state({**state, "weights": np.array(weights)})


def test_a_soft_bank_of_an_older_run_is_used_whole():
    X, y, groups = problem()
    head = make_head("blend", members=[{"head": "ridge"}], temperature=0.2, pull=0.7)
    head.fit(X, y, groups=groups, widths=BLOCKS, bank=y[:0])
    state = head.state()
    assert state["soft"].tolist() == [0.2, 0.7, soft_bank.NEAREST]
    assert np.array_equal(clone(head).load_state(state).predict(X), head.predict(X))
    old = clone(head).load_state({**state, "soft": state["soft"][:2]})
    ridge = make_head("ridge").fit(X, y, groups=groups, widths=BLOCKS).predict(X)
    bank = state["bank"].astype(np.float32)
    np.testing.assert_allclose(old.predict(X), soft_bank.soften(ridge, bank, 0.2, 0.7, 0), atol=1e-5)
    assert not np.allclose(old.predict(X), head.predict(X), atol=1e-3)
    for broken in ([0.2], [0.2, 0.7, 30, 1], [0.0, 0.7, 30]):
        with pytest.raises(Img2PromptError, match="'soft' is"):
            clone(head).load_state({**state, "soft": np.array(broken)})


@pytest.mark.parametrize("members", [2, 3])
def test_weights_are_found_in_the_memory_that_is_said_to_be_needed(members, monkeypatch):
    monkeypatch.setattr(blending, "ROWS", 200)
    rng, n = np.random.default_rng(0), 6_000
    y = unit(rng.normal(size=(n, 4)))
    predictions = [unit(y + step * rng.normal(size=y.shape)) for step in range(1, members + 1)]
    fold = rng.integers(0, 5, n)
    best_weights(
        inner_products([each[:99] for each in predictions], y[:99])
    )  # what is imported is not counted
    tracemalloc.start()
    known = inner_products(predictions, y)
    ablation(known, fold, best_weights(known))
    cross_weights(known, fold)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < make_head("blend", members=[{"head": "mean"}] * members).least_memory(n)
