"""Prompts in AVIF, HEIC and JPEG XL files, and hostile boxes."""

from __future__ import annotations

import io
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from img2prompt_cache.sources.embedded.boxes import read_boxes
from img2prompt_cache.sources.embedded.prompts import Found, find_prompt, read_prompt

PROMPT = "a brass diving helmet on a jetty"
INFOTEXT = f"{PROMPT}\nNegative prompt: people\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt><rdf:li>'
    f"{PROMPT} --ar 16:9 Job ID: 0123abcd-4567-89ab-cdef-0123456789ab</rdf:li></rdf:Alt></dc:description>"
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
).encode()


def exif() -> bytes:
    made = Image.Exif()
    made.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + INFOTEXT.encode("utf-16-be")
    return made.tobytes()


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def heic(block: bytes, version: int = 1, *, inside: bool = False, start: int | None = None) -> bytes:
    """A file with one EXIF item, whose place is written by one of the versions of iloc."""
    data = struct.pack(">I", 6) + b"Exif\0\0" + block
    top = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    entry = box(b"infe", b"\2\0\0\0", struct.pack(">HH4s", 7, 0, b"Exif"), b"\0")
    iinf = box(b"iinf", b"\0\0\0\0\0\1", entry)

    def iloc(at: int) -> bytes:
        number = ">I" if version == 2 else ">H"
        parts = [struct.pack(">B3xBB", version, 0x44, 0), struct.pack(number, 1), struct.pack(number, 7)]
        parts += [struct.pack(">H", int(inside))] if version else []
        return box(b"iloc", *parts, struct.pack(">HHII", 0, 1, at, len(data)))

    def meta(at: int) -> bytes:
        return box(b"meta", bytes(4), iinf, iloc(at), box(b"idat", data) if inside else b"")

    at = 0 if inside else len(top) + len(meta(0)) + 8
    return top + meta(at if start is None else start) + box(b"mdat", data)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize(
    ("options", "expected"),
    [({"exif": exif()}, Found(PROMPT, "a1111")), ({"xmp": XMP}, Found(PROMPT, "midjourney")), ({}, None)],
)
def test_a_prompt_in_an_avif_is_found(options: dict[str, bytes], expected: Found | None) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "AVIF", **options)
    assert find_prompt(file.getvalue()) == expected


@pytest.mark.parametrize(("version", "inside"), [(0, False), (1, False), (1, True), (2, False), (2, True)])
def test_every_way_to_say_where_an_item_is(version: int, inside: bool) -> None:
    block = exif().removeprefix(b"Exif\0\0")
    assert read_prompt(heic(block, version, inside=inside)) == PROMPT


def test_a_prompt_in_a_jpeg_xl_is_found() -> None:
    head = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    block = box(b"Exif", bytes(4), exif().removeprefix(b"Exif\0\0"))
    assert read_prompt(head + block + box(b"jxlc", b"\xff\x0a")) == PROMPT
    assert read_prompt(head + box(b"xml ", XMP)) == PROMPT
    assert read_prompt(head + box(b"brob", b"Exif" + block)) is None


def test_positions_that_lead_nowhere_are_harmless() -> None:
    block = exif().removeprefix(b"Exif\0\0")
    assert read_prompt(heic(block, start=2**32 - 1)) is None
    head = box(b"ftyp", b"avif\0\0\0\0")
    started = time.perf_counter()
    for body in (
        struct.pack(">I4sQ", 1, b"meta", 2**64 - 1),
        struct.pack(">I4sQ", 1, b"mdat", 3),
        box(b"free") * 20_000 + box(b"meta"),
        box(b"meta", bytes(4), box(b"iloc", b"\2\0\0\0\0\0\xff\xff\xff\xff")),
        box(b"meta", bytes(4), box(b"iloc", b"\1\0\0\0\xff\xff\xff\xff" + b"\xff" * 40)),
        box(b"meta", bytes(4), box(b"iinf", b"\0\0\0\0\xff\xff" + box(b"infe", b"\2") * 20_000)),
        struct.pack(">I4s", 0, b"meta"),
    ):
        assert list(read_boxes(io.BytesIO(head + body))) == []
    assert time.perf_counter() - started < 2


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_bytes_changed(data: st.DataObject) -> None:
    block = exif().removeprefix(b"Exif\0\0")
    whole = bytearray(heic(block, data.draw(st.integers(0, 2)), inside=False))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, 160))] = data.draw(st.integers(0, 255))
    started = time.perf_counter()
    read_prompt(bytes(whole))
    assert time.perf_counter() - started < 2
