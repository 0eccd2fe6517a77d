from __future__ import annotations

import json

import pytest

from img2prompt_cache.cache import Cache
from img2prompt_cache.compare import compare
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fit import Choice, fit
from img2prompt_cache.runs import find_runs
from synthetic import make_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(make_cache(tmp_path_factory.mktemp("compare") / "cache"))


@pytest.fixture(scope="module")
def grouped(cache):
    return [fit(cache, Choice(head))[0] for head in ("mean", "nearest")]


def test_best_first_and_only_what_was_scored_on_the_same_rows(cache, grouped, tmp_path):
    leaking, _ = fit(cache, Choice("mean", split="random"), tmp_path / "random")
    seeded, _ = fit(cache, Choice("mean", seed=1), tmp_path / "seeded")
    newest, _ = fit(cache, Choice("ridge", {"alpha": 1.0}), tmp_path / "newest")
    board = compare([newest, leaking, *grouped, seeded, newest.parent / "." / "newest"])
    scores = [run.metrics["cosine"] for _, run in board.runs]
    assert scores == sorted(scores, reverse=True)
    assert {path for path, _ in board.runs} == {newest, *grouped}
    assert board.runs[-1][1].head == "mean"
    assert set(board.others) == {leaking, seeded}
    assert board.split["strategy"] == "group"
    assert [path for path, _ in compare([leaking]).runs] == [leaking]


def test_another_target_is_another_contest(cache, grouped, tmp_path):
    other, _ = fit(cache, Choice("mean"), tmp_path / "other")
    data = json.loads((other / "run.json").read_text())
    data["target"]["fingerprint"]["weights"] = "others"
    (other / "run.json").write_text(json.dumps(data))
    board = compare([*grouped, other])
    assert [path for path, _ in board.runs] == [other]
    assert board.others == grouped


def test_nothing_to_compare(grouped, tmp_path):
    with pytest.raises(UsageError, match="there is no run to compare; make one"):
        compare(find_runs(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(Img2PromptError, match="does not describe a run"):
        compare([*grouped, tmp_path / "run"])
