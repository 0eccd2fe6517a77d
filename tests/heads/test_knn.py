from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.base import clone
from sklearn.neighbors import KNeighborsRegressor

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads import knn as module
from img2prompt_cache.heads import nearest as nearest_module
from img2prompt_cache.heads import neighbours as neighbours_module
from img2prompt_cache.heads.knn import Knn
from img2prompt_cache.heads.nearest import Nearest
from img2prompt_cache.numerics import ivf, neighbour_gains, row_blocks
from img2prompt_cache.numerics.ivf import fit_cells, hold_back
from img2prompt_cache.numerics.metrics import mean_cosine, unit


def problem(n=150):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 10)).astype(np.float32) * 3 + 1
    return X, unit(np.sin(X[:, :4]) + 0.2 * rng.normal(size=(n, 4))), np.arange(n) // 3


def standardised(X, train):
    return (X - train.mean(axis=0)) / train.std(axis=0)


@pytest.mark.parametrize(("k", "power"), [(1, 0.0), (7, 0.0), (20, 6.0)])
def test_knn_equals_scikit_learn(k, power):
    X, y, _ = problem()
    head = Knn(k=k, power=power).fit(X[:100], y[:100])
    oracle = KNeighborsRegressor(k, metric="cosine", weights=lambda d: 1 / d**power, algorithm="brute")
    oracle.fit(standardised(X[:100], X[:100]), y[:100])
    expected = unit(oracle.predict(standardised(X[100:], X[:100])))
    np.testing.assert_allclose(head.predict(X[100:]), expected, atol=5e-3)  # rows are kept in float16
    assert head.history == []


@pytest.mark.parametrize("gain", [1.0, [3.0, 1.0]])
def test_similarity_is_the_mean_of_the_blocks_cosines_weighted_by_gains(gain):
    X, y, _ = problem()
    Z = standardised(X, X)
    cosines = [unit(part) @ unit(part).T for part in (Z[:, :7], Z[:, 7:])]
    similarity = np.average(cosines, axis=0, weights=np.broadcast_to(gain, 2))
    np.fill_diagonal(similarity, -1)
    head = Nearest(gain=gain).fit(X, y, widths=(7, 3))
    got = head.vectors_.astype("f") @ head.vectors_.astype("f").T
    np.fill_diagonal(got, -1)
    np.testing.assert_allclose(got, similarity, atol=1e-3)


@pytest.mark.parametrize("gain", [1.0, 0.3, [7.0, 7.0, 7.0]])
def test_equal_gains_give_what_heads_without_gains_gave_bit_for_bit(gain):
    X, y, groups = problem()
    head = Knn(gain=gain).fit(X, y, groups=groups, widths=(5, 3, 2))
    Z = (X - head.mean_) / head.scale_
    before = np.hstack([unit(part) for part in np.split(Z, (5, 8), axis=1)]) / np.float32(np.sqrt(3))
    assert np.array_equal(head.vectors_, before.astype(np.float16))
    old = {name: array for name, array in head.state().items() if name != "gain"}
    again = Knn().load_state(old)
    assert np.array_equal(again.predict(X), head.predict(X))
    assert again.chosen["gain"] == [1.0, 1.0, 1.0]


def two_blocks(n=300):
    """A block that tells the target, and one of noise."""
    rng = np.random.default_rng(7)
    told, noise = rng.normal(size=(2, n, 6)).astype(np.float32)
    return np.hstack([told, noise]), unit(told[:, :4] + 0.3 * rng.normal(size=(n, 4))), np.arange(n) // 2


@pytest.mark.parametrize("head", [Nearest(), Knn()])
def test_a_block_of_noise_does_not_spoil_the_prediction(head):
    X, y, groups = two_blocks()
    train, held = groups < 100, groups >= 100

    def score(head, columns, widths):
        fitted = clone(head).fit(X[train, :columns], y[train], groups=groups[train], widths=widths)
        return fitted.score(X[held, :columns], y[held])

    alone, joined = score(head, 6, (6,)), score(head, 12, (6, 6))
    equal = score(clone(head).set_params(gain=1.0), 12, (6, 6))
    assert joined > alone - 0.01
    assert equal < alone - 0.02


@pytest.mark.parametrize("head", [Nearest(), Knn()])
def test_gains_that_were_learned_can_be_given_again(head):
    X, y, groups = two_blocks()
    fitted = clone(head).fit(X, y, groups=groups, widths=(6, 6))
    assert fitted.chosen["gain"][0] > 20 * fitted.chosen["gain"][1]
    again = clone(head).set_params(**fitted.chosen).fit(X, y, groups=groups, widths=(6, 6))
    assert {name: value.tobytes() for name, value in again.state().items()} == {
        name: value.tobytes() for name, value in fitted.state().items()
    }
    assert "gain" not in clone(head).fit(X, y, groups=groups).chosen


