"""What the app holds in memory while it is asked for one run after another."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from img2prompt_cache.app import engine as engines
from img2prompt_cache.app import texts as textual
from img2prompt_cache.app.engine import Engine
from img2prompt_cache.app.settings import Settings
from img2prompt_cache.app.texts import Texts
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.runs.names import open_run
from kit import save_encoder


@pytest.fixture(scope="module")
def mixed(tiny, pairs, tmp_path_factory):
    """A cache of two backbones, and of another text encoder than `served`, with a run on each backbone."""
    folder = tmp_path_factory.mktemp("mixed")
    encoder = save_encoder(folder / "encoder", seed=1)
    tiny.extract(pairs, folder / "cache", backbones=(tiny.cnn, tiny.vit), encoder=f"st:local-dir:{encoder}")
    cache = Cache(folder / "cache")
    runs = {
        name: fit_head(cache, FitConfig("mean", features=(spec,), split="random")).name
        for name, spec in (("cnn", tiny.cnn), ("vit", tiny.vit))
    }
    return folder / "cache", runs


def test_backbones_go_with_the_last_run_that_uses_them(mixed, monkeypatch):
    folder, runs = mixed
    monkeypatch.setattr(engines, "MOST_RUNS", 1)
    engine = Engine(Settings(folder, device="cpu"))
    first = engine.load(runs["cnn"])
    (model,) = (weakref.ref(backbone.model) for backbone in first.backbones.values())
    bank = first.bank
    del first
    assert engine.load(runs["vit"]).bank is bank
    gc.collect()
    assert model() is None
    assert engine.load(runs["cnn"]).backbones


def test_a_backbone_that_another_run_uses_stays(served, monkeypatch):
    monkeypatch.setattr(engines, "MOST_RUNS", 1)
    engine = Engine(Settings(served, device="cpu"))
    one, other = engine.runs
    (backbone,) = engine.load(one).backbones.values()
    (again,) = engine.load(other).backbones.values()
    assert again is backbone


def test_the_text_encoder_not_asked_for_longest_goes_first(served, mixed, monkeypatch):
    monkeypatch.setattr(textual, "MOST_TARGETS", 1)
    loaded = []
    load = textual.load_recorded_encoder

    def counted(target, **options):
        encoder = load(target, **options)
        loaded.append(weakref.ref(encoder.model))
        return encoder

    monkeypatch.setattr(textual, "load_recorded_encoder", counted)
    texts = Texts("cpu")
    one, other = open_run(None, served), open_run(None, mixed[0])
    bank = Engine(Settings(served, device="cpu")).load(one.name).bank
    vector = texts.encode(one.target, "a calm sea")
    assert texts.compose(one.target, bank, vector)[0]
    assert len(loaded) == 1
    texts.encode(other.target, "a calm sea")
    texts.compose(other.target, bank, vector)
    gc.collect()
    assert [each() is not None for each in loaded] == [False, True]
    np.testing.assert_array_equal(texts.encode(one.target, "a calm sea"), vector)
    texts.stop()
