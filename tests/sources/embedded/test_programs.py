"""Prompts in the places and forms in which programs write them; files are made here."""

from __future__ import annotations

import gzip
import io
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from img2prompt_cache.sources.embedded.containers import MOST_BLOCKS
from img2prompt_cache.sources.embedded.exif import decode_comment, exif_texts
from img2prompt_cache.sources.embedded.prompts import find_prompt, read_prompt
from img2prompt_cache.sources.embedded.stealth import stealth_text
from img2prompt_cache.sources.embedded.xmp import iptc_caption, xmp_texts

PROMPT = "a lighthouse in fog, linocut"
INFOTEXT = (
    f"{PROMPT}\nNegative prompt: colour\nSteps: 22, Sampler: Euler a, CFG scale: 6, Seed: 1, Size: 64x64"
)
GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], "negative": ["7", 0], "seed": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": PROMPT}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "colour"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}


def png(texts: dict[str, str], **options: object) -> bytes:
    info = PngInfo()
    for key, value in texts.items():
        info.add_itxt(key, value)
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG", pnginfo=info, **options)
    return file.getvalue()


def tiff(entries: dict[int, bytes], *, pointer: dict[int, bytes] | None = None) -> bytes:
    """An EXIF block with text entries in the first directory and, where given, in the EXIF directory."""
    head = b"MM\0*\0\0\0\x08"

    def directory(values: dict[int, bytes], at: int, more: int | None) -> bytes:
        count = len(values) + (more is not None)
        start = at + 2 + 12 * count + 4
        found, tail = struct.pack(">H", count), b""
        for tag, value in sorted(values.items()):
            if len(value) <= 4:
                found += struct.pack(">HHI", tag, 7, len(value)) + value.ljust(4, b"\0")
            else:
                found += struct.pack(">HHII", tag, 7, len(value), start + len(tail))
                tail += value
        if more is not None:
            found += struct.pack(">HHII", 0x8769, 4, 1, more)
        return found + bytes(4) + tail

    if pointer is None:
        return head + directory(entries, 8, None)
    size = len(directory(entries, 8, 0))
    return head + directory(entries, 8, 8 + size) + directory(pointer, 8 + size, None)


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "JPEG")
    data = file.getvalue()
    parts = [bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments]
    return data[:2] + b"".join(parts) + data[2:]


def exif(block: bytes) -> tuple[int, bytes]:
    return 0xE1, b"Exif\0\0" + block


def xmp(inside: str) -> str:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/" '
        f'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" {inside}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )


def described(kind: str, words: str) -> str:
    return xmp(f"><{kind}><rdf:Alt><rdf:li xml:lang='x-default'>{words}</rdf:li></rdf:Alt></{kind}>")