@pytest.mark.parametrize("head", [Nearest(), Knn(k=9, power=2.0)])
def test_scaling_a_block_or_permuting_rows_changes_no_prediction(head):
    X, y, groups = two_blocks()
    fitted = clone(head).fit(X, y, groups=groups, widths=(6, 6))
    scaled = X * np.repeat([8, 0.25], 6).astype("f")
    other = clone(head).fit(scaled, y, groups=groups, widths=(6, 6))
    assert np.array_equal(other.predict(scaled), fitted.predict(X))
    order = np.random.default_rng(1).permutation(len(X))
    permuted = clone(head).fit(X[order], y[order], groups=groups[order], widths=(6, 6))
    np.testing.assert_allclose(permuted.gains_, fitted.gains_, atol=1e-3)
    np.testing.assert_allclose(permuted.predict(X), fitted.predict(X), atol=2e-3)


def test_nearest_fits_on_rows_of_a_single_group():
    X, y, _ = problem()
    head = Nearest().fit(X, y, groups=np.zeros(len(X), np.int64), widths=(7, 3))
    assert head.chosen == {"gain": [1.0, 1.0]}


def test_gains_are_learned_on_a_sample_beyond_a_bound(monkeypatch):
    X, y, groups = two_blocks()
    monkeypatch.setattr(nearest_module, "MAX_LEARNED", 100)
    seen = []

    def learn(units, y, groups, widths):
        seen.append((units.shape, y.shape, groups.shape))
        return neighbour_gains.learn_gains(units, y, groups, widths)

    monkeypatch.setattr(nearest_module, "learn_gains", learn)
    head = Nearest().fit(X, y, groups=groups, widths=(6, 6))
    assert seen == [((100, 12), (100, 4), (100,))]
    assert head.gains_[0] > 5 * head.gains_[1]


def test_nearest_gives_the_target_of_the_most_similar_row():
    X, y, _ = problem()
    np.testing.assert_allclose(Nearest().fit(X, y).predict(X), y, atol=1e-6)


@pytest.mark.parametrize(("given", "tried"), [({}, 30), ({"k": 9}, 5), ({"power": 3.0}, 6)])
def test_what_is_not_given_is_chosen_on_folds_of_whole_groups(given, tried):
    X, y, groups = problem()
    head = Knn(**given).fit(X, y, groups=groups)
    assert len(head.history) == tried
    best = max(head.history, key=lambda record: record["cosine"])
    assert head.chosen == {"k": best["k"], "power": best["power"]}  # no gain: there is one block
    assert given.items() <= head.chosen.items()


def test_identical_rows_of_a_group_do_not_fool_the_choice():
    X, _, _ = problem(60)
    y = unit(np.random.default_rng(1).normal(size=(60, 4)) + 1)
    X, y, groups = np.repeat(X, 3, axis=0), np.repeat(y, 3, axis=0), np.repeat(np.arange(60), 3)
    alone, grouped = Knn().fit(X, y), Knn().fit(X, y, groups=groups)
    assert max(record["cosine"] for record in alone.history) > 0.95
    assert max(record["cosine"] for record in grouped.history) < 0.9


def test_a_fold_of_which_no_row_is_drawn_does_not_make_every_score_nan(monkeypatch):
    # Four single rows beside one large group: a small sample draws none of them.
    monkeypatch.setattr(module, "MAX_QUERIES", 8)
    X, y, _ = problem(400)
    groups = np.minimum(np.arange(400), 4)
    head = Knn(seed=3).fit(X, y, groups=groups)
    assert np.isfinite([record["cosine"] for record in head.history]).all()
    assert len({record["cosine"] for record in head.history}) > 1


def test_choosing_samples_queries_beyond_a_bound(monkeypatch):
    monkeypatch.setattr(module, "MAX_QUERIES", 60)
    X, y, groups = problem()
    sampled = Knn().fit(X, y, groups=groups)
    assert len(sampled.history) == 30
    assert sampled.score(X, y) > mean_cosine(np.repeat(y.mean(0)[None], len(y), 0), y)


@pytest.mark.parametrize("wrong", [{"k": 0}, {"power": -1.0}, {"gain": 0.0}, {"gain": [1.0, np.inf]}])
def test_settings_out_of_range_are_refused(wrong):
    X, y, _ = problem()
    with pytest.raises(UsageError, match=r"must be (finite and )?(at least|above 0)"):
        Knn(**wrong).fit(X, y)


