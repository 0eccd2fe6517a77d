from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.metrics import mean_squared_error
from sklearn.metrics.pairwise import cosine_similarity
from torch.nn import functional

from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads.neural.losses import LOSSES, SHARPEST, angular, infonce, mixed, parse
from img2prompt_cache.numerics.metrics import unit

SHARPNESS = torch.tensor(1.5)


def vectors(n=12, t=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, t)).astype(np.float32) * 3, unit(rng.normal(size=(n, t)))


def loss(text, pred, true, sharpness=SHARPNESS):
    return mixed(parse(text), torch.as_tensor(pred), torch.as_tensor(true), sharpness)


def by_hand(pred, true, same=()):
    """InfoNCE in numpy, row by row; `same` are pairs of rows of one prompt."""
    logits = cosine_similarity(pred, true) * np.exp(1.5)
    for one, other in same:
        logits[one, other] = logits[other, one] = -np.inf
    return float((logsumexp(logits, axis=1) - logits.diagonal()).mean())


def test_each_is_what_other_libraries_say():
    pred, true = vectors()
    cosines = cosine_similarity(pred, true).diagonal()
    assert float(loss("mse", pred, true)) == pytest.approx(mean_squared_error(true, pred), rel=1e-5)
    assert float(loss("cosine", pred, true)) == pytest.approx(1 - cosines.mean(), rel=1e-5)
    assert float(loss("angular", pred, true)) == pytest.approx(np.arccos(cosines).mean(), rel=1e-5)
    assert float(loss("infonce", pred, true)) == pytest.approx(by_hand(pred, true), rel=1e-5)
    embedded = functional.cosine_embedding_loss(*map(torch.as_tensor, (pred, true)), torch.ones(len(pred)))
    assert float(loss("cosine", pred, true)) == pytest.approx(float(embedded), rel=1e-5)


@given(st.lists(st.sampled_from(LOSSES), min_size=1, unique=True), st.integers(0, 5))
def test_a_mix_is_the_weighted_sum(names, seed):
    weights = np.random.default_rng(seed).uniform(0.1, 9, len(names)).round(3)
    pred, true = vectors(seed=seed)
    text = " , ".join(f"{name}:{weight}" for name, weight in zip(names, weights, strict=True))
    assert parse(text) == dict(zip(names, weights, strict=True))
    wanted = sum(weight * float(loss(name, pred, true)) for name, weight in zip(names, weights, strict=True))
    assert float(loss(text, pred, true)) == pytest.approx(wanted, rel=1e-5)


@given(st.sampled_from(["cosine", "angular", "infonce"]), st.integers(0, 9), st.floats(0.01, 100))
def test_directions_alone_count(name, seed, factor):
    pred, true = vectors(seed=seed)
    assert float(loss(name, pred * np.float32(factor), true)) == pytest.approx(
        float(loss(name, pred, true)), rel=1e-4
    )


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    pred, true = (torch.as_tensor(values).double() for values in vectors(4, 5))
    pred.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: mixed(parse(name), p, true, SHARPNESS.double()), pred)


def test_an_angle_of_nothing_or_of_half_a_turn_has_a_finite_slope():
    _, true = vectors()
    for sign, angle in ((1, 0), (-1, np.pi)):
        pred = torch.tensor(sign * true, requires_grad=True)
        found = angular(pred, torch.tensor(true))
        found.backward()
        assert float(found.detach()) == pytest.approx(angle, abs=1e-6)
        assert torch.isfinite(pred.grad).all()


def test_small_angles_keep_their_digits():
    one = torch.tensor([[1.0, 0.0]])
    other = torch.tensor([[1.0, 1e-4]])
    assert float(angular(one, other)) == pytest.approx(1e-4, rel=1e-5)  # arccos says 0 in float32


def test_rows_of_one_prompt_are_no_negatives_of_each_other():
    pred, true = vectors()
    true[4] = true[9]
    found = float(loss("infonce", pred, true))
    assert found == pytest.approx(by_hand(pred, true, same=[(4, 9)]), rel=1e-5)
    assert found < by_hand(pred, true)
    near = true.copy()
    near[4] = unit(true[9:10] + np.float32(1e-2) * vectors(1, seed=3)[1])
    assert float(loss("infonce", pred, near)) == pytest.approx(by_hand(pred, near), rel=1e-5)


def test_a_batch_of_one_prompt_has_nothing_to_tell_apart():
    pred, true = vectors()
    assert float(loss("infonce", pred, np.repeat(true[:1], len(true), axis=0))) == 0
    assert float(loss("infonce", pred[:1], true[:1])) == 0


def test_the_temperature_learns_and_is_bounded():
    pred, true = (torch.as_tensor(values) for values in vectors())
    sharpness = torch.tensor(1.0, requires_grad=True)
    infonce(pred, true, sharpness).backward()
    assert sharpness.grad != 0
    assert float(infonce(pred, true, torch.tensor(50.0))) == float(
        infonce(pred, true, torch.tensor(SHARPEST))
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mes", "unknown loss 'mes'; did you mean mse"),
        ("", "unknown loss ''"),
        ("mse:1,,cosine:2", "unknown loss ''"),
        ("mse:1,cosin:2", "did you mean cosine"),
        ("mse:0", "weight above 0"),
        ("mse:-1", "weight above 0"),
        ("mse:nan", "weight above 0"),
        ("mse:inf", "weight above 0"),
        ("mse:", "weight above 0"),
        ("mse:a", "weight above 0"),
        ("mse:1:2", "weight above 0"),
        ("mse,mse:2", "each loss once"),
    ],
)
def test_mixes_that_mean_nothing_are_refused(text, words):
    with pytest.raises(UsageError, match=words):
        parse(text)
