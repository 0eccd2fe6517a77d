from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.additions import add_extra_pairs, add_soft_bank
from img2prompt_cache.fitting.evaluate import evaluate_head
from img2prompt_cache.heads import make_head
from img2prompt_cache.models.encoders.base import MOST_CHARACTERS, load_encoder
from img2prompt_cache.numerics.metrics import mean_cosine, unit
from img2prompt_cache.prediction import bank, kept
from img2prompt_cache.progress import ignore
from synthetic import ENCODER, make_cache, make_column


def loaded(folder, encoder=None):
    cache = Cache(folder)
    features, target = choose_features(cache, ()), choose_target(cache, encoder)
    return cache, load_dataset(cache, features, target), target


def extra_pairs(own, others):
    cache, data, target = own
    return add_extra_pairs(cache, data, others, target, ignore).extra


def add_tower(folder, spec="open_clip:tower"):
    """Add a target column to which all prompts are near, as they are to the text tower of a CLIP model."""
    manifest = load_manifest(folder)
    values = unit(np.random.default_rng(0).normal(size=(manifest.rows, 8)) * 0.1 + 1)
    column = make_column(folder, "targets", spec, values, manifest.rows, 16)
    save_manifest(folder, replace(manifest, columns=(*manifest.columns, column)))
    return folder


def test_pairs_of_other_caches_are_told_apart(tmp_path):
    own = loaded(make_cache(tmp_path / "own"))
    others = [make_cache(tmp_path / str(seed), 30, seed=seed) for seed in (1, 2)]
    extra = extra_pairs(own, others)
    assert extra.X.shape == (60, 32)
    assert extra.kinds.tolist() == [1] * 30 + [2] * 30
    assert extra.left_out == 0
    assert [*extra.caches] == [str(folder.resolve()) for folder in others]
    first = loaded(others[0])[1]
    assert np.array_equal(extra.X[:30], first.X)
    assert np.array_equal(extra.y[:30], first.y)


def test_what_is_near_identical_to_a_row_of_the_cache_is_left_out(tmp_path):
    own = loaded(make_cache(tmp_path / "own", 40, groups=40))
    same = make_cache(tmp_path / "same", 60, groups=60)
    # The first rows have the images of the cache; the rest has new images and new prompts.
    extra = extra_pairs(own, [same])
    assert extra.left_out == 40
    with pytest.raises(UsageError, match="near-identical to one of the cache to fit on") as caught:
        extra_pairs(own, [tmp_path / "own"])
    assert caught.value.parameter == "extra"


def test_a_cache_of_other_columns_is_refused(tmp_path):
    own = loaded(make_cache(tmp_path / "own"))
    other = make_cache(tmp_path / "other", seed=1)
    manifest = other / "cache.json"
    manifest.write_text(manifest.read_text().replace("sha256:timm:one", "sha256:timm:two"))
    with pytest.raises(Img2PromptError, match="Extra pairs need the same columns"):
        extra_pairs(own, [other])


def test_pairs_are_compared_as_the_split_compares_them_whatever_is_predicted(tmp_path):
    own, other = (add_tower(make_cache(tmp_path / str(seed), 40, groups=40, seed=seed)) for seed in (0, 1))
    for encoder in (None, "open_clip:tower"):
        extra = extra_pairs(loaded(own, encoder), [other])
        assert (len(extra.y), extra.left_out) == (40, 0)
        with pytest.raises(UsageError, match="near-identical"):
            extra_pairs(loaded(own, encoder), [own])
    alone = make_cache(tmp_path / "alone", 40, groups=40, seed=2)
    with pytest.raises(UsageError, match="open_clip:tower"):
        extra_pairs(loaded(own, "open_clip:tower"), [alone])


class Dictionary:
    """Encodes the prompts that it knows."""

    def __init__(self, vectors):
        self.vectors, self.dim = vectors, len(next(iter(vectors.values())))
        self.fingerprint = {"weights": str(hash(tuple(map(tuple, vectors.values()))))}

    def encode(self, prompts):
        return np.array([self.vectors[prompt] for prompt in prompts], np.float32)

    def overlong(self, prompts):
        return []


