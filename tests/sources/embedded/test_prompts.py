"""Prompts that images carry: real files made by Pillow, graphs of ComfyUI, and bytes that are neither."""

import io
import json
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.embedded.containers import LONGEST_BLOCK, MOST_BYTES
from img2prompt_cache.sources.embedded.prompts import prompt_in as found_in
from img2prompt_cache.sources.embedded.prompts import read_prompt
from img2prompt_cache.sources.embedded.texts import read_texts

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
USER_COMMENT = 0x9286


def prompt_in(texts: dict[str, str]) -> str | None:
    found = found_in(texts)
    return found.prompt if found else None


def png(texts: dict[str, str], *, zipped: bool = False, international: bool = False) -> bytes:
    info = PngInfo()
    for key, value in texts.items():
        if international:
            info.add_itxt(key, value, zip=zipped)
        else:
            info.add_text(key, value, zip=zipped)
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG", pnginfo=info)
    return file.getvalue()


def with_comment(form: str, comment: bytes, order: str = ">") -> bytes:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010E] = "a description"
    exif.get_ifd(0x8769)[USER_COMMENT] = comment
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, form, exif=exif.tobytes())
    return file.getvalue()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("international", [False, True])
def test_png_parameters_in_every_kind_of_chunk(zipped: bool, international: bool) -> None:
    text = f"a café\nwith (two:1.2) lines\nNegative prompt: ugly\nbad\n{SETTINGS}"
    assert read_prompt(png({"parameters": text}, zipped=zipped, international=international)) == (
        "a café\nwith (two:1.2) lines"
    )


def test_png_text_beyond_latin_1_and_behind_the_pixels() -> None:
    data = png({"parameters": f"猫 🐈\n{SETTINGS}"})
    assert read_prompt(data) == "猫 🐈"
    chunk = b"tEXt" + b"parameters\0" + "a naïve cat".encode()
    late = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    plain = png({})
    assert read_prompt(plain[:-12] + late + plain[-12:]) == "a naïve cat"


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"UNICODE\0" + text.encode("utf-16-be"),
        lambda text: b"UNICODE\0" + text.encode("utf-16-le"),
        lambda text: b"UNICODE\0" + text.encode("utf-16"),
        lambda text: b"ASCII\0\0\0" + text.encode(),
        lambda text: bytes(8) + text.encode(),
    ],
)
def test_exif_user_comment(form: str, order: str, encode: object) -> None:
    text = f"a 猫 at sea\nNegative prompt: ugly\n{SETTINGS}"
    assert read_prompt(with_comment(form, encode(text), order)) == "a 猫 at sea"  # type: ignore[operator]


def test_comfyui_in_webp_exif() -> None:
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + json.dumps(BASIC)
    exif[0x010F] = 'workflow:{"nodes": []}'
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "WEBP", exif=exif.tobytes())
    assert read_prompt(file.getvalue()) == "a cat"


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("a cat", "a cat"),
        (f"a cat\n{SETTINGS}", "a cat"),
        (f"{SETTINGS}", ""),
        ("Negative prompt: ugly\nSteps: 3", ""),
        (
            "how many steps: 3\nSteps to heaven: a painting\nSteps: 20, Sampler: x",
            "how many steps: 3\nSteps to heaven: a painting\n",
        ),
        ("{red|blue} cat\nSteps: 20", "{red|blue} cat\n"),
        ('{"prompt": "a cat", "negative_prompt": "x"}', "a cat"),
        ('{"sui_image_params": {"prompt": "a cat", "negativeprompt": "x"}}', "a cat"),
    ],
)
def test_automatic1111(text: str, prompt: str) -> None:
    assert (prompt_in({"parameters": text}) or "") == prompt.strip()