NOVELAI = {"prompt": PROMPT, "uc": "colour", "v4_prompt": {"caption": {"base_caption": PROMPT}}}
PROGRAMS: dict[str, tuple[bytes, str]] = {
    "a1111": (png({"parameters": INFOTEXT}), "a1111"),
    "fooocus": (png({"parameters": json.dumps({"prompt": PROMPT, "version": "Fooocus v2.5"})}), "fooocus"),
    "ruined fooocus": (
        png({"parameters": json.dumps({"Prompt": PROMPT, "Negative": "x", "software": "RuinedFooocus"})}),
        "fooocus",
    ),
    "fooocus-mre": (
        png({"Comment": json.dumps({"prompt": PROMPT, "real_prompt": [PROMPT], "software": "Fooocus-MRE"})}),
        "fooocus",
    ),
    "swarmui": (png({"parameters": json.dumps({"sui_image_params": {"prompt": PROMPT}})}), "swarmui"),
    "novelai": (
        png({"Software": "NovelAI", "Description": PROMPT, "Comment": json.dumps(NOVELAI)}),
        "novelai",
    ),
    "novelai, legacy": (png({"Software": "NovelAI", "Description": PROMPT}), "novelai"),
    "novelai, WebP's texts in a JPEG": (
        jpeg(exif(tiff({0x0131: b"NovelAI\0", 0x010E: PROMPT.encode() + b"\0"}))),
        "novelai",
    ),
    "easy diffusion": (png({"prompt": PROMPT, "negative_prompt": "x", "seed": "1"}), "easydiffusion"),
    "tensorart": (
        png({"generation_data": json.dumps({"prompt": PROMPT}) + "\0", "prompt": '{"1": {"inputs": {}}}'}),
        "tensorart",
    ),
    "invokeai 5": (png({"invokeai_metadata": json.dumps({"positive_prompt": PROMPT})}), "invokeai"),
    "invokeai, graph alone": (
        png(
            {
                "invokeai_graph": json.dumps(
                    {
                        "nodes": {"t": {"value": PROMPT}, "a": {"type": "compel"}, "b": {"prompt": "colour"}},
                        "edges": [
                            {
                                "source": {"node_id": "b", "field": "conditioning"},
                                "destination": {"node_id": "d", "field": "negative_conditioning"},
                            },
                            {
                                "source": {"node_id": "c", "field": "collection"},
                                "destination": {"node_id": "d", "field": "positive_conditioning"},
                            },
                            {
                                "source": {"node_id": "a", "field": "conditioning"},
                                "destination": {"node_id": "c", "field": "item"},
                            },
                            {
                                "source": {"node_id": "t", "field": "value"},
                                "destination": {"node_id": "a", "field": "prompt"},
                            },
                        ],
                    }
                )
            }
        ),
        "invokeai",
    ),
    "comfyui": (png({"prompt": json.dumps(GRAPH)}), "comfyui"),
    "a saver that knows no prompt, beside the graph": (
        png({"parameters": "unknown\nSteps: 3, Sampler: x", "prompt": json.dumps(GRAPH)}),
        "comfyui",
    ),
    "civitai's generator": (
        jpeg(exif(tiff({}, pointer={0x9286: b"UNICODE\0" + json.dumps(GRAPH).encode("utf-16-be")}))),
        "comfyui",
    ),
    "civitai's extra metadata": (
        jpeg(exif(tiff({0x9286: json.dumps({"extraMetadata": json.dumps({"prompt": PROMPT})}).encode()}))),
        "civitai",
    ),
    "a graph and a workflow in a user comment": (
        jpeg(exif(tiff({0x9286: json.dumps({"prompt": GRAPH, "workflow": {}}).encode()}))),
        "comfyui",
    ),
    "a user comment in the first directory": (jpeg(exif(tiff({0x9286: INFOTEXT.encode()}))), "a1111"),
    "XPComment": (jpeg(exif(tiff({0x9C9C: INFOTEXT.encode("utf-16-le") + b"\0\0"}))), "a1111"),
    "ImageDescription": (jpeg(exif(tiff({0x010E: INFOTEXT.encode()}))), "a1111"),
    "a model tag": (
        jpeg(exif(tiff({0x0110: json.dumps({"sui_image_params": {"prompt": PROMPT}}).encode() + b"\0"}))),
        "swarmui",
    ),
    "a PNG's eXIf": (png({}, exif=b"Exif\0\0" + tiff({0x9286: INFOTEXT.encode()})), "a1111"),
    "a JPEG's comment": (jpeg((0xFE, json.dumps({"prompt": PROMPT}).encode())), "json"),
    "Draw Things": (
        png(
            {
                "XML:com.adobe.xmp": described(
                    "exif:UserComment", json.dumps({"c": PROMPT, "uc": "x"}).replace('"', "&quot;")
                )
            }
        ),
        "drawthings",
    ),
    "an infotext in XMP": (
        jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + described("dc:description", INFOTEXT).encode())),
        "a1111",
    ),
    "IPTC's field for prompts": (
        jpeg(
            (
                0xE1,
                b"http://ns.adobe.com/xap/1.0/\0"
                + xmp(f'Iptc4xmpExt:AIPromptInformation="{PROMPT}">').encode(),
            )
        ),
        "iptc",
    ),
    "IPTC's caption": (
        jpeg(
            (
                0xED,
                b"Photoshop 3.0\x008BIM\x04\x04\0\0"
                + struct.pack(">I", len(INFOTEXT) + 5)
                + b"\x1c\x02\x78"
                + struct.pack(">H", len(INFOTEXT))
                + INFOTEXT.encode(),
            )
        ),
        "a1111",
    ),
    "midjourney": (
        png({"Description": f"{PROMPT} --ar 3:2 --v 6.1 Job ID: 00000000-1111-2222-3333-444444444444"}),
        "midjourney",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_is_read(name: str) -> None:
    data, reader = PROGRAMS[name]
    found = find_prompt(data)
    assert found is not None
    assert (found.prompt, found.reader) == (PROMPT, reader)


NO_PROMPTS = {
    "an upscaler's settings": png({"parameters": "Postprocess upscale by: 4, Postprocess upscaler: X"}),
    "a saver that knows no prompt": png({"parameters": "unknown"}),
    "a screenshot": jpeg(exif(tiff({}, pointer={0x9286: b"ASCII\0\0\0Screenshot"}))),
    "a camera": jpeg(exif(tiff({0x010E: b"OLYMPUS DIGITAL CAMERA\0", 0x010F: b"OLYMPUS\0"}))),
    "a description by a person": jpeg(exif(tiff({0x010E: b"my cat on the sofa\0"}))),
    "a person's comment": jpeg((0xFE, b"CREATOR: gd-jpeg v1.0")),
    "gimp": png({"Comment": "Created with GIMP"}),
    "a photographer's caption": png({"XML:com.adobe.xmp": described("dc:description", "A cat, Lisbon 2014")}),
}


@pytest.mark.parametrize("name", NO_PROMPTS)
def test_what_is_no_prompt_is_not_read_as_one(name: str) -> None:
    assert find_prompt(NO_PROMPTS[name]) is None


@pytest.mark.parametrize("text", [PROMPT, "猫とうさぎ", "un château à l'aube"])
@pytest.mark.parametrize(
    ("code", "encoding"),
    [
        (b"", "utf-8"),
        (b"ASCII\0\0\0", "utf-8"),
        (bytes(8), "utf-8"),
        (b"UNICODE\0", "utf-16-be"),
        (b"UNICODE\0", "utf-16-le"),
        (b"UNICODE\0", "utf-16"),
        (b"UNICODE\0", "utf-8"),
        (b"", "utf-16"),
    ],
)
def test_user_comments_in_every_encoding(text: str, code: bytes, encoding: str) -> None:
    if text == "猫とうさぎ" and encoding in ("utf-16-be", "utf-16-le"):
        pytest.skip("without ASCII and without a byte order mark, nothing tells the order")
    assert decode_comment(code + text.encode(encoding)) == text


def test_a_japanese_user_comment() -> None:
    assert decode_comment(b"JIS\0\0\0\0\0" + "猫とうさぎ".encode("iso2022_jp")) == "猫とうさぎ"


def test_a_graph_is_found_where_the_offset_of_its_tag_is_wrong() -> None:
    block = tiff(
        {0x010F: b'workflow:{"nodes": []}\0', 0x0110: b"prompt:" + json.dumps(GRAPH).encode() + b"\0"}
    )
    at = block.index(struct.pack(">H", 0x0110)) + 8
    broken = block[:at] + struct.pack(">I", len(block) - 9) + block[at + 4 :]
    assert read_prompt(jpeg(exif(broken))) == PROMPT


def hidden(text: str, size: tuple[int, int] = (64, 64), *, packed: bool = False) -> bytes:
    data = gzip.compress(text.encode()) if packed else text.encode()
    signature = b"stealth_pngcomp" if packed else b"stealth_pnginfo"
    bits = np.unpackbits(np.frombuffer(signature + struct.pack(">I", 8 * len(data)) + data, np.uint8))
    alpha = np.full(size[0] * size[1], 254, np.uint8)
    alpha[: len(bits)] |= bits
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    pixels[..., 3] = alpha.reshape(size).T
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (30, 200), (300, 12)])
def test_a_prompt_hidden_in_alpha(packed: bool, size: tuple[int, int]) -> None:
    found = find_prompt(hidden(INFOTEXT, size, packed=packed))
    assert found is not None
    assert (found.prompt, found.reader) == (PROMPT, "stealth")


