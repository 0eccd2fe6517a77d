from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.data.turns import held_in_turn
from img2prompt_cache.errors import UsageError


def turns(groups):
    return held_in_turn(groups, 0, few=5000, share=0.2, what="a trial is scored", instead=", or wait")


def test_rows_held_out_in_turn_keep_groups_whole():
    groups = np.arange(90) % 30
    folds = turns(groups)
    assert len(folds) == 3
    assert (np.sum(folds, axis=0) == 1).all()
    assert not any({*groups[out]} & {*groups[~out]} for out in folds)
    many = np.arange(6000) % 2000
    (out,) = turns(many)
    assert out.mean() == pytest.approx(0.2, abs=0.01)
    assert not {*many[out]} & {*many[~out]}
    assert len(turns(np.array([0, 0, 1]))) == 2
    with pytest.raises(UsageError, match=r"^a trial is scored on .* all 9 are one group .*, or wait$"):
        turns(np.zeros(9, int))
