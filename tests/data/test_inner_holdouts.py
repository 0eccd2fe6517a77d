from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.data.inner_holdouts import hold_out_many, inner_holdouts
from img2prompt_cache.errors import UsageError


def holdouts(groups):
    return inner_holdouts(groups, 0, few=5000, share=0.2, what="a trial is scored", instead=", or wait")


def test_few_rows_are_held_out_in_folds_of_whole_groups():
    groups = np.arange(90) % 30
    folds = holdouts(groups)
    assert len(folds) == 3
    assert (np.sum(folds, axis=0) == 1).all()
    assert not any({*groups[out]} & {*groups[~out]} for out in folds)
    assert len(holdouts(np.array([0, 0, 1]))) == 2


def test_of_many_rows_a_share_is_held_out_once():
    groups = np.arange(6000) % 2000
    (out,) = holdouts(groups)
    assert out.mean() == pytest.approx(0.2, abs=0.01)
    assert not {*groups[out]} & {*groups[~out]}


def test_one_group_cannot_be_divided():
    with pytest.raises(UsageError, match=r"^a trial is scored on .* all 9 are one group .*, or wait$"):
        holdouts(np.zeros(9, int))


def test_what_something_is_chosen_on_is_of_many_groups():
    groups = np.concatenate([np.repeat([0, 1, 2], 1500), np.arange(3, 2003)])
    for seed in range(5):
        held = hold_out_many(groups, 0.2, seed)
        assert held.sum() == 1300
        assert len(np.unique(groups[held])) == 1300
        assert not {*groups[held]} & {*groups[~held]}
    assert hold_out_many(np.repeat([0, 1, 2], [50, 30, 40]), 0.1, 0).nonzero()[0].tolist() == [*range(50, 80)]
