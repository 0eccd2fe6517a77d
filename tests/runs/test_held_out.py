from __future__ import annotations

import re

import numpy as np
import pytest

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.runs import held_out
from img2prompt_cache.runs.held_out import load_validation, mean_prediction
from img2prompt_cache.runs.run import load_run


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("validation.csv", "imgId\n"),
        ("validation.csv", None),
        ("validation.npy", "x"),
        ("validation.npy", None),
    ],
)
def test_validation_predictions_that_do_not_fit_are_refused(run, file, text):
    (run / file).unlink()
    if text is not None:
        (run / file).write_text(text)
    with pytest.raises(Img2PromptError, match=r"validation predictions of .* cannot be read"):
        load_validation(run)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (r"\bi\d+(?=,)", "i999", "an imgId stands twice"),
        (r"(?<=,)0\.\d+", "0.99", "mean cosine is not the one in run.json"),
        (r"(?<=,)0\.\d+", "nan", "NaN or infinity"),
        (r"(?<=,)0\.\d+", "high", "could not convert"),
        (r"(?<=\n)i\d+,\d+", "i001,one", "invalid literal"),
        (r",0(?=\n)", ",none", "invalid literal"),
        (r",0(?=\n)", "", "NoneType"),
        (r"(?<=,)\d+(?=,)", str(10**30), "too large|too big"),
    ],
)
def test_changed_validation_rows_are_refused(run, old, new, words):
    path = run / "validation.csv"
    text = path.read_text()
    changed = re.sub(old, new, text)
    assert changed != text
    path.write_text(changed)
    with pytest.raises(Img2PromptError, match=f"validation predictions of .*({words}).*fit it again"):
        load_validation(run, load_run(run))


def test_predictions_that_were_not_scored_are_refused(run):
    made, said = load_run(run), np.load(run / "validation.npy")
    for predictions, words in [
        (said[:, :7], "not 384 wide"),
        (said[1:], "12 ids for predictions"),
        (np.full_like(said, np.nan), "NaN or infinity"),
    ]:
        np.save(run / "validation.npy", predictions)
        with pytest.raises(Img2PromptError, match=words):
            load_validation(run, made)
    np.save(run / "validation.npy", said[1:])
    rows = (run / "validation.csv").read_text().splitlines()
    (run / "validation.csv").write_text("\n".join([rows[0], *rows[2:]]))
    with pytest.raises(Img2PromptError, match=r"11 rows, run\.json says 12"):
        load_validation(run, made)


def test_an_array_of_objects_is_never_unpickled(run):
    np.save(run / "validation.npy", np.array([{"a": 1}] * 12, dtype=object), allow_pickle=True)
    with pytest.raises(Img2PromptError, match="validation predictions"):
        load_validation(run)


def test_the_mean_prediction_is_of_unit_vectors(run, monkeypatch):
    loaded = load_run(run)
    predictions = load_validation(run).predictions
    np.testing.assert_allclose(loaded.mean_prediction, unit(predictions).mean(axis=0), atol=1e-6)
    np.save(run / "validation.npy", 3 * predictions)
    np.testing.assert_allclose(mean_prediction(run, loaded.target.width), loaded.mean_prediction, atol=1e-6)
    monkeypatch.setattr(held_out, "MOST_AVERAGED", 3)
    some = mean_prediction(run, loaded.target.width)
    step = -(-len(predictions) // 3)
    np.testing.assert_allclose(some, unit(predictions[::step]).mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        (np.ones((3, 2), "f"), "wide"),
        (np.ones((0, 4), "f"), "wide|none"),
        (np.ones(4, "f"), "shape"),
        (np.full((3, 4), np.nan, "f"), "NaN"),
        (np.ones((3, 4)), "float32"),
        (None, "No such file"),
    ],
)
def test_a_mean_prediction_of_other_arrays_is_refused(tmp_path, predictions, words):
    if predictions is not None:
        np.save(tmp_path / "validation.npy", predictions)
    with pytest.raises(Img2PromptError, match=f"cannot be read: .*({words}).*fit it again"):
        mean_prediction(tmp_path, 4)