@pytest.mark.parametrize(
    ("texts", "prompt"),
    [
        ({"invokeai_metadata": '{"positive_prompt": "a cat", "negative_prompt": "x"}'}, "a cat"),
        ({"sd-metadata": '{"image": {"prompt": [{"prompt": "a cat [ugly]", "weight": 1}]}}'}, "a cat"),
        ({"sd-metadata": '{"image": {"prompt": "a cat"}}'}, "a cat"),
        ({"Dream": '"a \\"big\\" cat [ugly]" -s 50 -S 1'}, 'a "big" cat'),
        ({"Dream": "no quotes"}, None),
        ({"parameters": "  ", "invokeai_metadata": '{"positive_prompt": "a cat"}'}, "a cat"),
        ({"parameters": "stated", "prompt": "{}"}, "stated"),
        (
            {"invokeai_metadata": '{"positive_prompt": 3}', "sd-metadata": '{"image": 3}', "prompt": "[]"},
            None,
        ),
        ({"prompt": "[" * 500_000}, None),
        ({"invokeai_metadata": '{"positive_prompt": "\\ud800 cat"}'}, "? cat"),
    ],
)
def test_other_programs(texts: dict[str, str], prompt: str | None) -> None:
    assert prompt_in(texts) == prompt


# ComfyUI graphs ------------------------------------------------------------


def node(kind: str, **inputs: object) -> dict[str, object]:
    return {"class_type": kind, "inputs": inputs}


def text(words: object) -> dict[str, object]:
    return node("CLIPTextEncode", text=words, clip=["4", 1])


BASIC = {
    "3": node(
        "KSampler", positive=["6", 0], negative=["7", 0], model=["4", 0], latent_image=["5", 0], cfg=7.0
    ),
    "4": node("CheckpointLoaderSimple", ckpt_name="x.safetensors"),
    "5": node("EmptyLatentImage", width=512),
    "6": text("a cat"),
    "7": text("ugly"),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", images=["8", 0], filename_prefix="ComfyUI"),
}


def changed(**nodes: object) -> dict[str, object]:
    return {**BASIC, **{key.lstrip("n"): value for key, value in nodes.items()}}


