"""More than 300 hostile images through a whole pass: every row accounted for, neighbours unharmed."""

from __future__ import annotations

import io
import os
import random
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from img2prompt_cache.cache.reader import Cache
from kit import Tiny, paint

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
TWENTIETHS = range(20)
NAMES = [
    "Ελληνικά", "русский", "العربية", "עברית", "हिन्दी", "ไทย", "中文", "日本語", "한국어", "ქართული", "አማርኛ",
    "👩‍🚀🚤", "e\u0301 combining", "a b", " leading", "quote'\"", "comma,semi;", "back\\slash", "per%cent",
    "new\nline", "tab\t", "-dash", "$(touch x)", "`x`", "dots...", "CON", "x" * 200,
    "\u202eltr", "a\u200bb", "#&?",
]  # fmt: skip


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def noise(height: int = 33, width: int = 47, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def png(width: int, height: int, depth: int, colour: int, data: bytes, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join((*chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + header + body


def hostile() -> Iterator[tuple[str, bytes, bool | None]]:
    """Name, bytes, and whether the image is good; None where either will do."""
    whole = {form: encode(noise(), form) for form in FORMATS}
    suffix = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}
    for form, data in whole.items():
        for twentieth in TWENTIETHS:
            yield f"cut-{form}-{twentieth}.{suffix[form]}", data[: len(data) * twentieth // 20], False
        for other in FORMATS:
            yield f"wrong-{form}.{suffix[other]}.{suffix[other]}", data, True
        flips = random.Random(form)
        for number in range(12):
            at = flips.randrange(len(data))
            yield f"flip-{form}-{number}.{suffix[form]}", data[:at] + b"\x55" + data[at + 1 :], None
        yield f"behind-{form}.{suffix[form]}", data + os.urandom(100), True
    zeros = zlib.compress(bytes(30_000_000), 9)
    for side in (20_000, 60_000, 2**31 - 1):
        yield f"bomb-{side}.png", png(side, side, 8, 6, zeros), False
    yield "bomb-text.png", png(8, 8, 8, 0, zlib.compress(bytes(72)), chunk(b"zTXt", b"x\0\0" + zeros)), True
    for pixels in ((1, 4000), (4000, 1), (1, 1), (65_535, 1), (1, 65_535)):
        thin = zlib.compress((b"\0" + bytes(pixels[0])) * pixels[1])
        yield f"thin-{pixels}.png", png(*pixels, 8, 0, thin), True
    for name, body in {"ends": b"", "junk": os.urandom(300), "long": b"II*\0" + b"\xff" * 4000}.items():
        broken = [
            chunk(kind, body) for kind in (b"eXIf", b"iCCP", b"iTXt", b"tEXt", b"zTXt", b"pHYs", b"acTL")
        ]
        for kind in broken:
            yield f"meta-{name}-{kind[4:8].decode()}.png", whole["PNG"][:33] + kind + whole["PNG"][33:], True
        for marker in (0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE):
            segment = b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body
            yield f"meta-{name}-{marker:x}.jpg", whole["JPEG"][:2] + segment + whole["JPEG"][2:], True
        yield f"xmp-{name}.webp", encode(noise(), "WEBP", xmp=body or b"<", exif=body or b"x"), True
    for depth, colour, channels in (
        (16, 0, 1),
        (16, 2, 3),
        (16, 4, 2),
        (16, 6, 4),
        (1, 0, 1),
        (2, 0, 1),
        (4, 0, 1),
    ):
        row = -(-9 * depth * channels // 8)
        yield (
            f"depth-{depth}-{colour}.png",
            png(9, 5, depth, colour, zlib.compress((b"\0" + b"\x5a" * row) * 5)),
            True,
        )
    yield "palette.png", encode(noise().quantize(16), "PNG", transparency=3), True
    yield "no-palette.png", png(2, 1, 8, 3, zlib.compress(b"\0\0\1")), None
    for mode in ("CMYK", "L", "YCbCr"):
        yield f"{mode}.jpg", encode(noise().convert(mode), "JPEG"), True
    for mode in ("LA", "RGBA", "1", "I;16"):
        yield (
            f"{mode.replace(';', '')}.png",
            encode(noise().convert("L" if mode == "I;16" else mode), "PNG"),
            True,
        )
    frames = [noise(seed=seed) for seed in (1, 2)]
    for form in ("GIF", "WEBP", "PNG"):
        yield (
            f"animated-{form}.{form.lower()}",
            encode(noise(), form, save_all=True, append_images=frames),
            True,
        )
    yield "progressive.jpg", encode(noise(), "JPEG", progressive=True), True
    texts = {
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>', "pdf": b"%PDF-1.7\n", "html": b"<!doctype html>",
        "tiff": encode(noise(), "TIFF"), "jp2": encode(noise(), "JPEG2000"), "ico": encode(noise(), "ICO"),
        "avif": b"\0\0\0\x1cftypavif", "zip": b"PK\3\4", "elf": b"\x7fELF", "ppm": encode(noise(), "PPM"),
        "nothing": b"", "nul": b"\0", "magic": b"\x89PNG\r\n\x1a\n", "soi": b"\xff\xd8\xff",
        "text": b"no image",
    }  # fmt: skip
    for name, data in texts.items():
        yield f"not-{name}.png", data, False
    for number, name in enumerate(NAMES):
        yield f"{name}.png", encode(noise(seed=100 + number), "PNG"), True


def test_300_hostile_images_in_one_pass(tiny: Tiny, tmp_path: Path) -> None:
    good = {f"m{number:03d}" for number in range(24)}  # among the others in the listing
    cases = list(hostile())
    assert len(cases) >= 300
    for folder in ("mixed", "alone"):
        (tmp_path / folder).mkdir()
        for name in good:
            paint(tmp_path / folder / f"{name}.png", int(name[1:]))
    mixed = tmp_path / "mixed"
    for name, data, _ in cases:
        (mixed / name).write_bytes(data)
    (mixed / "loop.png").symlink_to("loop.png")
    (mixed / "round").symlink_to(mixed)
    (mixed / "outside.png").symlink_to("/etc/passwd")
    os.mkfifo(mixed / "pipe.png")
    (mixed / "folder.png").mkdir()
    (mixed / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"")
    began = time.monotonic()
    report = tiny.extract(mixed, tmp_path / "cache", format="folder", part_rows=64, batch_size=8)
    assert time.monotonic() - began < 60
    tiny.extract(tmp_path / "alone", tmp_path / "quiet", format="folder", part_rows=64, batch_size=8)
    cache, quiet = Cache(tmp_path / "cache"), Cache(tmp_path / "quiet")
    text = cache.text("imgId", "uri", "status", "reason", "sha256")
    rows = {uri: row for row, uri in enumerate(text["uri"])}
    named = {*(name for name, _, _ in cases), *(f"{name}.png" for name in good)}
    assert {*rows} == {*named, "outside.png"}
    assert text["reason"][rows["outside.png"]] == "not an image"
    assert report.rows == len(rows) == report.ok + report.failed
    features = cache.values(cache.manifest.of_kind("features")[0])
    for name, _, fine in cases:
        row = rows[name]
        is_ok = text["status"][row] == "ok"
        assert fine is None or fine == is_ok, (name, text["reason"][row])
        assert bool(text["reason"][row]) != is_ok
        assert len(text["sha256"][row]) == 64
        assert np.isfinite(features[row]).all() == is_ok
        assert np.isnan(features[row]).all() != is_ok
    others = quiet.values(quiet.manifest.of_kind("features")[0])
    for row, name in enumerate(quiet.text("imgId")["imgId"]):
        np.testing.assert_allclose(features[rows[f"{name}.png"]], others[row], rtol=1e-3, atol=1e-3)
    assert cache.verify() == []
    assert cache.unrecorded() == []
