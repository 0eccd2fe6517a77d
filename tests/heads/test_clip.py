from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from sklearn.base import clone

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target, choose_texts
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.heads import neighbours as neighbours_module
from img2prompt_cache.heads.clip import Clip
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.stream import predict_cached
from img2prompt_cache.runs.folder import load_head
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.run import load_run
from kit import Tiny, save_clip
from synthetic import Cli


def problem(n: int = 120, seed: int = 0):
    """Images near their prompt's text and pushed off by one direction, as CLIP's are; targets of 6 values."""
    rng = np.random.default_rng(seed)
    texts = unit(rng.normal(size=(n, 12)))
    X = 7 * (texts + 0.2 * rng.normal(size=(n, 12)) + rng.normal(size=12))
    return X.astype(np.float32), unit(rng.normal(size=(n, 6))), texts, np.arange(n) // 3


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 99))
def test_the_prediction_is_the_target_of_the_text_with_the_highest_cosine(n, seed):
    X, y, texts, groups = problem(n, seed)
    head = Clip().fit(X, y, texts=texts, groups=groups)
    kept = texts.astype(np.float16).astype(float)
    expected = y[(unit(X).astype(float) @ kept.T).argmax(axis=1)]
    np.testing.assert_allclose(head.predict(X), expected, atol=1e-6)
    assert head.predict(X).dtype == np.float32


def test_a_prompt_that_stands_twice_is_kept_once():
    X, y, texts, _ = problem(40)
    twice = Clip().fit(np.tile(X, (2, 1)), np.tile(y, (2, 1)), texts=np.tile(texts, (2, 1)))
    assert twice.state()["vectors"].shape == (40, 12)
    np.testing.assert_array_equal(twice.predict(X), Clip().fit(X, y, texts=texts).predict(X))


def test_many_prompts_are_searched_as_images_are(monkeypatch):
    X, y, texts, groups = problem(900)
    exact = Clip().fit(X, y, texts=texts, groups=groups)
    monkeypatch.setattr(neighbours_module, "EXACT", 100)
    head = Clip().fit(X, y, texts=texts, groups=groups)
    assert head.measured["recall@10"] >= 0.99
    assert (head.predict(X) == exact.predict(X)).all(axis=1).mean() > 0.98
    again = clone(head).load_state(load(save(head.state())))
    assert np.array_equal(again.predict(X), head.predict(X))


def test_texts_that_are_missing_or_of_another_model_are_refused():
    X, y, texts, _ = problem()
    with pytest.raises(UsageError, match="give `texts` of the same model"):
        Clip().fit(X, y)
    with pytest.raises(UsageError, match=r"features \(120, 12\) with texts \(120, 11\)"):
        Clip().fit(X, y, texts=texts[:, 1:])
    with pytest.raises(Img2PromptError, match="texts hold NaN or infinity, first in row 0"):
        Clip().fit(X, y, texts=np.full_like(texts, np.nan))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    return f"open_clip:local-dir:{save_clip(tmp_path_factory.mktemp('clip') / 'model')}"


@pytest.fixture(scope="module")
def both(tiny: Tiny, pairs, clip, tmp_path_factory):
    """A cache of a CNN and a CLIP model, both its towers."""
    folder = tmp_path_factory.mktemp("both") / "cache"
    tiny.extract(pairs, folder, backbones=(tiny.cnn, clip), encoder=clip)
    tiny.extract(pairs, folder, encoder=tiny.encoder)
    return folder


def test_from_pictures_to_a_run_and_back(both, clip, tiny, tmp_path):
    cache = Cache(both)
    assert choose_target(cache, None).spec == tiny.encoder  # though the text tower came first
    run = fit_head(cache, FitConfig("clip", split="random"), tmp_path / "run")
    assert ([use.spec for use in run.features], run.target.spec) == ([clip], tiny.encoder)
    assert run.measured == {"search": "exact"}

    data = load_dataset(
        cache, choose_features(cache, (clip,)), choose_target(cache, None), choose_texts(cache, ())[1]
    )
    held = load_validation(run.folder)
    inside = np.isin(data.ids, held.ids)
    cosine = unit(data.X[inside]) @ data.texts[~inside].T
    np.testing.assert_allclose(held.predictions, data.y[~inside][cosine.argmax(axis=1)], atol=1e-6)

    head = load_head(run.folder, load_run(run.folder))
    found = predict_cached(run.features, head, cache, with_prompt=True)
    np.testing.assert_array_equal(found.vectors, head.predict(data.X))


def test_every_fold_gets_the_texts_of_its_rows(both, tmp_path):
    run = fit_head(Cache(both), FitConfig("clip", split="random", folds=3), tmp_path / "run")
    assert len(run.fold_metrics) == 3


def test_what_is_missing_is_said_with_the_command_that_makes_it(both, clip, cache, tiny, pairs, capsys):
    cli = Cli(capsys)
    said = cli("fit", "--head", "clip", "--cache", cache)
    said.refused(2, "takes one open_clip backbone", "has none")
    said = cli("fit", "--head", "clip", "--cache", both, "--features", tiny.cnn)
    said.refused(2, "takes one open_clip backbone", clip)
    tiny.extract(pairs, cache, backbones=(clip,))
    said = cli("fit", "--head", "clip", "--cache", cache)
    said.refused(2, f"no text embeddings of {clip}", f"--cache {cache} --encoder {clip}")


def test_the_command_line_takes_a_text_tower_for_an_encoder(cache, clip, pairs, capsys):
    cli = Cli(capsys)
    options = ("--cache", cache, "--backbone", clip, "--encoder", clip)
    assert cli("extract", pairs, *options).code == 0
    assert cli("fit", "--head", "clip", "--split", "random", "--cache", cache, "--json").json["features"] == [
        clip
    ]