def sampler(**inputs: object) -> dict[str, object]:
    return node(
        "KSampler", **{"positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0], **inputs}
    )


GRAPHS = {
    "basic": (BASIC, "a cat"),
    "negative node first": (dict(reversed(BASIC.items())), "a cat"),
    "ids are numbers in links": (changed(n3=sampler(positive=[6, 0], negative=[7, 0])), "a cat"),
    "through conditioning": (
        changed(
            n3=sampler(positive=["20", 0]),
            n20=node("FluxGuidance", conditioning=["21", 0], guidance=3.5),
            n21=node("ConditioningSetArea", conditioning=["22", 0], width=64),
            n22=node(
                "ControlNetApplyAdvanced",
                positive=["6", 0],
                negative=["7", 0],
                control_net=["4", 0],
                image=["8", 0],
            ),
        ),
        "a cat",
    ),
    "combined": (
        changed(
            n3=sampler(positive=["20", 0]),
            n20=node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["21", 0]),
            n21=node("ConditioningConcat", conditioning_to=["22", 0], conditioning_from=["6", 0]),
            n22=text("at sea"),
        ),
        "a cat, at sea",
    ),
    "SDXL, both the same": (
        changed(n6=node("CLIPTextEncodeSDXL", text_g="a cat", text_l="a cat", width=1)),
        "a cat",
    ),
    "Flux, one in the other": (
        changed(n6=node("CLIPTextEncodeFlux", clip_l="a cat", t5xxl="a cat at sea")),
        "a cat at sea",
    ),
    "custom sampler with a guider": (
        changed(
            n3=node(
                "SamplerCustomAdvanced",
                noise=["10", 0],
                guider=["11", 0],
                sampler=["12", 0],
                latent_image=["5", 0],
            ),
            n10=node("RandomNoise", noise_seed=1),
            n11=node("BasicGuider", model=["4", 0], conditioning=["6", 0]),
            n12=node("KSamplerSelect", sampler_name="euler"),
        ),
        "a cat",
    ),
    "guider with two conditions": (
        changed(
            n3=node("SamplerCustomAdvanced", guider=["11", 0], latent_image=["5", 0]),
            n11=node("DualCFGGuider", cond1=["6", 0], cond2=["7", 0], negative=["7", 0]),
        ),
        "a cat",
    ),
    "text from other nodes": (
        changed(
            n6=text(["20", 0]),
            n20=node("StringConcatenate", string_a=["21", 0], string_b="at sea", delimiter=" "),
            n21=node("PrimitiveString", value="a cat"),
        ),
        "a cat at sea",
    ),
    "wildcards, as they came out": (
        changed(
            n6=text(["20", 0]),
            n20=node("ImpactWildcardProcessor", wildcard_text="{a|b}", populated_text="a cat"),
        ),
        "a cat",
    ),
    "the first of two samplers": (
        changed(
            n8=node("VAEDecode", samples=["30", 0]),
            n30=sampler(positive=["31", 0], latent_image=["3", 0]),
            n31=text("a cat, refined"),
        ),
        "a cat",
    ),
    "the last sampler has no text": (
        changed(
            n8=node("VAEDecode", samples=["30", 0]),
            n30=sampler(positive=["31", 0], latent_image=["3", 0]),
            n31=node("ConditioningZeroOut", conditioning=["7", 0]),
        ),
        "a cat",
    ),
    "a branch that is not saved": (
        {"1": sampler(positive=["2", 0]), "2": text("not this"), **BASIC},
        "a cat",
    ),
    "loader of an extension": (
        changed(
            n3=sampler(positive=["20", 0]), n20=node("Efficient Loader", positive="a cat", negative="ugly")
        ),
        "a cat",
    ),
    "unknown node on the way": (
        changed(n3=sampler(positive=["20", 0]), n20=node("Reroute", any=["6", 0])),
        "a cat",
    ),
    "service that takes the prompt": (
        {"1": node("SomeServiceNode", prompt="a cat", seed=1), "2": node("SaveImage", images=["1", 0])},
        "a cat",
    ),
    "cycle": (
        changed(
            n3=sampler(positive=["20", 0]),
            n20=node("A", conditioning=["21", 0]),
            n21=node("B", conditioning=["20", 0]),
        ),
        None,
    ),
    "string that is a cycle": (
        changed(n6=text(["20", 0]), n20=node("Concat", text_a=["20", 0], text_b="a cat")),
        "a cat",
    ),
    "everything is a cycle": ({"1": node("A", positive=["2", 0]), "2": node("B", positive=["1", 0])}, None),
    "dangling link": (changed(n3=sampler(positive=["99", 0])), None),
    "no graph": ([1], None),
    "nodes that are none": (
        {"1": 3, "2": {"inputs": 4}, "3": {"class_type": None, "inputs": {"positive": [[], {}]}}},
        None,
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_comfyui(name: str) -> None:
    graph, prompt = GRAPHS[name]
    assert read_prompt(png({"prompt": json.dumps(graph), "workflow": "{}"})) == prompt


def test_comfyui_writes_nan() -> None:
    graph = changed(n5=node("EmptyLatentImage", is_changed=float("nan")))
    assert read_prompt(png({"prompt": json.dumps(graph)})) == "a cat"


@pytest.mark.timeout(20)
def test_large_graphs_end() -> None:
    chain = {
        str(i): node("C", conditioning=[str(i + 1), 0], conditioning_2=[str(i + 1), 1]) for i in range(20_000)
    }
    assert prompt_in({"prompt": json.dumps({**chain, "s": sampler(positive=["0", 0])})}) is None
    wide = {str(i): text(f"text {i} of many") for i in range(5000)}
    combine = node("Combine", **{f"conditioning_{i}": [str(i), 0] for i in range(5000)})
    found = prompt_in({"prompt": json.dumps({**wide, "c": combine, "s": sampler(positive=["c", 0])})})
    assert found is not None
    assert found.startswith("text 0 of many, text 1 of many")
    keys = ("positive", "cond1", "conditioning")
    dense = {  # every sampler leads to every node of the layers above it
        f"{layer}_{i}": node(
            "K", **{key: [f"{layer + 1}_{(i * 7 + step) % 41}", 0] for step, key in enumerate(keys)}
        )
        for layer in range(150)
        for i in range(41)
    }
    assert prompt_in({"prompt": json.dumps(dense)}) is None


def test_a_long_delimiter_is_not_repeated() -> None:
    parts = {f"text{i}": "a" for i in range(2000)}
    graph = {
        "1": sampler(positive=["2", 0]),
        "2": node("CLIPTextEncode", text=["3", 0]),
        "3": node("Concatenate", delimiter="x" * 100_000, **parts),
    }
    assert prompt_in({"prompt": json.dumps(graph)}) == " ".join(map(str, parts.values()))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
LINK = st.tuples(st.sampled_from("0123456"), st.integers(0, 2)).map(list)
INPUTS = st.dictionaries(
    st.sampled_from(
        ("positive", "negative", "conditioning", "text", "guider", "images", "samples", "delimiter", "x")
    ),
    LINK | st.text(max_size=5) | JSON,
    max_size=4,
)
GRAPH = st.dictionaries(
    st.sampled_from("0123456"),
    st.fixed_dictionaries({"class_type": st.sampled_from(("KSampler", "SaveImage", "N")), "inputs": INPUTS}),
    max_size=7,
)


@given(GRAPH | JSON)
def test_any_graph_gives_a_text_or_none(graph: object) -> None:
    found = prompt_in({"prompt": json.dumps(graph)})
    assert found is None or found.encode()


# Damaged and hostile files ------------------------------------------------------------

SEEDS = [
    png({"parameters": f"a cat\n{SETTINGS}", "prompt": json.dumps(BASIC)}),
    png({"parameters": f"a cat\n{SETTINGS}"}, zipped=True),
    png({"parameters": f"a cat\n{SETTINGS}"}, zipped=True, international=True),
    with_comment("JPEG", b"UNICODE\0" + "a cat".encode("utf-16-be")),
    with_comment("WEBP", b"UNICODE\0" + "a cat".encode("utf-16-be"), "<"),
]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=6)), max_size=6),
    st.none() | st.integers(0, 600),
)
def test_damaged_files_give_a_text_or_none(
    seed: bytes, cuts: list[tuple[int, bytes]], end: int | None
) -> None:
    data = bytearray(seed)
    for at, patch in cuts:
        data[at : at + len(patch)] = patch
    found = read_prompt(bytes(data[:end]))
    assert found is None or found.encode()


