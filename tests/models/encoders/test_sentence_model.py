"""Batches by tokens give the vectors of sentence-transformers' own loop, whatever the model is made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from img2prompt_cache.models.encoders import sentence_model
from img2prompt_cache.models.encoders.base import Encoder, load_encoder
from kit import save_encoder

WORDS = "two red boats on a calm sea at night pixel art"
PROMPTS = [*(WORDS[: 1 + n % len(WORDS)] for n in range(0, 90, 2)), "boat " * 60, "é 船", "x"]


def library_encode(folder: Path, prompts: list[str], batch_size: int = 32) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return model.encode(prompts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> Encoder:
    return load_encoder(f"st:local-dir:{tiny}")


def edit(folder: Path, **values: object) -> None:
    file = folder / "config_sentence_transformers.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def pad_left(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "padding_side": "left"}))


def cls_pooling(folder: Path) -> None:
    file = folder / "1_Pooling" / "config.json"
    file.write_text(file.read_text().replace('"mean"', '"cls"'))


def add_prefix(folder: Path) -> None:
    edit(folder, prompts={"query": "art of "}, default_prompt_name="query")


def cut_vectors(folder: Path) -> None:
    edit(folder, truncate_dim=5)


def as_it_is(_: Path) -> None: ...


@pytest.mark.parametrize("change", [as_it_is, cls_pooling, add_prefix, cut_vectors])
@pytest.mark.parametrize("block", [200, 1 << 20])
def test_vectors_are_those_of_the_library(
    change: Callable[[Path], None], block: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    change(folder)
    monkeypatch.setattr(
        sentence_model, "blocks", lambda texts: sentence_model.batches(np.array([*map(len, texts)]), block)
    )
    encoder = load_encoder(f"st:local-dir:{folder}")
    for tokens in (1, 40, None):
        vectors = encoder.encode(PROMPTS, tokens)
        np.testing.assert_allclose(vectors, library_encode(folder, PROMPTS), atol=1e-6)


def test_padding_at_the_beginning_is_left_to_the_library(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    pad_left(folder)
    wanted = library_encode(folder, sorted(set(PROMPTS)), batch_size=64)
    place = {prompt: row for row, prompt in enumerate(sorted(set(PROMPTS)))}
    vectors = load_encoder(f"st:local-dir:{folder}").encode(PROMPTS, batch_tokens=40)
    np.testing.assert_allclose(vectors, wanted[[place[prompt] for prompt in PROMPTS]], atol=1e-6)


def test_a_model_without_padding_is_run_by_the_library(tmp_path: Path, tiny: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = SentenceTransformer(str(tiny), device="cpu").tokenizer.backend_tokenizer
    tokenizer.no_padding()
    torch.manual_seed(0)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=12)], device="cpu")
    model.save(str(tmp_path / "static"), create_model_card=False)
    vectors = load_encoder(f"st:local-dir:{tmp_path / 'static'}").encode(PROMPTS)
    np.testing.assert_allclose(vectors, library_encode(tmp_path / "static", PROMPTS), atol=1e-6)


def test_a_batch_has_as_many_tokens_as_it_may(encoder: Encoder) -> None:
    shapes: list[tuple[int, ...]] = []

    def note(_: Any, inputs: tuple[dict[str, torch.Tensor], ...]) -> None:
        shapes.append(tuple(inputs[0]["input_ids"].shape))
        assert bool(inputs[0]["attention_mask"][:, -1].any())  # no column is padding alone

    handle = encoder.model.model[0].register_forward_pre_hook(note)
    encoder.encode(PROMPTS, batch_tokens=64)
    handle.remove()
    assert sum(rows for rows, _ in shapes) == len(set(PROMPTS))
    assert all(rows * width <= 64 for rows, width in shapes)
    assert shapes[0] == (2, 32)  # the longest text, cut by the tokenizer, with the next
    assert len(shapes) < len(set(PROMPTS)) / 2


def test_the_earlier_way_has_the_bits_of_the_librarys_loop(encoder: Encoder, tiny: Path) -> None:
    distinct = sorted(set(PROMPTS))
    wanted = library_encode(tiny, distinct, batch_size=64)
    before = encoder.encode(PROMPTS)
    earlier = encoder.earlier()
    np.testing.assert_array_equal(earlier.encode(distinct), wanted)
    assert earlier.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(encoder.encode(PROMPTS), before)


def test_vectors_in_bfloat16_by_autocast_are_near_those_in_float32(encoder: Encoder) -> None:
    exact = encoder.encode(PROMPTS)
    with torch.autocast("cpu", torch.bfloat16):
        short = encoder.encode(PROMPTS)
    assert short.dtype == np.float32
    cosines = np.einsum("ij,ij->i", short, exact) / np.linalg.norm(short, axis=1)
    assert cosines.min() > 0.99
    assert not np.array_equal(short, exact)
