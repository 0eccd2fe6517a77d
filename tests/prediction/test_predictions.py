from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.predictions import Predictions


@pytest.fixture
def made():
    vectors = unit(np.random.default_rng(0).normal(size=(2, 4)))
    scores = np.array([[0.9, 0.1], [0.5, 0.25]], np.float32)
    return Predictions(
        ["a", "b"], vectors, {"c": "empty file"}, [["<sea>", "sky"], ["a\ndog", "x" * 900]], scores
    )


def test_they_are_an_array_of_vectors(made):
    np.testing.assert_array_equal(np.asarray(made), made.vectors)
    assert np.asarray(made, np.float64).dtype == np.float64
    assert len(made) == 2


def test_they_are_shown_short_and_escaped(made):
    assert repr(made) == "Predictions(2 images: a, b, 1 failed)"
    assert "&lt;sea&gt;" in made._repr_html_()
    assert "0.9000" in made._repr_html_()
    many = Predictions([str(row) for row in range(100_000)], np.zeros((100_000, 4), np.float32))
    assert repr(many) == "Predictions(100000 images: 0, 1, 2, … (100,000))"
    assert len(many._repr_html_()) < 5000


def test_a_data_frame_has_a_row_for_each_image(made):
    frame = made.to_pandas()
    assert list(frame) == ["imgId", "embedding", "prompts", "scores"]
    assert frame["prompts"][0] == ["<sea>", "sky"]
    np.testing.assert_array_equal(frame["embedding"][1], made.vectors[1])
    assert list(Predictions(["a"], made.vectors[:1]).to_pandas()) == ["imgId", "embedding"]


def test_without_pandas_the_error_says_what_to_install(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(Img2PromptError, match="pip install pandas"):
        made.to_pandas()


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet", "jsonl"])
def test_they_are_saved_once(made, tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    made.save(str(path))
    assert path.stat().st_size
    with pytest.raises(UsageError, match="give `overwrite=True`") as caught:
        made.save(path)
    assert caught.value.parameter == "out"
    made.save(path, overwrite=True)
    if suffix == "npy":
        np.testing.assert_array_equal(np.load(path, allow_pickle=False), made.vectors)
    if suffix == "parquet":
        import pyarrow.parquet as pq

        prompts = pq.read_table(path)["prompts"].to_pylist()
        assert [each["prompt"] for each in prompts[0]] == ["<sea>", "sky"]


def test_what_they_are_expected_to_reach_is_shown_kept_and_put_together(made, tmp_path):
    sure = replace(made, expected=np.array([0.5, 0.25], np.float32), flagged=np.array([False, True]))
    assert list(sure.to_pandas()) == ["imgId", "embedding", "expected", "flagged", "prompts", "scores"]
    assert sure.to_pandas()["flagged"].tolist() == [False, True]
    assert "0.2500" in sure._repr_html_()
    sure.save(tmp_path / "x.npy")
    assert (tmp_path / "x.ids.csv").read_text().splitlines()[2] == "1,b,0.25,true"
    empty = Predictions([], np.empty((0, 4), np.float32))
    whole = Predictions.concatenate([sure, empty, sure], 4)
    assert whole.expected.tolist() == [0.5, 0.25, 0.5, 0.25]
    assert whole.columns.keys() == {"expected", "flagged"}
    assert Predictions.concatenate([sure, made], 4).columns == {}


def test_batches_are_put_together(made):
    empty = Predictions([], np.empty((0, 4), np.float32), {"d": "cut"})
    whole = Predictions.concatenate([made, empty, made], 4)
    assert whole.ids == ["a", "b", "a", "b"]
    assert whole.failed == {"c": "empty file", "d": "cut"}
    assert whole.nearest == (made.nearest or []) * 2
    none = Predictions.concatenate([empty], 4)
    assert none.vectors.shape == (0, 4)
    assert none.prompts is None