@given(
    st.sampled_from((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1", b"RIFF\0\0\0\0WEBP", b"")),
    st.binary(max_size=300),
)
def test_any_bytes_give_a_text_or_none(head: bytes, tail: bytes) -> None:
    found = read_prompt(head + tail)
    assert found is None or found.encode()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.timeout(20)
def test_hostile_png_chunks() -> None:
    head, bomb = b"\x89PNG\r\n\x1a\n", zlib.compress(bytes(LONGEST_BLOCK + 1))
    good = chunk(b"tEXt", b"parameters\0a cat")
    assert read_prompt(head + chunk(b"zTXt", b"parameters\0\0" + bomb) + good) == "a cat"
    assert read_prompt(head + chunk(b"iTXt", b"parameters\0\1\0") + good) == "a cat"
    assert read_prompt(head + chunk(b"tEXt", b"x" * (LONGEST_BLOCK + 1)) + good) == "a cat"
    assert read_prompt(head + struct.pack(">I", 2**32 - 1) + b"tEXt" + b"x" * 50) is None
    assert read_prompt(head + chunk(b"aaaa", b"") * 20_000 + good) is None
    assert read_prompt(head + good + chunk(b"tEXt", b"parameters\0a dog")) == "a cat"
    packed = zlib.compress(bytes(LONGEST_BLOCK))
    many = b"".join(chunk(b"zTXt", b"%d\0\0" % i + packed) for i in range(1000))
    assert sum(map(len, read_texts(io.BytesIO(head + many)).values())) <= MOST_BYTES + LONGEST_BLOCK


def test_a_directory_that_points_at_itself() -> None:
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    tiff = b"II*\0" + struct.pack("<IH", 8, 60_000) + entry
    jpeg = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    assert read_texts(io.BytesIO(jpeg)) == {}


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert read_prompt(tmp_path / "gone.png") is None
    assert read_prompt(tmp_path) is None


def test_a_folder_of_such_images(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.png").write_bytes(png({"parameters": f"a cat\n{SETTINGS}"}))
    (tmp_path / "sub" / "a.jpg").write_bytes(with_comment("JPEG", b"ASCII\0\0\0a dog"))
    (tmp_path / "c.png").write_bytes(png({}))
    source = open_source(tmp_path)
    listing = source.list()
    assert source.settings == {"format": "metadata"}
    assert listing.table["imgId"].to_pylist() == ["b", "c", "sub/a"]
    assert listing.table["prompt"].to_pylist() == ["a cat", None, "a dog"]
    assert (listing.summary.pairs, listing.summary.without_prompt) == (2, 1)
