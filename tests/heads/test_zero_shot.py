"""The zero-shot head, against the formula written out, and the strength found on prompts alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.heads import zero_shot
from img2prompt_cache.heads.zero_shot import Labels, ZeroShot, strength
from img2prompt_cache.numerics.metrics import unit


def draw(rows: int, width: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(rows, width)))


@given(seed=st.integers(0, 99), prompts=st.integers(2, 40), names=st.integers(2, 9))
def test_the_strength_is_the_least_squares_slope_on_the_nearest_names(seed, prompts, names):
    P, T = draw(prompts, 5, seed), draw(names, 5, seed + 1000)
    toward = (T - T.mean(0))[(P @ T.T).argmax(1)].ravel()
    slope = np.linalg.lstsq(toward[:, None], (P - P.mean(0)).ravel(), rcond=None)[0][0]
    assert strength(P, T) == pytest.approx(max(0, slope), abs=1e-5)


def test_prompts_that_are_the_names_have_a_strength_of_one_and_equal_ones_of_zero():
    prompts = draw(30, 6, 0)
    assert strength(prompts, prompts) == pytest.approx(1, abs=1e-5)
    assert strength(prompts[[0] * 5], prompts[:3]) == pytest.approx(0, abs=1e-6)
    assert strength(prompts, prompts[:1]) == 0


def test_the_prediction_is_the_prior_and_the_mean_of_what_each_backbone_says():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(7, 9)).astype(np.float32)
    weight, bias = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    names, prompts, texts = draw(5, 6, 1), draw(20, 6, 2), draw(20, 5, 3)
    prior = prompts.mean(axis=0)
    head = ZeroShot.of(
        [Labels.of_classes(weight, bias, names, prompts), Labels.of_prompts(texts, 10, prompts)], prior
    )

    def softmax(logits):
        powers = np.exp(logits)
        return powers / powers.sum(axis=1, keepdims=True)

    classes = softmax(X[:, :4] @ weight.T + bias) @ names - names.mean(0)
    compared = softmax(10 * unit(X[:, 4:]) @ texts.T) @ prompts - prior
    expected = unit(prior + (strength(prompts, names) * classes + compared) / 2)
    np.testing.assert_allclose(head.predict(X), expected, atol=1e-5)
    assert head.predict(X).dtype == np.float32
    with pytest.raises(ValueError, match="features"):
        head.predict(X[:, :5])


def test_a_clip_model_that_is_sure_predicts_the_prompt():
    prompts, texts = draw(20, 6, 2), draw(20, 5, 3)
    head = ZeroShot.of([Labels.of_prompts(texts, 1000, prompts)], prompts.mean(axis=0))
    np.testing.assert_allclose(head.predict(3 * texts), prompts, atol=1e-3)


def test_memory_is_bounded_by_blocks_that_change_nothing(monkeypatch):
    prompts, texts, X = draw(20, 6, 2), draw(20, 5, 3), draw(50, 5, 4)
    labels = Labels.of_prompts(texts, 10, prompts)
    whole = labels.deviations(X)
    monkeypatch.setattr(zero_shot, "VALUES", 60)
    np.testing.assert_allclose(labels.deviations(X), whole, atol=1e-6)


def test_huge_logits_do_not_overflow():
    labels = Labels(np.full((2, 1), 1e4, np.float32), np.zeros(2, np.float32), draw(2, 3, 0), 1.0)
    assert np.isfinite(labels.deviations(np.full((1, 1), 1e3, np.float32))).all()
