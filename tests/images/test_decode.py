"""`decode`: its rules to the pixel, and what it does with hostile bytes."""

import io
import itertools
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from img2prompt_cache.errors import ImageError
from img2prompt_cache.images.decode import MAX_SIDE, decode

WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)
ORIENTATION = 0x0112
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")


def encode(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def scene(height=23, width=37):
    """Smooth, without symmetry."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(
        np.stack([rows * 255 // height, columns * 255 // width, (rows + 2 * columns) % 256], -1).astype(
            np.uint8
        )
    )


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, colour, rows, *extra, compressed=None):
    """Write a PNG by hand: `rows` are the bytes of each row, `extra` whole chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows)) if compressed is None else compressed
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


def insert(data, *chunks):
    """Put chunks right after the header of a PNG."""
    return data[:33] + b"".join(chunks) + data[33:]


def segment(marker, body):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def row_of(data):
    return np.asarray(decode(data))[0].tolist()


def reason(data, **options):
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    return str(caught.value)


# The rules


@pytest.mark.parametrize("form", FORMATS)
def test_every_allowed_format(form):
    options = {"lossless": True} if form == "WEBP" else {}
    image = scene()
    data = encode(image.quantize(256) if form == "GIF" else image, form, **options)
    decoded = decode(data)
    assert (decoded.mode, decoded.size) == ("RGB", image.size)
    assert np.array_equal(decoded, Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("endian", "<>")
def test_orientation_as_pillow_transposes(form, orientation, endian):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "maker"
    exif[ORIENTATION] = orientation
    data = encode(scene(), form, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data), expected)
    assert decode(data).size == ((23, 37) if orientation > 4 else (37, 23))


def test_orientation_moves_the_corner():
    corner = Image.new("RGB", (3, 2), WHITE)
    corner.putpixel((0, 0), RED)
    found = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif.endian = ">"
        exif[ORIENTATION] = orientation
        image = decode(encode(corner, exif=exif))
        positions = itertools.product(range(image.width), range(image.height))
        found[orientation] = next(p for p in positions if image.getpixel(p) == RED)
    assert found == {1: (0, 0), 2: (2, 0), 3: (2, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 2), 8: (0, 2)}


def test_an_orientation_that_is_not_a_short_is_ignored():
    directory = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 1, ORIENTATION, 3, 1, 6, 0) + bytes(4)
    assert decode(insert(encode(scene()), chunk(b"eXIf", directory))).size == (23, 37)
    text = directory[:12] + b"\x02" + directory[13:]
    assert decode(insert(encode(scene()), chunk(b"eXIf", text))).size == (37, 23)


def test_alpha_goes_over_white_exactly():
    value, alpha = np.meshgrid(np.arange(256), np.arange(256))
    pixels = np.stack([value, value, value, alpha], -1).astype(np.uint8)
    expected = np.rint((value * alpha + 255 * (255 - alpha)) / 255)
    assert np.array_equal(np.asarray(decode(encode(Image.fromarray(pixels))))[..., 1], expected)