def test_an_ordinary_image_with_alpha_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (200, 50, 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG")
    monkeypatch.setattr(Image, "open", None)
    assert stealth_text(io.BytesIO(file.getvalue())) is None
    assert stealth_text(io.BytesIO(png({}))) is None


@given(st.integers(0, 4000), st.binary(min_size=1, max_size=8))
def test_damaged_hidden_prompts_give_a_text_or_none(at: int, patch: bytes) -> None:
    data = bytearray(hidden(INFOTEXT, packed=True))
    data[at : at + len(patch)] = patch
    found = read_prompt(bytes(data))
    assert found is None or found.encode()


def test_a_document_type_in_xmp_is_refused() -> None:
    bomb = (
        "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>"
        + "<!ENTITY b '&a;&a;'>"
        + "]>"
        + described("dc:description", "&b;")
    )
    assert xmp_texts(bomb.encode()) == {}
    assert xmp_texts(b"<x>") == {}


@given(st.binary(max_size=200))
def test_any_bytes_are_no_trouble(data: bytes) -> None:
    for read in (exif_texts, xmp_texts):
        assert isinstance(read(b"II*\0" + data), dict)
    assert iptc_caption(b"8BIM" + data) is None or isinstance(iptc_caption(b"8BIM" + data), str)
    decode_comment(data)


def test_many_segments_end() -> None:
    assert (
        read_prompt(jpeg(*[(0xFE, b"")] * (MOST_BLOCKS + 5), exif(tiff({0x9286: INFOTEXT.encode()})))) is None
    )
