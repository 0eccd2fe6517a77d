"""Eight-bit values: how near they are, and what they never do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from img2prompt_cache.cache.quantise import quantise, restore

SHAPES = [((3, 7, 5), 1), ((2, 4, 4, 6), 1), ((2, 3, 7, 5), 2), ((2, 2, 3, 3, 4), 2)]


ANY = st.floats(-65504, 65504, width=16)


def check(values: np.ndarray, lead: int) -> None:
    codes, scale = quantise(values, lead)
    assert (codes.dtype, codes.shape) == (np.int8, values.shape)
    assert (scale.dtype, scale.shape) == (np.float16, (*values.shape[:lead], values.shape[-1]))
    assert codes.min() >= -127
    found = restore(codes, scale)
    assert found.dtype == np.float32
    spread = scale.reshape(*scale.shape[:-1], *(1,) * (values.ndim - scale.ndim), -1)
    assert (np.abs(found - values.astype(np.float64)) <= spread.astype(np.float64) / 2).all()


@given(
    st.sampled_from(SHAPES).flatmap(
        lambda case: st.tuples(arrays(np.float16, case[0], elements=ANY), st.just(case[1]))
    )
)
def test_every_value_is_within_half_a_scale(case: tuple[np.ndarray, int]) -> None:
    check(*case)


@given(
    largest=st.floats(0, 2**-7, width=16),
    shares=arrays(np.float64, (1, 9, 4), elements=st.floats(-1, 1)),
)
def test_every_value_of_a_weak_channel_is_within_half_a_scale(largest: float, shares: np.ndarray) -> None:
    shares[0, 0] = 1
    check((largest * shares).astype(np.float16), 1)


def test_every_largest_value_that_float16_has_is_within_half_a_scale() -> None:
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16)  # 0 to 65504
    check(every.reshape(1, 1, -1), 1)
    codes, scale = quantise(every.reshape(1, 1, -1))
    # Where the nearest scale was near enough it is the one, as it was from the first: parts of old caches
    # come out byte for byte the same. All others are channels that never exceed 0.001.
    nearest = (every.astype(np.float32) / 127).astype(np.float16)
    assert every[scale[0] != nearest].max() < 1e-3
    assert codes[0, 0, 1:].all()


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
def test_zeros_stay_zeros(lead: int) -> None:
    codes, scale = quantise(np.zeros((2, 3, 4, 5), np.float16), lead)
    assert not codes.any()
    assert not restore(codes, scale).any()
