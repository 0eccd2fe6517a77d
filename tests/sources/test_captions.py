"""Prompts in texts and records that lie beside images."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.sources.captions import decode_text, prompt_of_record, prompt_of_text, prompts_of_value

INFOTEXT = """a tram in fog,
charcoal drawing
Negative prompt: colour, blur
Steps: 22, Sampler: DPM++ 2M Karras, CFG scale: 6, Seed: 4711, Size: 768x512, Version: v1.9.4
"""
BLOCK = """Prompt: a tram in fog, charcoal drawing
Negative Prompt: colour
Seed: 4711
Stable Diffusion model: sd-v1-5
Sampler: euler_a
Width: 512
Height: 768
Steps: 25
Guidance Scale: 7.5
"""
OLD_BLOCK = """a tram in fog,
charcoal drawing
Width: 512
Height: 512
Seed: 2
Steps: 50
Guidance Scale: 7.5
Prompt Strength: 0.8
Use Face Correction: None
Sampler: plms
Negative Prompt: colour
Stable Diffusion model: sd-v1-4
"""
RAW_BLOCK = "seed: 3\nprompt: a tram\nnegative_prompt: colour\nwidth: 512\nnum_inference_steps: 25\n"


@pytest.mark.parametrize(
    ("text", "prompt", "reader"),
    [
        ("a tram\n", "a tram", "text"),
        ("  two\nlines \r\n\n", "  two\nlines ", "text"),
        ("{red|blue} tram", "{red|blue} tram", "text"),
        ("a tram, 3 4 5 6 7", "a tram, 3 4 5 6 7", "text"),
        ("1999", "1999", "text"),
        ("Steps of marble\nSeed: of a plant", "Steps of marble\nSeed: of a plant", "text"),
        (INFOTEXT, "a tram in fog,\ncharcoal drawing", "a1111"),
        (INFOTEXT.replace("\n", "\r\n"), "a tram in fog,\r\ncharcoal drawing", "a1111"),
        (BLOCK, "a tram in fog, charcoal drawing", "easydiffusion"),
        (BLOCK.replace("\n", "\r\n"), "a tram in fog, charcoal drawing", "easydiffusion"),
        (OLD_BLOCK, "a tram in fog,\ncharcoal drawing", "easydiffusion"),
        (RAW_BLOCK, "a tram", "easydiffusion"),
        ('{"prompt": "a tram", "seed": 3}', "a tram", "json"),
    ],
)
def test_a_text_by_its_form(text: str, prompt: str, reader: str) -> None:
    found = prompt_of_text(text)
    assert found is not None
    assert (found.prompt, found.reader) == (prompt, reader)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "Postprocess upscale by: 4, Postprocess upscaler: R-ESRGAN 4x+",
        "Steps: 22, Sampler: Euler, CFG scale: 6, Seed: 1, Size: 512x512",
        "Negative prompt: blur\nSteps: 22, Sampler: Euler, CFG scale: 6",
        "Prompt: \nSeed: 3\nSteps: 25\n",
        "0 0.5 0.5 0.25 0.1\n2 0.1 0.2 0.3 0.4\n",
        '{"seed": 3, "negative_prompt": "blur"}',
        '{"prompt": ""}',
    ],
)
def test_settings_labels_and_nothing_are_no_prompt(text: str) -> None:
    assert prompt_of_text(text) is None


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"Prompt": "a tram", "caption": "other"}, "a tram"),
        ({"caption": "a tram", "url": "x", "status": "success"}, "a tram"),
        ({"TEXT": ["", "a tram", "more"]}, "a tram"),
        ({"id": 3, "meta": {"prompt": "a tram", "negativePrompt": "blur"}}, "a tram"),
        ({"id": 3, "generation": {"type": "image", "meta": {"prompt": "a tram"}}}, "a tram"),
        ({"reqBody": {"prompt": "a tram", "negative_prompt": "blur"}}, "a tram"),
        ({"metadata": '{"prompt": "a tram"}'}, "a tram"),
        ({"parameters": INFOTEXT}, "a tram in fog,\ncharcoal drawing"),
        ({"sui_image_params": {"prompt": "a tram", "negativeprompt": "blur"}}, "a tram"),
        ({"name": "model", "images": [{"meta": {"prompt": "a tram"}}]}, "a tram"),
        ({"name": "model", "images": [{"meta": {"prompt": "a"}}, {"meta": {"prompt": "b"}}]}, None),
        ({"negative_prompt": "blur", "description": "of a shop"}, None),
        ({"prompt": 3, "text": "\ud800"}, "?"),
        ({"prompt": {"text": "a tram"}}, "a tram"),
    ],
)
def test_a_record(record: dict[str, object], prompt: str | None) -> None:
    found = prompt_of_record(record)
    assert (found.prompt if found else None) == prompt


@pytest.mark.parametrize(
    ("value", "prompts"),
    [
        ("a tram", ["a tram"]),
        (" a tram ", [" a tram "]),
        ("[cat:dog:0.5]", ["[cat:dog:0.5]"]),
        ("[]", ["[]"]),
        ('{"scene": "a quay"}', ['{"scene": "a quay"}']),
        ('{"prompt": "a tram"}', ["a tram"]),
        ('["a tram", "b"]', ["a tram", "b"]),
        ('{"captions": ["a tram", "b"]}', ["a tram", "b"]),
        (["", "a tram"], ["a tram"]),
        (["b", " b", None, "a tram", "b"], ["b", "a tram"]),
        ([{"caption": "a tram"}], ["a tram"]),
        ([{"caption": "a tram"}, {"caption": "b"}, {"x": 1}], ["a tram", "b"]),
        ([{"prompt": "a tram", "weight": 1}, {"prompt": "b", "weight": 0.5}], ["a tram"]),
        ([], []),
        (None, []),
        (3, []),
    ],
)
def test_a_value(value: object, prompts: list[str]) -> None:
    assert prompts_of_value(value) == prompts


def test_encodings() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert decode_text("a tram, 路面電車".encode(encoding)) == "a tram, 路面電車"
    with pytest.raises(UnicodeDecodeError):
        decode_text("café".encode("latin-1"))


def nested(depth: int) -> dict[str, object]:
    record: dict[str, object] = {"prompt": "deep"}
    for _ in range(depth):
        record = {"meta": record}
    return record


def test_records_inside_records_are_bounded() -> None:
    assert prompt_of_record(nested(3)) is not None
    assert prompt_of_record(nested(500)) is None
    assert prompts_of_value([[[[[[[["deep"]]]]]]]]) == []


SIZE = 1 << 20


@pytest.mark.parametrize(
    "text",
    [
        "[" * SIZE,
        '{"meta":' * (SIZE // 8),
        "0 " * (SIZE // 2),
        "1" * SIZE,
        "use " + " " * SIZE,
        ("Seed: 1\nSteps: 2\n" + "use " * 100 + "\n") * (SIZE // 500),
        "Steps: " * (SIZE // 7),
        "prompt:" * (SIZE // 7),
        "\n" * SIZE,
        json.dumps({"a" + str(i): {} for i in range(SIZE // 20)}),
    ],
    ids=range(10),
)
def test_a_hostile_text_takes_no_time(text: str) -> None:
    began = time.process_time()
    prompt_of_text(text)
    assert time.process_time() - began < 2


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("prompt", "meta", "images", "parameters", "Comment", "x")), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(("prompt", "text", "meta", "json", "images", "uc", "c")), VALUES))
def test_any_record_gives_text_or_nothing(record: dict[str, object]) -> None:
    found = prompt_of_record(record)
    assert found is None or found.prompt.encode().strip()
    assert all(isinstance(prompt, str) and prompt.strip() for prompt in prompts_of_value(record))
