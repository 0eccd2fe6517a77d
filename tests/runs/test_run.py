from __future__ import annotations

import json
import math
import re

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
        ({"metrics__ci95": [0.1, "x"]}, "metrics.ci95[1] is not a number"),
        ({"metrics__ci95": 0.1}, "metrics.ci95 is not a list"),
        ({"parameters": "many"}, "parameters is not a whole number"),
        ({"predict_rows_per_second": {}}, "predict_rows_per_second is not a number"),
        ({"fold_metrics": 3}, "fold_metrics is not a list"),
        ({"metrics__r@1": KeyError}, "does not describe a run: metrics.r@1 is missing"),
        ({"metrics": []}, "metrics is not an object"),
        ({"split__digest": KeyError}, "does not describe a run"),
        ({"split__train": "40"}, "train is not a whole number"),
        ({"split__strategy": 3}, "strategy is not text"),
        ({"seconds": None}, "seconds is not a number"),
        ({"features": []}, "has no features"),
        ({"features": "timm:one"}, "features is not a list"),
        ({"features__0__width": 0}, "no width"),
        ({"features__0__width": KeyError}, "does not describe a run"),
        ({"features__0__shape": [23]}, "the shape of timm:one is not its width"),
        ({"features__0__shape": [-4, -6]}, "the shape of timm:one is not its width"),
        ({"features__0__shape": 24}, "features[0].shape is not a list"),
        ({"target__fingerprint": {"weights": 3}}, "target.fingerprint.weights is not text"),
        ({"head": ["ridge"]}, "head is not text"),
        ({"cache": None}, "cache is not text"),
        ({"settings": None}, "settings is not an object"),
        ({"target__fingerprint": ["weights"]}, "target.fingerprint is not an object"),
        ({"split__folds": "5"}, "split.folds is not a whole number"),
        ({"split__folds": True}, "split.folds is not a whole number"),
        ({"split__validation": -1}, "split.validation is below 0"),
        ({"rows": "50"}, "rows is not a whole number"),
        ({"rows": 1.5}, "rows is not a whole number"),
        ({"rows": 1 << 64}, "more than 64 bits"),
        ({"refit": 1}, "refit is not true or false"),
        ({"versions": {"numpy": 2}}, "versions.numpy is not text"),
        ({"fold_metrics": [3]}, "fold_metrics[0] is not an object"),
        ({"features__0__width": 1 << 40, "features__0__shape": []}, "has no width, or one beyond"),
        ({"cache": "a\0b"}, "is no text that can be written"),
        ({"cache": "\ud800"}, "is no text that can be written"),
        ({"settings__alpha": math.inf}, "cannot be read: Infinity"),
    ],
)
def test_a_changed_description_is_refused(run, values, words):
    edit_run(run, **values)
    with pytest.raises(Img2PromptError, match=re.escape(words)) as caught:
        load_run(run)
    assert caught.value.exit_code == 1
    assert str(run / "run.json") in str(caught.value)


def test_what_a_later_version_has_added_is_passed_over(run):
    made = load_run(run)
    edit_run(run, surprise=[1], features__0__precision="fp8", target__new={}, split__new=1, metrics__new=None)
    later = load_run(run)
    assert later.features == made.features
    assert later.metrics == {**made.metrics, "new": None}
    load_head(run, later)
    load_validation(run, later)


def test_values_nested_too_deep_are_refused(run):
    deep = json.loads("[" * 60 + "]" * 60)
    edit_run(run, settings__alpha=deep)
    assert load_run(run).settings["alpha"] == deep
    edit_run(run, settings__alpha=[[[[deep]]]])
    with pytest.raises(Img2PromptError, match="nested more than 64 deep"):
        load_run(run)


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
    with pytest.raises(Img2PromptError, match="inf is no number"):
        load_run(run)


def test_the_name_of_a_run_in_the_current_folder(run, monkeypatch):
    monkeypatch.chdir(run)
    assert load_run(".").name == run.name