@pytest.mark.parametrize("encoder", [None, "open_clip:tower"])
def test_a_bank_is_compared_as_the_split_compares_whatever_is_predicted(tmp_path, monkeypatch, encoder):
    """One prompt of the bank is near a row's for the sentence encoder; to the tower all are near."""
    cache, data, target = loaded(add_tower(make_cache(tmp_path / "own")), encoder)
    sentences = loaded(tmp_path / "own")[1].y
    far = unit(np.random.default_rng(1).normal(size=(2, sentences.shape[1])))
    names = ["a row's", "other", "another"]
    encoders = {
        ENCODER: Dictionary(dict(zip(names, [sentences[7], *far], strict=True))),
        "open_clip:tower": Dictionary(dict(zip(names, unit(np.eye(8)[:3] * 0.1 + 1), strict=True))),
    }
    monkeypatch.setattr(bank, "load_recorded_encoder", lambda used, device: encoders[used.spec])
    monkeypatch.setattr(kept, "user_folder", lambda: tmp_path / "home")
    file = tmp_path / "bank.txt"
    file.write_text("\n".join(names))
    found = add_soft_bank(cache, data, file, target, "cpu", ignore).bank
    assert np.array_equal(found, encoders[target.spec].encode(names[1:]))


def test_errors_about_the_file_of_a_soft_bank_call_it_by_its_parameter(tmp_path, monkeypatch):
    cache, data, target = loaded(make_cache(tmp_path / "own"))
    monkeypatch.setattr(bank, "load_recorded_encoder", lambda used, device: Dictionary({"": data.y[0]}))
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "long.txt").write_text("a" * (MOST_CHARACTERS + 1))
    (tmp_path / "other.csv").write_text("title\na boat\n")
    for name in ("none.txt", "empty.txt", "latin.txt", "long.txt", "other.csv"):
        with pytest.raises(UsageError, match=f"`soften` .*{name}") as caught:
            add_soft_bank(cache, data, tmp_path / name, target, "cpu", ignore)
        assert caught.value.parameter == "soften"
        assert "`bank`" not in str(caught.value)


def test_a_held_out_prompt_in_the_bank_is_caught(tmp_path, monkeypatch):
    """A file of all prompts of the cache tells a head no more than its training prompts do."""
    cache, data, target = loaded(make_cache(tmp_path / "own"))
    prompts = dict(zip(data.prompts, data.y, strict=True))
    monkeypatch.setattr(bank, "load_recorded_encoder", lambda used, device: Dictionary(prompts))
    monkeypatch.setattr(kept, "user_folder", lambda: tmp_path / "home")
    file = tmp_path / "bank.txt"
    file.write_text("\n".join(prompts))
    split = make_split(cache, data, "group", 0.2, 0, 4)
    head = make_head("best", members=[{"head": "mean"}], temperature=0.1, pull=0.5)
    scores = {}
    for name in ("train", file):
        softened = add_soft_bank(cache, data, name, target, "cpu", ignore)
        assert len(softened.bank) == 0
        found = evaluate_head(head, softened, split).predictions
        scores[name] = mean_cosine(found, data.y[split.validation])
    assert scores["train"] == scores[file]
    leaking = evaluate_head(head, replace(data, bank=data.y), split).predictions
    assert not np.allclose(leaking, found)


@pytest.mark.weights
def test_prompts_near_those_of_the_cache_are_left_out_of_a_soft_bank(tmp_path):
    texts = ["a red fox in the snow", "a castle on a hill, oil painting", "two dogs on a beach"]
    file = tmp_path / "bank.txt"
    file.write_text("\n".join([*texts, "a red fox in the snow!"]))
    encoder = load_encoder("packaged:all-MiniLM-L6-v2")
    cache, data, target = loaded(make_cache(tmp_path / "own"))
    target = replace(target, spec=encoder.spec, fingerprint=encoder.fingerprint)
    cache.manifest = replace(cache.manifest, columns=(*cache.manifest.columns[:-1], target))
    data = replace(data, y=np.repeat(encoder.encode(texts[:1]), len(data.y), axis=0), target=target)
    found = add_soft_bank(cache, data, file, target, "cpu", ignore).bank
    np.testing.assert_allclose(found, encoder.encode(texts[1:]), atol=1e-5)


def test_the_training_prompts_alone_are_a_soft_bank(tmp_path):
    cache, data, target = loaded(make_cache(tmp_path / "own"))
    assert add_soft_bank(cache, data, "train", target, "cpu", ignore).bank.shape == (0, 384)
    assert add_soft_bank(cache, data, None, target, "cpu", ignore).bank is None