def test_alpha_in_every_form_of_png():
    clear, half = (255, 255, 255), 255 * 127 // 255
    grey_alpha = Image.new("LA", (2, 1), (100, 255))
    grey_alpha.putpixel((1, 0), (100, 0))
    assert row_of(encode(grey_alpha)) == [[100] * 3, [*clear]]
    palette = chunk(b"PLTE", bytes([*RED, *GREEN, *BLUE]))
    indices = [bytes([0, 1, 2])]
    assert row_of(png(3, 1, 8, 3, indices, palette)) == [[*RED], [*GREEN], [*BLUE]]
    one_clear = png(3, 1, 8, 3, indices, palette, chunk(b"tRNS", b"\xff\x00"))
    assert row_of(one_clear) == [[*RED], [*clear], [*BLUE]]
    one_half = png(3, 1, 8, 3, indices, palette, chunk(b"tRNS", b"\x80\x00"))
    assert row_of(one_half) == [[255, half, half], [*clear], [*BLUE]]
    key_grey = png(3, 1, 8, 0, [bytes([7, 8, 9])], chunk(b"tRNS", b"\0\x08"))
    assert row_of(key_grey) == [[7] * 3, [*clear], [9] * 3]
    key_colour = png(2, 1, 8, 2, [bytes([1, 2, 3, 1, 2, 4])], chunk(b"tRNS", bytes([0, 1, 0, 2, 0, 3])))
    assert row_of(key_colour) == [[*clear], [1, 2, 4]]
    key_two_bit = png(4, 1, 2, 0, [bytes([0b00011011])], chunk(b"tRNS", b"\0\x01"))
    assert row_of(key_two_bit) == [[0] * 3, [*clear], [170] * 3, [255] * 3]
    key_one_bit = png(2, 1, 1, 0, [bytes([0b01000000])], chunk(b"tRNS", b"\0\x00"))
    assert row_of(key_one_bit) == [[*clear], [255] * 3]
    key_16 = png(2, 1, 16, 0, [struct.pack(">2H", 0x1234, 0x5678)], chunk(b"tRNS", b"\x12\x34"))
    assert row_of(key_16) == [[*clear], [0x56] * 3]
    colours = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x1234, 0x5678, 0xABCD)
    key_colour_16 = png(2, 1, 16, 2, [colours], chunk(b"tRNS", colours[:6]))
    assert row_of(key_colour_16) == [[*clear], [0x12, 0x56, 0xAB]]


def test_16_bit_samples_keep_their_high_byte():
    values = [0, 0x00FF, 0x0100, 0x7FFF, 0x8000, 0xFEFF, 0xFFFF]
    expected = [[value >> 8] * 3 for value in values]
    assert row_of(png(7, 1, 16, 0, [struct.pack(">7H", *values)])) == expected
    colour = struct.pack(">21H", *(value for value in values for _ in range(3)))
    assert row_of(png(7, 1, 16, 2, [colour])) == expected
    opaque = struct.pack(">14H", *itertools.chain.from_iterable((value, 0xFFFF) for value in values))
    assert row_of(png(7, 1, 16, 4, [opaque])) == expected


def test_one_bit_and_grey():
    assert row_of(encode(Image.fromarray(np.array([[True, False]])))) == [[255] * 3, [0] * 3]
    assert row_of(encode(Image.fromarray(np.array([[0, 77, 255]], np.uint8)))) == [
        [0] * 3,
        [77] * 3,
        [255] * 3,
    ]


