from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.additions import add_extra_pairs, add_soft_bank
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.progress import ignore
from synthetic import make_cache


def loaded(folder):
    cache = Cache(folder)
    features, target = choose_features(cache, ()), choose_target(cache, None)
    return load_dataset(cache, features, target), target


def test_pairs_of_other_caches_are_told_apart(tmp_path):
    data, target = loaded(make_cache(tmp_path / "own"))
    others = [make_cache(tmp_path / str(seed), 30, seed=seed) for seed in (1, 2)]
    extra = add_extra_pairs(data, others, target, ignore).extra
    assert extra.X.shape == (60, 32)
    assert extra.kinds.tolist() == [1] * 30 + [2] * 30
    assert extra.left_out == 0
    assert [*extra.caches] == [str(folder.resolve()) for folder in others]
    first = loaded(others[0])[0]
    assert np.array_equal(extra.X[:30], first.X)
    assert np.array_equal(extra.y[:30], first.y)


def test_what_is_near_identical_to_a_row_of_the_cache_is_left_out(tmp_path):
    data, target = loaded(make_cache(tmp_path / "own", 40, groups=40))
    same = make_cache(tmp_path / "same", 60, groups=60)
    # The first rows have the images of the cache; the rest has new images and new prompts.
    extra = add_extra_pairs(data, [same], target, ignore).extra
    assert extra.left_out == 40
    with pytest.raises(UsageError, match="near-identical to one of the cache to fit on") as caught:
        add_extra_pairs(data, [tmp_path / "own"], target, ignore)
    assert caught.value.parameter == "extra"


def test_a_cache_of_other_columns_is_refused(tmp_path):
    data, target = loaded(make_cache(tmp_path / "own"))
    other = make_cache(tmp_path / "other", seed=1)
    manifest = other / "cache.json"
    manifest.write_text(manifest.read_text().replace("sha256:timm:one", "sha256:timm:two"))
    with pytest.raises(Img2PromptError, match="Extra pairs need the same columns"):
        add_extra_pairs(data, [other], target, ignore)


@pytest.mark.weights
def test_prompts_near_those_of_the_cache_are_left_out_of_a_soft_bank(tmp_path):
    texts = ["a red fox in the snow", "a castle on a hill, oil painting", "two dogs on a beach"]
    bank = tmp_path / "bank.txt"
    bank.write_text("\n".join([*texts, "a red fox in the snow!"]))
    encoder = load_encoder("packaged:all-MiniLM-L6-v2")
    y = encoder.encode(texts[:1])
    target = Column("targets", encoder.spec, "targets/x", y.shape[1:], "float32", encoder.fingerprint)
    data = Dataset(np.arange(1), ["a"], texts[:1], ["0"], np.zeros((1, 2), np.float32), y, ())
    found = add_soft_bank(data, bank, target, "cpu", ignore).bank
    np.testing.assert_allclose(found, encoder.encode(texts[1:]), atol=1e-5)


def test_the_training_prompts_alone_are_a_soft_bank(tmp_path):
    data, target = loaded(make_cache(tmp_path / "own"))
    assert add_soft_bank(data, "train", target, "cpu", ignore).bank.shape == (0, 384)
    assert add_soft_bank(data, None, target, "cpu", ignore).bank is None
