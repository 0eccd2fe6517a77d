"""Targets part by part, against the encoder on all prompts at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.mapped import MappedColumn
from img2prompt_cache.extraction.report import Clock
from img2prompt_cache.extraction.targets import CachedTargets, TargetWorker, first_occurrences
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.files import hash_file
from img2prompt_cache.models.encoders.base import Encoder, load_encoder
from kit import Tiny

PROMPTS = [
    "a boat",
    "",
    "sea",
    "a boat",
    "night",
    "sea",
    "  ",
    "two boats",
    "night",
    "",
    "calm sea",
    "a boat",
]


@pytest.fixture(scope="module")
def encoder(tiny: Tiny) -> Encoder:
    return load_encoder(tiny.encoder)


def compute(folder: Path, encoder: Encoder, rows: int) -> tuple[Column, Clock]:
    column = Column("targets", encoder.spec, "targets/tiny", (encoder.dim,), "float32", {})
    worker = TargetWorker(CachedTargets(folder), first_occurrences(pa.chunked_array([PROMPTS])))
    for number, start in enumerate(range(0, len(PROMPTS), rows)):
        prompts = PROMPTS[start : start + rows]
        piece = Slice(number, start, {"imgId": prompts, "prompt": prompts})
        part = worker.compute(piece, column, encoder, folder)
        assert (part.start, part.stop) == (start, start + len(prompts))
        assert part.sha256 == hash_file(folder / part.file)
        column = replace(column, parts=(*column.parts, part))
    return column, worker.clock


@pytest.mark.parametrize("rows", [1, 3, 5, 12])
def test_targets_are_the_encoders_own_wherever_parts_end(rows: int, encoder: Encoder, tmp_path: Path) -> None:
    column, clock = compute(tmp_path, encoder, rows)
    values = MappedColumn(tmp_path, column)[np.arange(12)]
    has = np.array([bool(prompt.strip()) for prompt in PROMPTS])
    np.testing.assert_allclose(values[has], encoder.encode(PROMPTS)[has], atol=1e-6)
    assert np.isnan(values[~has]).all()
    for row, prompt in enumerate(PROMPTS):
        np.testing.assert_array_equal(values[row], values[PROMPTS.index(prompt)])
    assert set(clock.seconds) == {encoder.spec, "write"}


def test_a_prompt_is_encoded_where_it_stands_first_and_nowhere_else(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    encode = Encoder.encode

    def watching(self: Encoder, prompts: list[str], batch_tokens: int | None = None) -> np.ndarray:
        seen.extend(prompts)
        return encode(self, prompts, batch_tokens)

    monkeypatch.setattr(Encoder, "encode", watching)
    compute(tmp_path, encoder, 5)
    assert seen == ["a boat", "sea", "night", "two boats", "calm sea"]


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "é", "a "])), min_size=1))
def test_first_occurrences_are_where_a_list_has_them(chunks: list[list[str]]) -> None:
    prompts = [prompt for chunk in chunks for prompt in chunk]
    found = first_occurrences(pa.chunked_array(chunks, pa.large_string()))
    assert found.dtype == np.int64
    assert found.tolist() == [prompts.index(prompt) for prompt in prompts]
