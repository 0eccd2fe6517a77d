"""MiniLM beside the targets of another encoder: a new cache gets its column, where its weights are here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from img2prompt_cache import fit, look
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.grouping import choose_grouping
from img2prompt_cache.extraction import grouping_column, plan
from img2prompt_cache.extraction.grouping_column import add_grouping_column
from img2prompt_cache.models import minilm
from img2prompt_cache.models.minilm import MINILM, find_minilm
from kit import Log, Tiny, make_source, parts_of, save_clip, save_encoder, write_prompts


@pytest.fixture
def local(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small encoder in the place of MiniLM, known by its weights; give its spec."""
    from safetensors.torch import load_file, save_file

    from img2prompt_cache.models.encoders.base import load_encoder

    folder = save_encoder(tmp_path / "minilm", seed=7)
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] *= 10  # so that it tells prompts apart
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    spec = f"st:local-dir:{folder}"
    monkeypatch.setattr(minilm, "_WEIGHTS", load_encoder(spec).fingerprint["weights"])
    monkeypatch.setattr(grouping_column, "find_minilm", lambda: spec)
    monkeypatch.setattr(plan, "add_grouping_column", add_grouping_column)
    return spec


def read(folder: Path) -> tuple[Cache, Any]:
    cache = Cache(folder)
    return cache, load_dataset(cache, cache.manifest.of_kind("features"), choose_target(cache, None))


def test_it_tells_near_identical_prompts_and_is_not_what_heads_predict(
    tiny: Tiny, pairs: Path, tmp_path: Path, local: str, log: Log
) -> None:
    folder = tmp_path / "cache"
    tiny.extract(pairs, folder, log)
    (said,) = [note for note in log.notes if f"found by {local}" in note]
    assert said.endswith(f"what heads predict is {tiny.encoder}")
    target, light = Cache(folder).manifest.of_kind("targets")
    assert (target.spec, target.for_grouping, light.spec, light.for_grouping) == (
        tiny.encoder,
        False,
        local,
        True,
    )
    cache, data = read(folder)
    assert data.target == target
    grouping = choose_grouping(cache, data)
    assert (grouping.column, grouping.threshold, grouping.fitted) == (light, 0.8, False)
    # What it holds is what MiniLM as an encoder of its own would hold.
    tiny.extract(pairs, tmp_path / "other", encoder=local)
    whole = Cache(tmp_path / "other")
    assert len(whole.manifest.of_kind("targets")) == 1
    assert np.array_equal(cache.numpy(local), whole.numpy(local), equal_nan=True)
    # A later pass keeps it so, and computes it for new rows as for others.
    before = parts_of(folder)
    assert tiny.extract(pairs, folder, encoder=None).fresh == 0
    assert Cache(folder).manifest.of_kind("targets") == (target, light)
    assert parts_of(folder) == before


def test_fit_predicts_the_encoder_that_was_named(tiny: Tiny, tmp_path: Path, local: str) -> None:
    source = make_source(tmp_path / "images", 12)
    write_prompts(source, {f"img{n:03d}": " ".join("abcdefghijkl"[n] * 5) for n in range(12)})
    folder, told = tmp_path / "cache", Log()
    tiny.extract(source, folder)
    run = fit(folder, head="ridge", progress=told)
    assert run.target.spec == tiny.encoder
    assert run.split["group_encoder"] == local
    assert not [line for line in told.notes if "the first in the cache" in line]
    assert fit(folder, head="mean", encoder=local).target.spec == local


def test_a_text_tower_that_was_named_stays_what_heads_predict(
    tiny: Tiny, pairs: Path, tmp_path: Path, local: str
) -> None:
    clip = f"open_clip:local-dir:{save_clip(tmp_path / 'clip')}"
    tiny.extract(pairs, tmp_path / "cache", encoder=clip)
    assert choose_target(Cache(tmp_path / "cache"), None).spec == clip
    # Named, MiniLM is a target like others, and towers come after it.
    tiny.extract(pairs, tmp_path / "cache", encoder=local)
    assert choose_target(Cache(tmp_path / "cache"), None).spec == local
    assert not any(column.for_grouping for column in load_manifest(tmp_path / "cache").columns)


