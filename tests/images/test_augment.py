"""Views: the same ones every time, of the kind the rules say."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from img2prompt_cache.images.augment import View, take_view

ONE, OTHER = (hashlib.sha256(data).hexdigest() for data in (b"one", b"other"))


def picture(width: int = 90, height: int = 60) -> Image.Image:
    """Every pixel tells where it was: its column in red, its row in green."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, np.full_like(x, 100)], 2).astype(np.uint8))


def test_a_view_depends_on_the_bytes_and_the_number_alone() -> None:
    again = [np.asarray(take_view(picture(), ONE, View(n))) for n in (0, 1, 0)]
    np.testing.assert_array_equal(again[0], again[2])
    assert again[0].shape != again[1].shape or (again[0] != again[1]).any()
    other = np.asarray(take_view(picture(), OTHER, View(0)))
    assert again[0].shape != other.shape or (again[0] != other).any()


@given(
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    seed=st.integers(0, 2**64),
    number=st.integers(0, 63),
)
def test_any_image_has_views_within_the_rules(width: int, height: int, seed: int, number: int) -> None:
    view = take_view(picture(width, height), f"{seed:064x}", View(number))
    assert view.mode == "RGB"
    assert 1 <= view.width <= width
    assert 1 <= view.height <= height
    if min(width, height) >= 60:
        assert view.width * view.height >= 0.45 * width * height * 3 / 4
        assert 0.7 <= (view.width / view.height) / (width / height) <= 1.43


def test_views_differ_in_place_size_and_colour_and_are_not_mirrored() -> None:
    places, tones = set(), []
    for number in range(40):
        pixels = np.asarray(take_view(picture(), ONE, View(number))).astype(float)
        assert pixels[0, -1, 0] > pixels[0, 0, 0]
        assert pixels[-1, 0, 1] > pixels[0, 0, 1]
        places.add(pixels.shape[:2])
        tones.append(pixels[..., 2].mean())
    assert len(places) > 20
    assert 5 < np.std(tones) < 30
    assert 85 < np.mean(tones) < 110


def test_flip_mirrors_about_half_and_changes_nothing_else() -> None:
    mirrored = 0
    for number in range(60):
        plain, flipped = (take_view(picture(), ONE, View(number, flip)) for flip in (False, True))
        if plain.tobytes() != flipped.tobytes():
            mirrored += 1
            assert ImageOps.mirror(flipped).tobytes() == plain.tobytes()
    assert mirrored == pytest.approx(30, abs=12)
