"""What a shorter number format costs a backbone, and when that is too much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from img2prompt_cache.images.scenes.picture import render
from img2prompt_cache.images.scenes.words import sample_scenes
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.fidelity import PICTURES, falls_short, fidelity
from kit import Tiny


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_it_is_the_cosine_between_the_two_formats(tiny: Tiny, precision: str) -> None:
    exact = load_backbone(tiny.vit)
    found = fidelity(exact, precision)
    assert (exact.precision, next(exact.model.parameters()).dtype) == ("fp32", torch.float32)
    scenes = sample_scenes(PICTURES, 0)
    pixels = torch.from_numpy(np.stack([exact.geometry.apply(render(scene)) for scene in scenes]))
    short = load_backbone(tiny.vit, precision=precision)
    expected = cosine_similarity(short.encode(pixels), exact.encode(pixels)).diagonal()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert 0.99 < found.min() < found.max() < 1 - 1e-9


def test_more_digits_are_closer(tiny: Tiny) -> None:
    backbone = load_backbone(tiny.cnn)
    assert (1 - fidelity(backbone, "fp16")).mean() < (1 - fidelity(backbone, "bf16")).mean() / 4


def test_a_model_that_lives_on_small_differences_falls_short(tiny: Tiny, shaky: str) -> None:
    assert not falls_short(fidelity(load_backbone(tiny.vit), "bf16"))
    assert falls_short(fidelity(load_backbone(shaky), "bf16"))


def test_what_is_not_finite_falls_short(tiny: Tiny) -> None:
    backbone = load_backbone(tiny.vit)
    backbone.model.pos_embed += 1e5  # more than fp16 can hold
    cosines = fidelity(backbone, "fp16")
    assert np.isnan(cosines).all()
    assert falls_short(cosines)


def test_one_picture_may_be_low_but_not_their_mean() -> None:
    cosines = np.full(PICTURES, 0.9999)
    assert not falls_short(cosines)
    cosines[3] = 0.99
    assert not falls_short(cosines)
    cosines[3] = 0.98
    assert falls_short(cosines)
