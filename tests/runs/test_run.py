from __future__ import annotations

import math

import pytest

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.runs.folder import load_head
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.run import load_run
from synthetic import edit_run


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"schema": 2}, "has schema 2; this version reads up to 1. Upgrade"),
        ({"schema": KeyError}, "has no schema"),
        ({"schema": True}, "has no schema"),
        ({"metrics__cosine": math.nan}, "cannot be read: NaN"),
        ({"metrics__cosine": "0.5"}, "cosine is not a number"),
        ({"metrics__cosine": True}, "cosine is not a number"),
        ({"metrics__floor": "0.5"}, "floor is not a number"),
        ({"metrics__leakage_gap": []}, "leakage_gap is not a number"),
        ({"metrics__optimism": []}, "leakage_gap is not a number"),
        ({"metrics__ci95": [0.1]}, "ci95 is not two numbers"),
        ({"metrics__ci95": [0.1, "x"]}, "ci95 is not two numbers"),
        ({"metrics__ci95": 0.1}, "ci95 is not two numbers"),
        ({"parameters": "many"}, "parameters is not a number"),
        ({"predict_rows_per_second": {}}, "predict_rows_per_second is not a number"),
        ({"fold_metrics": 3}, "fold_metrics is not a list"),
        ({"metrics__r@1": KeyError}, "does not describe a run: 'r@1'"),
        ({"metrics": []}, "metrics is not an object"),
        ({"split__digest": KeyError}, "does not describe a run"),
        ({"split__train": "40"}, "train is not a whole number"),
        ({"split__strategy": 3}, "strategy is not text"),
        ({"seconds": None}, "seconds is not a number"),
        ({"features": []}, "has no features"),
        ({"features": "timm:one"}, "has no features"),
        ({"features__0__width": 0}, "no width"),
        ({"features__0__width": KeyError}, "does not describe a run"),
        ({"features__0__shape": [23]}, "shape is not its width"),
        ({"features__0__shape": [-4, -6]}, "shape is not its width"),
        ({"features__0__shape": 24}, "does not describe a run"),
        ({"target__fingerprint": {"weights": 3}}, "not described in text"),
        ({"head": ["ridge"]}, "head is not text"),
        ({"cache": None}, "cache is not text"),
        ({"settings": None}, "settings is not an object"),
        ({"surprise": 1}, "does not describe a run"),
    ],
)
def test_a_changed_description_is_refused(run, values, words):
    edit_run(run, **values)
    with pytest.raises(Img2PromptError, match=words.replace("(", r"\(")) as caught:
        load_run(run)
    assert caught.value.exit_code == 1
    assert str(run / "run.json") in str(caught.value)


def test_a_run_of_an_older_version_loads(run):
    later = dict.fromkeys(("metrics__r@10", "metrics__floor", "metrics__leakage_gap"), KeyError)
    later |= dict.fromkeys(("parameters", "predict_rows_per_second", "fold_metrics"), KeyError)
    edit_run(run, **later, metrics__ci95=KeyError, split__held_digest=KeyError, split__folds=KeyError)
    rows = [line.rpartition(",")[0] for line in (run / "validation.csv").read_text().splitlines()]
    assert rows[0] == "imgId,group,cosine"
    (run / "validation.csv").write_text("\n".join(rows))
    made = load_run(run)
    assert (made.parameters, made.predict_rows_per_second, made.fold_metrics) == (None, None, [])
    assert not load_validation(run, made).fold.any()
    load_head(run, made)


def test_a_run_from_before_columns_had_shapes_is_read(run):
    made = load_run(run)
    edit_run(run, features__0__shape=KeyError, features__1__shape=KeyError, target__shape=KeyError)
    assert load_run(run) == made
    load_head(run, made)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 100_000, '{"schema": 1}', '{"schema": 1, "features": [1]}', "\xff"]
)
def test_what_is_no_description_is_refused(run, text):
    (run / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(Img2PromptError, match=r"run\.json"):
        load_run(run)


def test_numbers_beyond_all_bounds_are_none(run):
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"n": ', '"n": 1e999, "m": '))
    with pytest.raises(Img2PromptError, match="n is not a number"):
        load_run(run)


def test_the_name_of_a_run_in_the_current_folder(run, monkeypatch):
    monkeypatch.chdir(run)
    assert load_run(".").name == run.name