def test_another_number_of_gains_than_blocks_is_refused():
    X, y, _ = problem()
    with pytest.raises(UsageError, match="'gain' of head 'nearest' must be one number, or one for each of 2"):
        Nearest(gain=[1.0, 2.0, 3.0]).fit(X, y, widths=(7, 3))


@pytest.mark.parametrize("gain", [[1.0, 1.0], [0.0], [-1.0], [np.nan]])
def test_a_saved_head_with_gains_that_cannot_be_is_refused(gain):
    X, y, _ = problem()
    state = Nearest().fit(X, y).state()
    with pytest.raises(Img2PromptError, match=r"the saved head's 'gain'.* fit it again"):
        Nearest().load_state({**state, "gain": np.array(gain)})


def test_fewer_groups_than_folds_is_refused():
    X, y, groups = problem()
    with pytest.raises(UsageError, match=r"3 groups .* cannot fill 5 folds"):
        Knn().fit(X, y, groups=groups % 3)


def test_blocks_that_do_not_sum_to_the_width_are_refused():
    X, y, _ = problem()
    state = Nearest().fit(X, y).state()
    with pytest.raises(Img2PromptError, match="'blocks' sum to 11, not 10"):
        Nearest().load_state({**state, "blocks": np.array([11])})


def test_a_saved_head_without_neighbours_is_refused():
    X, y, _ = problem()
    state = Knn(k=3, power=1.0).fit(X, y).state()
    with pytest.raises(Img2PromptError, match="'k' is 0"):
        Knn().load_state({**state, "k": np.array([0])})


@pytest.fixture
def many(monkeypatch):
    """As many rows as it takes for an approximate search."""
    monkeypatch.setattr(neighbours_module, "EXACT", 500)
    return problem(1500)


