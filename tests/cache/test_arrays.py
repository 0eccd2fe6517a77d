"""Columns of a cache for code of one's own."""

from __future__ import annotations

import shutil
import sys
import warnings

import numpy as np
import pytest
import torch

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.numerics.metrics import unit
from synthetic import ENCODER, ONE, OTHER, make_cache


def same(one, other):
    return np.array_equal(np.asarray(one, np.float32), other, equal_nan=True)


def is_mapped(array):
    while array.base is not None and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


@pytest.mark.parametrize(("part_rows", "mapped"), [(60, True), (16, False)])
def test_arrays_have_every_row_in_the_dtype_that_is_stored(tmp_path, part_rows, mapped):
    cache = Cache(make_cache(tmp_path / "cache", part_rows=part_rows, without_prompt=[3]))
    for kind, spec, dtype in (
        ("features", ONE, np.float16),
        ("features", OTHER, np.float16),
        ("targets", ENCODER, np.float32),
    ):
        found, tensor = cache.numpy(spec), cache.torch(spec)
        wanted = cache.values(cache.column(kind, spec))
        assert found.dtype == dtype
        assert tensor.numpy().dtype == dtype
        assert same(found, wanted)
        assert same(tensor.numpy(), wanted)
        assert is_mapped(found) == mapped
        assert not found.flags.writeable
    assert np.isnan(cache.numpy(ENCODER)[3]).all()


def test_a_tensor_can_be_changed_without_a_warning_and_the_cache_cannot(tmp_path):
    cache = Cache(make_cache(tmp_path / "cache", part_rows=60))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = cache.torch(ONE)
    tensor.zero_()
    assert cache.torch(ONE).to(torch.float32).norm() > 0
    assert cache.verify() == []
    with pytest.raises(ValueError, match="read-only"):
        cache.numpy(ONE)[0] = 0


def test_trunks_and_views_are_restored(tuned):
    cache = Cache(tuned)
    coded = [column for column in cache.manifest.columns if column.dtype == "int8"]
    for column in (*coded, *cache.manifest.of_kind("trunk"), *cache.manifest.of_kind("views")):
        found = cache.numpy(column.spec)
        assert found.dtype == (np.float32 if column.dtype == "int8" else np.float16)
        assert found.shape == (cache.rows, *column.shape)
        assert same(found, cache.values(column))
    assert coded


def test_a_data_frame_has_a_line_for_each_row(tmp_path):
    cache = Cache(make_cache(tmp_path / "cache", 30, fold=["a", "b"] * 15, failed=[4], without_prompt=[5]))
    frame = cache.pandas()
    assert list(frame) == ["imgId", "uri", "prompt", "sha256", "status", "reason", "fold"]
    assert frame["imgId"].tolist() == cache.text("imgId")["imgId"]
    assert frame.index.tolist() == list(range(30))
    usable = frame[(frame["status"] == "ok") & (frame["prompt"] != "")].index
    targets = cache.numpy(ENCODER)[usable]
    assert len(targets) == 28
    assert np.allclose(targets, unit(targets), atol=1e-6)


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    cache = Cache(make_cache(tmp_path / "cache"))
    with pytest.raises(UsageError, match="did you mean timm:one"):
        cache.numpy("timm:onee")
    with pytest.raises(UsageError, match="unknown kind of column 'feature'; did you mean features"):
        cache.torch(ONE, "feature")
    with pytest.raises(UsageError, match="unknown targets column"):
        cache.numpy(ONE, "targets")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(Img2PromptError, match="pip install pandas"):
        cache.pandas()


def test_a_part_that_is_another_one_is_refused(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "cache")
    cache = Cache(folder)
    column = cache.manifest.of_kind("features")[0]
    (folder / column.parts[0].file).write_bytes(b"damaged")
    with pytest.raises(Img2PromptError, match="00000"):
        cache.numpy(column.spec)
