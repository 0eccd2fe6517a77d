from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.augmented_views import load_views
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.taps import choose_taps
from synthetic import make_cache


def test_views_are_read_joined(tiny, pairs, tmp_path):
    tiny.extract(pairs, tmp_path / "c", taps=choose_taps(views=3))
    cache = Cache(tmp_path / "c")
    features = choose_features(cache, ())
    data = load_dataset(cache, features, choose_target(cache, None))
    views = load_views(cache, data)
    assert views.dtype == np.float16
    assert views.shape == (len(data.rows), 3, data.X.shape[1])
    wanted = [cache.values(cache.column("views", f"{column.spec}#v3"), data.rows) for column in features]
    np.testing.assert_array_equal(views.astype(np.float32), np.concatenate(wanted, axis=2))


def test_views_that_are_not_there_are_asked_for(tmp_path):
    cache = Cache(make_cache(tmp_path / "c", 8))
    data = load_dataset(cache, choose_features(cache, ()), choose_target(cache, None))
    with pytest.raises(UsageError, match=r"takes views of timm:one, timm:other: run `extract\(views=N\)`"):
        load_views(cache, data)


def test_an_image_stands_for_views_that_were_lost(tiny, pairs, tmp_path, monkeypatch):
    tiny.extract(pairs, tmp_path / "c", taps=choose_taps(views=2))
    cache = Cache(tmp_path / "c")
    data = load_dataset(cache, choose_features(cache, ()), choose_target(cache, None))
    whole = load_views(cache, data)
    values = {
        column.spec: cache.mapped(column, "float16").load() for column in cache.manifest.of_kind("views")
    }
    for each in values.values():
        each[data.rows[3]] = np.nan
    monkeypatch.setattr(cache, "mapped", lambda column, dtype: values[column.spec])
    found = load_views(cache, data)
    np.testing.assert_array_equal(found[3], np.stack([data.X[3], data.X[3]]).astype(np.float16))
    np.testing.assert_array_equal(np.delete(found, 3, axis=0), np.delete(whole, 3, axis=0))