def exactly(head, X, y, groups, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(neighbours_module, "EXACT", len(X))
        return clone(head).fit(X, y, groups=groups, widths=(7, 3))


@pytest.mark.parametrize("head", [Nearest(), Knn(k=15, power=4.0)])
def test_beyond_a_size_the_search_is_nearly_exact_and_says_how_nearly(head, many, monkeypatch):
    X, y, groups = many
    exact = exactly(head, X, y, groups, monkeypatch)
    assert exact.measured == {"search": "exact"}
    assert "cell" not in exact.state()
    head.fit(X, y, groups=groups, widths=(7, 3))
    assert head.measured["search"] == "cells"
    assert head.measured["recall@10"] >= 0.99
    assert 1 <= head.measured["probes"] < head.measured["cells"] == 39
    new = np.random.default_rng(5).normal(size=(300, 10)).astype(np.float32) * 3 + 1
    assert mean_cosine(head.predict(new), exact.predict(new)) > 0.99


def test_settings_chosen_beyond_a_size_are_scored_as_by_an_exact_search(many, monkeypatch):
    X, y, groups = many
    exact = exactly(Knn(), X, y, groups, monkeypatch).history
    approximate = Knn().fit(X, y, groups=groups, widths=(7, 3)).history
    assert [(r["k"], r["power"]) for r in exact] == [(r["k"], r["power"]) for r in approximate]
    for one, other in zip(approximate, exact, strict=True):
        # Recall is that of ten; 160 are more than four whole cells of these few rows.
        assert one["cosine"] == pytest.approx(other["cosine"], abs=3e-3 if one["k"] <= 20 else 2e-2)


def test_choosing_by_cells_keeps_groups_apart(monkeypatch):
    monkeypatch.setattr(neighbours_module, "EXACT", 100)
    X, _, _ = problem(60)
    y = unit(np.random.default_rng(1).normal(size=(60, 4)) + 1)
    X, y, groups = np.repeat(X, 3, axis=0), np.repeat(y, 3, axis=0), np.repeat(np.arange(60), 3)
    assert max(record["cosine"] for record in Knn().fit(X, y).history) > 0.95
    assert max(record["cosine"] for record in Knn().fit(X, y, groups=groups).history) < 0.9


def test_cells_survive_the_file_bit_for_bit(many):
    X, y, groups = many
    head = Knn(k=15, power=4.0).fit(X, y, groups=groups)
    again = clone(head).load_state(load(save(head.state())))
    assert np.array_equal(again.predict(X[:50]), head.predict(X[:50]))
    assert again.measured == head.measured
    third = clone(head).fit(X, y, groups=groups)
    assert {name: value.tobytes() for name, value in third.state().items()} == {
        name: value.tobytes() for name, value in head.state().items()
    }


def test_projections_of_another_fit_are_refused(many):
    X, y, groups = many
    state = Nearest().fit(X, y, groups=groups).state()
    other = Nearest().fit(X[:1200], y[:1200], groups=groups[:1200]).state()
    narrow = Nearest().fit(X[:, 1:], y, groups=groups).state()
    index = ("projection", "low", "span", "codes", "cell", "centroids")
    with pytest.raises(Img2PromptError, match="of 1200 vectors of 10 values, not of the 1500 of 10"):
        Nearest().load_state({**state, "cell": other["cell"], "codes": other["codes"]})
    with pytest.raises(Img2PromptError, match="of 1500 vectors of 9 values, not of the 1500 of 10"):
        Nearest().load_state({**state, **{name: narrow[name] for name in index}})
    with pytest.raises(Img2PromptError, match="the index is damaged"):
        Nearest().load_state({**state, "cell": state["cell"] + 39})
    with pytest.raises(Img2PromptError, match=r"the index is damaged.*centroids"):
        Nearest().load_state({name: value for name, value in state.items() if name != "centroids"})


@pytest.fixture
def old(many):
    """What earlier versions saved beyond a size: cells of the rows themselves."""
    X, y, groups = many
    state = Nearest().fit(X, y, groups=groups).state()
    kept = {name: state[name] for name in ("blocks", "mean", "scale", "gain", "vectors")}
    drawn, held = hold_back(groups, 0)
    cells, _ = fit_cells(state["vectors"], state["vectors"][drawn].astype(np.float32), held, 0)
    return {**kept, "targets": unit(y), **cells.arrays()}


def test_what_earlier_versions_saved_predicts_as_before(many, old, monkeypatch):
    X, y, groups = many
    head = Nearest().load_state(old)
    assert head.measured.keys() == {"search", "cells", "probes", "recall@10"}
    exact = exactly(Nearest(), X, y, groups, monkeypatch)
    assert mean_cosine(head.predict(X[:300]), exact.predict(X[:300])) > 0.99
    assert {name: value.tobytes() for name, value in head.state().items()} == {
        name: value.tobytes() for name, value in old.items()
    }


def test_cells_of_another_fit_are_refused(many, old):
    _, _, groups = many
    drawn, held = hold_back(groups[:1200], 0)
    few, _ = fit_cells(old["vectors"][:1200], old["vectors"][drawn].astype(np.float32), held, 0)
    with pytest.raises(Img2PromptError, match="of 1200 vectors of 10 values, not of the 1500 of 10"):
        Nearest().load_state({**old, "cell": few.cell})
    with pytest.raises(Img2PromptError, match="of 1500 vectors of 9 values, not of the 1500 of 10"):
        Nearest().load_state({**old, "centroids": np.ascontiguousarray(old["centroids"][:, 1:])})
    with pytest.raises(Img2PromptError, match="the index is damaged"):
        Nearest().load_state({**old, "cell": old["cell"] + 39})
    with pytest.raises(Img2PromptError, match=r"the index is damaged.*centroids"):
        Nearest().load_state({name: value for name, value in old.items() if name != "centroids"})


class OnDisk:
    """A column that notes how many rows are read at a time."""

    def __init__(self, values):
        self.values, self.shape, self.counts = values, values.shape, []

    def read(self, rows):
        self.counts.append(len(rows))
        return self.values[rows]


def test_rows_that_are_read_as_they_are_used_are_never_all_in_memory(many, monkeypatch):
    X, y, groups = many
    monkeypatch.setattr(row_blocks.in_blocks, "__defaults__", (100,))
    for module_, name in [
        (neighbours_module, "ROWS"),
        (nearest_module, "MAX_LEARNED"),
        (module, "MAX_QUERIES"),
    ]:
        monkeypatch.setattr(module_, name, 100)
    monkeypatch.setattr(ivf, "QUERIES", 100)
    columns, rows = (OnDisk(X), OnDisk(y)), np.arange(len(X))
    head = Knn().fit(*(ColumnRows([column], rows) for column in columns), groups=groups, widths=(7, 3))
    assert all(max(column.counts) <= 100 < sum(column.counts) for column in columns)
    for stored in (head.vectors_, head.targets_):
        assert stored.dtype == np.float16
        assert not stored.flags.writeable
    held = Knn().fit(X, y, groups=groups, widths=(7, 3))
    assert {name: value.tobytes() for name, value in head.state().items()} == {
        name: value.tobytes() for name, value in held.state().items()
    }


def test_a_disk_without_room_for_the_rows_is_told(many, monkeypatch):
    X, y, _ = many

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    columns = (ColumnRows([OnDisk(values)], np.arange(len(X))) for values in (X, y))
    with pytest.raises(Img2PromptError, match=r"cannot be kept in .*No space left on device; make room"):
        Nearest().fit(*columns)