@pytest.mark.parametrize(
    ("cmyk", "rgb"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 128, 0, 64), (191, 95, 191)),
    ],
)
def test_cmyk_as_adobe_writes_it(cmyk, rgb):
    data = encode(Image.new("CMYK", (16, 16), cmyk), "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(np.asarray(decode(data)).astype(int) - rgb).max() <= 2
    assert np.array_equal(decode(data), Image.open(io.BytesIO(data)).convert("RGB"))


def test_jpeg_colour_space_survives_the_removal_of_metadata():
    exif = Image.Exif()
    exif[0x010E] = "described"
    plain = encode(scene(), "JPEG", quality=95)
    laden = encode(scene(), "JPEG", quality=95, exif=exif, icc_profile=b"x" * 70_000, comment=b"a comment")
    assert np.array_equal(decode(laden), decode(plain))
    bare = plain[:2] + plain[20:]  # without the JFIF segment
    adobe_rgb = bare[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") + bare[2:]
    for data in (bare, adobe_rgb):
        assert np.array_equal(decode(data), Image.open(io.BytesIO(data)).convert("RGB"))
    assert not np.array_equal(decode(adobe_rgb), decode(bare))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_animated_gives_its_first_frame(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert decode(data).getcolors() == [(64, RED)]


def test_gif_transparency_goes_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    assert row_of(encode(image, "GIF", transparency=1)) == [[*RED], [*WHITE]]


def test_limits():
    data = encode(scene())
    assert decode(data, max_pixels=23 * 37).size == (37, 23)
    assert reason(data, max_pixels=23 * 37 - 1) == "too large: 37×23 pixels, limit 850"
    assert decode(png(MAX_SIDE, 1, 1, 0, [bytes(8192)])).size == (MAX_SIDE, 1)
    assert decode(png(1, MAX_SIDE, 1, 0, [b"\0"] * MAX_SIDE)).size == (1, MAX_SIDE)
    assert (
        reason(png(MAX_SIDE + 1, 1, 1, 0, [bytes(8192)])) == "too large: 65536×1 pixels, limit 65535 a side"
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"\0", "not an image"),
        (b"<!doctype html><p>404", "not an image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "format SVG is not allowed"),
        (b'<?xml version="1.0"?><svg/>', "format XML or SVG is not allowed"),
        (b"%PDF-1.7\n", "format PDF is not allowed"),
        (encode(scene(), "TIFF"), "format TIFF is not allowed"),
        (b"MM\0*\0\0\0\x08", "format TIFF is not allowed"),
        (b"\0\0\0\x1cftypisom\0\0\2\0isommp41avc1", "format video is not allowed"),
        (
            b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf",
            "HEIC is not read by Pillow; convert it, for instance to JPEG",
        ),
        (b"\0\0\0\x18ftypmif1\0\0\0\0heic", "HEIC is not read by Pillow; convert it, for instance to JPEG"),
        (
            b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ",
            "JPEG XL is not read by Pillow; convert it, for instance to PNG",
        ),
        (encode(scene(), "JPEG2000"), "format JPEG 2000 is not allowed"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b"") * 2, "damaged: the PNG does not begin with IHDR"),
        (png(0, 5, 8, 0, []), "damaged: not identified by this driver"),
    ],
)
def test_refused_with_a_reason(data, expected):
    assert reason(data) == expected


def test_a_file_name_or_a_suffix_says_nothing():
    assert decode(encode(scene(), "JPEG")).size == decode(encode(scene(), "BMP")).size == (37, 23)


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_at_every_twentieth(form):
    data = encode(scene(300, 200).quantize(64) if form == "GIF" else scene(300, 200), form)
    for twentieth in range(1, 20):
        assert reason(data[: len(data) * twentieth // 20]) == "truncated"


def test_a_progressive_jpeg_cut_short_is_truncated():
    data = encode(scene(300, 200), "JPEG", progressive=True)
    assert reason(data[: len(data) // 2]) == "truncated"


def test_a_flipped_bit_in_png_pixels_is_seen():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = bytearray(encode(Image.fromarray(noise)))
    data[len(data) // 2] ^= 1
    assert reason(bytes(data)) == "damaged: wrong checksum in IDAT"


@pytest.mark.parametrize("shift", [1, 300, 4000])
def test_broken_metadata_costs_nothing(shift):
    junk = bytes((i * shift + i) % 251 for i in range(600))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 60_000) + junk
    png_data, jpeg_data = encode(scene()), encode(scene(), "JPEG")
    bad_checksum = chunk(b"tEXt", b"parameters\0x")[:-1] + b"?"
    broken = [
        insert(png_data, chunk(b"iCCP", junk)),
        insert(png_data, chunk(b"iCCP", b"p\0\x09" + junk)),
        insert(png_data, chunk(b"eXIf", exif[6:])),
        insert(png_data, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + junk)),
        insert(png_data, chunk(b"zTXt", b"\xff" + junk), chunk(b"tEXt", b""), bad_checksum),
        insert(png_data, chunk(b"acTL", b"\0"), chunk(b"fcTL", b"\1")),
        insert(png_data, chunk(b"cHRM", b""), chunk(b"gAMA", b""), chunk(b"pHYs", b""), chunk(b"sRGB", b"")),
    ]
    for data in broken:
        assert np.array_equal(decode(data), scene())
    for body in (
        segment(0xE0, b"JFIF\0"),
        segment(0xE1, exif),
        segment(0xE1, exif) * 3,
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + junk),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"MPF\0" + junk),
        segment(0xED, b"Photoshop 3.0\0008BIM" + junk),
        segment(0xEE, b"Adobe"),
    ):
        data = jpeg_data[:2] + body + jpeg_data[2:]
        assert np.array_equal(decode(data), decode(jpeg_data))
    webp = encode(scene(), "WEBP", lossless=True, exif=exif, icc_profile=junk, xmp=junk)
    assert np.array_equal(decode(webp), scene())


def test_bombs_are_refused_or_harmless():
    compress = zlib.compressobj(9)
    zeros = b"".join(compress.compress(bytes(1 << 20)) for _ in range(200)) + compress.flush()
    text = chunk(b"zTXt", b"parameters\0\0" + zeros)
    profile = chunk(b"iCCP", b"p\0\0" + zeros)
    too_large = "too large: {0}×{0} pixels, limit 67108864"
    gif, webp = (
        bytearray(encode(scene().quantize(4), "GIF")),
        bytearray(encode(scene(), "WEBP", lossless=True, exif=b"x")),
    )
    gif[6:10] = struct.pack("<2H", 60_000, 60_000)
    webp[24:30] = (15_999).to_bytes(3, "little") * 2
    jpeg = bytearray(encode(scene(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">2H", 60_000, 60_000)
    bmp = bytearray(encode(scene(), "BMP"))
    bmp[18:26] = struct.pack("<2i", 60_000, 60_000)
    started = time.process_time()
    assert np.array_equal(decode(insert(encode(scene()), *[text] * 50, profile)), scene())
    assert reason(png(60_000, 60_000, 8, 6, [], compressed=zeros)) == too_large.format(60_000)
    assert reason(png(2**31 - 1, 2**31 - 1, 8, 6, [], compressed=zeros)).startswith("too large")
    assert reason(bytes(jpeg)) == reason(bytes(gif)) == reason(bytes(bmp)) == too_large.format(60_000)
    assert reason(bytes(webp)) == "too large: a decompression bomb"
    assert decode(png(100, 100, 8, 6, [], compressed=zeros)).size == (100, 100)
    largest = decode(png(8192, 8192, 1, 0, [], compressed=zeros))
    assert largest.size == (8192, 8192)
    assert time.process_time() - started < 5


def test_run_length_bmp_is_refused_for_its_slowness():
    header = struct.pack("<IiiHHIIiiII", 40, 8000, 8000, 1, 8, 1, 0, 0, 0, 256, 0)
    palette = bytes(1024)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + header + palette + b"\0\0" * 9000
    started = time.process_time()
    assert reason(data) == "format BMP with run-length coding is not allowed"
    assert time.process_time() - started < 1


def test_endless_metadata_is_cut_off():
    jpeg = encode(scene(), "JPEG")
    started = time.process_time()
    assert reason(insert(encode(scene()), chunk(b"tEXt", b"") * 200_000)) == "damaged: too many chunks"
    assert (
        reason(jpeg[:2] + segment(0xE1, b"Exif\0\0" + bytes(100)) * 200_000 + jpeg[2:])
        == "damaged: too many segments"
    )
    assert decode(jpeg[:20] + bytes(1 << 25) + jpeg[20:]).size == (37, 23)
    assert decode(jpeg[:2] + b"\xff" * (1 << 20) + jpeg[2:]).size == (37, 23)
    assert decode(jpeg[:20] + b"\xff\xd0\xff\xfe\0\0" + jpeg[20:]).size == (37, 23)
    assert reason(jpeg[:20] + bytes(1 << 25)) == "truncated"
    assert time.process_time() - started < 5


# Hostile bytes


def samples():
    rng = np.random.default_rng(5)
    noise = Image.fromarray(rng.integers(0, 256, (33, 47, 3), np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat" * 50, zip=True)
    frames = [noise, noise.rotate(90), noise.rotate(180)]
    clear = noise.convert("RGBA")
    clear.putalpha(noise.convert("L"))
    return {
        "png": encode(noise, exif=exif, pnginfo=info, icc_profile=b"profile" * 30),
        "png alpha": encode(clear),
        "png palette": encode(noise.quantize(16), transparency=3),
        "png 16": png(33, 9, 16, 0, [rng.bytes(66) for _ in range(9)], chunk(b"tRNS", b"\0\1")),
        "png animated": encode(noise, save_all=True, append_images=frames[1:]),
        "jpeg": encode(noise, "JPEG", exif=exif, icc_profile=b"profile" * 30),
        "jpeg progressive": encode(noise, "JPEG", progressive=True),
        "jpeg cmyk": encode(noise.convert("CMYK"), "JPEG"),
        "webp": encode(clear, "WEBP", exif=exif, xmp=b"<x/>"),
        "webp lossless": encode(noise, "WEBP", lossless=True),
        "webp animated": encode(noise, "WEBP", save_all=True, append_images=frames[1:]),
        "gif": encode(noise, "GIF", save_all=True, append_images=frames[1:], disposal=2),
        "bmp": encode(noise, "BMP"),
        "bmp palette": encode(noise.quantize(16), "BMP"),
        "bmp alpha": encode(clear, "BMP"),
    }


SAMPLES = samples()


def outcome(data):
    """The decoded image, or the reason why there is none."""
    try:
        return decode(data, max_pixels=1 << 22)
    except ImageError as error:
        return str(error)


def survive(data):
    """Decode within five seconds to an RGB image, or refuse with a short reason."""
    started = time.process_time()
    found = outcome(data)
    assert time.process_time() - started < 5
    if isinstance(found, str):
        assert 0 < len(found) < 120
        assert found.isprintable()
        assert " at 0x" not in found
    else:
        assert found.mode == "RGB"
        assert np.asarray(found).shape == (found.height, found.width, 3)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_sound(name):
    assert decode(SAMPLES[name]).mode == "RGB"


def test_threads_do_not_disturb_each_other():
    names = sorted(SAMPLES) * 8
    alone = {name: decode(data).tobytes() for name, data in SAMPLES.items()}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda name: decode(SAMPLES[name]).tobytes(), names))
    assert together == [alone[name] for name in names]


@pytest.mark.parametrize("name", SAMPLES)
def test_cut_anywhere(name):
    data = SAMPLES[name]
    for length in range(0, len(data), max(1, len(data) // 60)):
        survive(data[:length])
        survive(data[:length] + bytes(len(data) - length))
        survive(data[length:])


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8),
    front=st.booleans(),
)
def test_any_bytes_changed(name, flips, front):
    data = bytearray(SAMPLES[name])
    for position, value in flips:
        data[position % (min(len(data), 120) if front else len(data))] = value
    if name.startswith("png"):
        data = bytearray(_right_checksums(bytes(data)))
    survive(bytes(data))


def _right_checksums(data):
    """Make the checksums fit again, so that the change is not refused at the door."""
    position, parts = 8, [data[:8]]
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        if len(body) < length:
            break
        parts.append(chunk(kind, body))
        position += 12 + length
    return b"".join([*parts, data[position:]])


@settings(deadline=None, max_examples=150)
@given(
    data=st.binary(max_size=300),
    magic=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBPVP8 "]
    ),
)
def test_noise_behind_any_magic(data, magic):
    survive(magic + data)


@settings(deadline=None, max_examples=100)
@given(exif=st.binary(max_size=80), order=st.sampled_from([b"II*\0", b"MM\0*"]))
def test_noise_as_exif_leaves_the_pixels(exif, order):
    data = insert(encode(scene(3, 3)), chunk(b"eXIf", order + exif))
    assert sorted(np.asarray(decode(data)).reshape(-1, 3).tolist()) == sorted(
        np.asarray(scene(3, 3)).reshape(-1, 3).tolist()
    )