def test_a_cache_of_minilm_by_another_name_gets_none(
    tiny: Tiny, pairs: Path, tmp_path: Path, local: str
) -> None:
    tiny.extract(pairs, tmp_path / "cache", encoder=f"words={local}")
    assert [column.spec for column in Cache(tmp_path / "cache").manifest.of_kind("targets")] == ["words"]


def test_a_cache_that_is_there_gets_none(tiny: Tiny, pairs: Path, cache: Path, local: str, log: Log) -> None:
    assert tiny.extract(pairs, cache, log).fresh == 0
    tiny.extract(pairs, cache, log, backbones=(tiny.vit,))
    assert len(Cache(cache).manifest.of_kind("targets")) == 1
    assert not [note for note in log.notes if MINILM in note or local in note]


def test_a_look_shows_it(tiny: Tiny, pairs: Path, tmp_path: Path, local: str) -> None:
    found = look(pairs, tmp_path / "cache", backbones=tiny.cnn, encoder=tiny.encoder)
    tiny.extract(pairs, tmp_path / "cache")
    columns = [column.folder for column in Cache(tmp_path / "cache").manifest.columns]
    assert [*found.plan.columns] == columns
    assert len(columns) == 4
    assert [note for note in found.notes if f"unless that is {MINILM} itself" in note]


def test_further_prompts_are_embedded_by_it_too(tiny: Tiny, tmp_path: Path, local: str) -> None:
    folder = make_source(tmp_path / "images", 4)
    lines = [(f"img{n:03d}", f"{word} boats at sea, {n}") for n in range(4) for word in ("two", "red")]
    (folder / "prompts.csv").write_text("\n".join(["imgId,prompt", *(f'{i},"{p}"' for i, p in lines)]))
    tiny.extract(folder, tmp_path / "cache")
    more = Cache(tmp_path / "cache").manifest.of_kind("more_targets")
    assert [(column.spec, column.rows) for column in more] == [(tiny.encoder, 4), (local, 4)]


def test_without_its_weights_a_sentence_says_how_prompts_are_compared(
    tiny: Tiny, pairs: Path, tmp_path: Path, local: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping_column, "find_minilm", lambda: None)
    tiny.extract(pairs, tmp_path / "cache", log)
    assert len(Cache(tmp_path / "cache").manifest.of_kind("targets")) == 1
    (said,) = [note for note in log.notes if MINILM in note]
    assert f"found by {tiny.encoder}, with a threshold fitted to its cosines" in said
    assert choose_grouping(*read(tmp_path / "cache")).fitted


def test_weights_that_cannot_be_loaded_stop_no_pass(
    tiny: Tiny, pairs: Path, tmp_path: Path, local: str, log: Log
) -> None:
    for file in Path(local.removeprefix("st:local-dir:")).glob("*.safetensors"):
        file.write_bytes(b"damaged")
    tiny.extract(pairs, tmp_path / "cache", log)
    assert len(Cache(tmp_path / "cache").manifest.of_kind("targets")) == 1


@pytest.mark.weights
def test_the_real_minilm_takes_the_place_that_is_named_by_its_weights(
    tiny: Tiny, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from img2prompt_cache.models.weights.packaged import packaged_path

    real = packaged_path(MINILM)
    monkeypatch.setattr(plan, "add_grouping_column", add_grouping_column)
    tiny.extract(pairs, tmp_path / "cache")
    targets = Cache(tmp_path / "cache").manifest.of_kind("targets")
    assert [column.spec for column in targets] == [tiny.encoder, f"packaged:{MINILM}"]
    tiny.extract(pairs, tmp_path / "other", encoder=f"st:local-dir:{real}")
    assert len(Cache(tmp_path / "other").manifest.of_kind("targets")) == 1


def test_weights_are_looked_for_on_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert find_minilm() is None
    stored = tmp_path / "hub" / f"models--sentence-transformers--{MINILM}"
    snapshot = stored / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("a" * 40)
    for name in ("modules.json", "tokenizer.json"):
        (snapshot / name).write_text("{}")
    assert find_minilm() is None
    (snapshot / "model.safetensors").write_bytes(b"")
    assert find_minilm() == f"st:{MINILM}"
    (tmp_path / "packaged" / f"{MINILM}-0.1.0").mkdir(parents=True)
    assert find_minilm() == f"packaged:{MINILM}"
