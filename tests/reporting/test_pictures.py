from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from img2prompt_cache.errors import ImageError
from img2prompt_cache.reporting.pictures import Picture, Pictures, measure, picture, sample
from img2prompt_cache.reporting.rows import CHANGED, UNKNOWN, Rows


def file_of(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def rows_of(files: list[bytes | Exception], digests: list[str] | None = None) -> Rows:
    def read(row: int) -> bytes:
        found = files[row]
        if isinstance(found, Exception):
            raise found
        return found

    n = len(files)
    names = [f"i{row}" for row in range(n)]
    known = [hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else "0" * 64 for data in files]
    return Rows(names, names, ["ok"] * n, [""] * n, digests or known, [""] * n, read)


def test_a_picture_is_measured_and_made_small():
    found = picture(file_of(Image.new("RGB", (640, 320), (255, 0, 0)), "JPEG"))
    assert (found.format, found.width, found.height) == ("JPEG", 640, 320)
    assert found.shown_size == (128, 64)
    thumbnail = Image.open(io.BytesIO(found.thumbnail))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (128, 64))
    assert found.brightness == pytest.approx(0.299, abs=0.01)
    assert found.data_uri.startswith("data:image/webp;base64,")
    assert len(found.thumbnail) < 3000


def test_a_small_picture_is_not_made_larger():
    found = picture(file_of(Image.new("RGB", (10, 20), "blue")))
    assert found.shown_size == (10, 20)


def test_grey_has_no_colour_and_noise_has_some():
    grey = np.full((8, 8, 3), 128, np.float32)
    noise = np.random.default_rng(0).uniform(0, 255, (64, 64, 3)).astype(np.float32)
    assert measure(grey)[1] == pytest.approx(0)
    assert measure(noise)[1] > 50


def test_a_bad_image_is_a_reason_and_none_keeps_others_back():
    good = file_of(Image.new("RGB", (8, 8)))
    pictures = Pictures(rows_of([b"", b"<svg onload=alert(1)>", good[:40], ImageError("it is gone"), good]))
    pictures.load(range(5))
    reasons = [pictures[row] for row in range(4)]
    assert reasons[0] == "empty"
    assert reasons[1] == "format SVG is not allowed"
    assert reasons[2] == "truncated"
    assert reasons[3] == "it is gone"
    assert isinstance(pictures[4], Picture)


def test_an_image_with_other_bytes_than_cached_is_not_shown():
    data = file_of(Image.new("RGB", (8, 8)))
    pictures = Pictures(rows_of([data, data], [hashlib.sha256(data).hexdigest(), "0" * 64]))
    assert isinstance(pictures[0], Picture)
    assert pictures[1] == CHANGED


def test_an_image_is_not_shown_where_it_is_not_known_what_was_cached():
    data = file_of(Image.new("RGB", (8, 8)))
    assert Pictures(rows_of([data], [""]))[0] == UNKNOWN


def test_a_sample_is_seeded_sorted_and_whole_where_rows_are_few():
    rows = list(range(0, 2000, 2))
    assert sample(rows, 5000, 0) == rows
    drawn = sample(rows, 50, 1)
    assert drawn == sorted({*drawn}) == sample(rows, 50, 1)
    assert len(drawn) == 50
    assert {*drawn} <= {*rows}
    assert drawn != sample(rows, 50, 2)


def test_nothing_is_told_where_every_picture_is_known():
    pictures = Pictures(rows_of([b"", b""]))
    told = []
    pictures.load([0, 1, 1], told.append)
    assert [(event.task, event.done, event.total) for event in told][-1] == ("pictures", 2, 2)
    told.clear()
    pictures.load([1, 0], told.append)
    assert told == []
