"""AVIF: its rules, its limits, and files that were made to do harm."""

from __future__ import annotations

import io
import struct
import time
import warnings
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from img2prompt_cache.errors import ImageError
from img2prompt_cache.images import decode as module
from img2prompt_cache.images.decode import check_header, decode

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
ORIENTATION = 0x0112


def scene(height: int = 32, width: int = 48) -> Image.Image:
    """Smooth, without symmetry."""
    rows, columns = np.mgrid[:height, :width]
    channels = (rows * 255 // height, columns * 255 // width, (rows + 2 * columns) % 256)
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def encode(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "AVIF", speed=10, **options)
    return buffer.getvalue()


def declare(data: bytes, width: int, height: int) -> bytes:
    """Change the size that every image of a file declares, but not the frame inside."""
    changed, at = bytearray(data), data.find(b"ispe")
    assert at > 0
    while at > 0:
        changed[at + 8 : at + 16] = struct.pack(">II", width, height)
        at = data.find(b"ispe", at + 4)
    return bytes(changed)


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    return str(caught.value)


def test_pixels_are_those_of_pillow() -> None:
    data = encode(scene(), quality=100, subsampling="4:4:4")
    read = decode(data)
    assert (read.mode, read.size) == ("RGB", (48, 32))
    assert np.abs(np.asarray(read, int) - np.asarray(scene(), int)).max() <= 4
    check_header(data)


def test_alpha_is_composited_over_white() -> None:
    image = scene().convert("RGBA")
    image.putalpha(0)
    assert np.asarray(decode(encode(image, quality=100))).min() >= 253


def test_grey_becomes_rgb() -> None:
    assert decode(encode(scene().convert("L"))).mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_and_mirroring_are_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(scene(), exif=exif, quality=100, subsampling="4:4:4")  # written as irot and imir
    upright = np.asarray(scene(), int)
    if orientation in module._TRANSPOSE:
        upright = np.asarray(scene().transpose(module._TRANSPOSE[orientation]), int)
    read = np.asarray(decode(data), int)
    assert read.shape == upright.shape
    assert np.abs(read - upright).max() <= 4


@pytest.mark.parametrize(
    "exif", [b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40, b"nonsense", b"MM\0*\xff\xff\xff\xff"]
)
def test_broken_metadata_do_no_harm(exif: bytes) -> None:
    plain = encode(scene())
    valid = Image.Exif()
    valid[0x010E] = "x" * 60
    data = encode(scene(), exif=valid, xmp=b"<x", icc_profile=b"no profile")
    at = data.index(b"MM\0*")
    data = data[:at] + exif + data[at + len(exif) :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data).tobytes() == decode(plain).tobytes()


def test_the_first_frame_of_an_animation_is_taken() -> None:
    first, other = Image.new("RGB", (40, 40), (200, 20, 20)), Image.new("RGB", (40, 40), (20, 20, 200))
    data = encode(first, save_all=True, append_images=[other] * 5)
    assert np.asarray(decode(data))[5, 5, 0] > 180


def test_an_animation_that_declares_billions_of_frames_takes_no_time() -> None:
    data = bytearray(encode(scene(), save_all=True, append_images=[scene()] * 3))
    at = data.find(b"stsz")
    data[at + 8 : at + 16] = struct.pack(">II", 1, 2**32 - 1)  # all samples of one byte, and how many
    started = time.perf_counter()
    assert reason(bytes(data))
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("animated", [False, True])
def test_cut_anywhere_it_is_refused(animated: bool) -> None:
    options = {"save_all": True, "append_images": [scene()] * 2} if animated else {}
    data = encode(scene(), **options)
    for end in range(16, len(data), 7):
        assert reason(data[:end]) == "truncated"


@pytest.mark.parametrize("size", [(60_000, 60_000), (20_000, 100), (16_384, 16_384), (2**31, 2**31), (0, 5)])
def test_declared_dimensions_are_checked_before_pixels_are_decoded(size: tuple[int, int]) -> None:
    data = declare(encode(scene()), *size)
    started = time.perf_counter()
    told = reason(data) if size != (20_000, 100) else reason(data, max_pixels=1_000_000)
    assert told.startswith(("too large", "damaged"))
    assert time.perf_counter() - started < 1
    with pytest.raises(ImageError):
        check_header(data, max_pixels=1_000_000)


def test_a_frame_larger_than_declared_is_scaled_to_what_is_declared() -> None:
    data = declare(encode(Image.new("RGB", (1024, 1024), (200, 20, 20))), 16, 16)
    read = decode(data)
    assert read.size == (16, 16)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_changed_bytes_end_in_pixels_or_a_reason(data: st.DataObject) -> None:
    whole = bytearray(ANIMATED if data.draw(st.booleans()) else STILL)
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    started = time.perf_counter()
    with suppress(ImageError):
        assert decode(bytes(whole), max_pixels=1 << 22).mode == "RGB"
    assert time.perf_counter() - started < 5


def test_without_support_in_pillow_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(module._READERS, "AVIF")
    assert reason(STILL) == "AVIF is read by Pillow 11.3 and later; update it, or convert the image"


STILL = encode(scene()) if features.check("avif") else b""
ANIMATED = encode(scene(), save_all=True, append_images=[scene()] * 2) if features.check("avif") else b""
