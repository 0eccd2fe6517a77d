"""Eight-bit values: how near they are, and what they never do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from img2prompt_cache.cache.quantise import quantise, restore

SHAPES = [((3, 7, 5), 1), ((2, 4, 4, 6), 1), ((2, 3, 7, 5), 2), ((2, 2, 3, 3, 4), 2)]


@given(
    st.sampled_from(SHAPES).flatmap(
        lambda case: st.tuples(
            arrays(np.float16, case[0], elements=st.floats(-65504, 65504, width=16)), st.just(case[1])
        )
    )
)
def test_every_value_is_within_half_a_scale(case: tuple[np.ndarray, int]) -> None:
    values, lead = case
    codes, scale = quantise(values, lead)
    assert (codes.dtype, codes.shape) == (np.int8, values.shape)
    assert (scale.dtype, scale.shape) == (np.float16, (*values.shape[:lead], values.shape[-1]))
    assert codes.min() >= -127
    found = restore(codes, scale)
    assert found.dtype == np.float32
    steps = np.broadcast_to(
        scale.astype(np.float64).reshape(*scale.shape[:-1], *(1,) * (values.ndim - scale.ndim), -1),
        values.shape,
    )
    # 127 rounded scales can fall short of the largest value by 127 half units in the scale's last place.
    slack = 127 * np.spacing(steps.astype(np.float16)).astype(np.float64) / 2
    assert (np.abs(found - values.astype(np.float64)) <= 0.5 * steps + slack + 1e-30).all()


def test_a_large_channel_costs_the_others_nothing() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 50, 8)).astype(np.float16)
    alone, _ = quantise(values)
    values[..., 3] *= 1000
    codes, scale = quantise(values)
    others = [0, 1, 2, 4, 5, 6, 7]
    np.testing.assert_array_equal(codes[..., others], alone[..., others])
    # Each image has scales of its own, so what is beside it in a batch does not matter.
    single = [quantise(values[i : i + 1]) for i in range(2)]
    np.testing.assert_array_equal(codes, np.concatenate([c for c, _ in single]))
    np.testing.assert_array_equal(scale, np.concatenate([s for _, s in single]))


@pytest.mark.parametrize("lead", [1, 2])
def test_no_value_at_all_stays_none(lead: int) -> None:
    codes, scale = quantise(np.zeros((2, 3, 4, 5), np.float16), lead)
    assert not codes.any()
    assert not restore(codes, scale).any()
