from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.runs import breakdown as module
from img2prompt_cache.runs.breakdown import LENGTHS, by_cluster, by_length, held_out
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.leaderboard import compare
from img2prompt_cache.runs.names import find_runs
from synthetic import ONE, make_cache


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = make_cache(tmp_path_factory.mktemp("breakdown") / "cache", 200, groups=60, failed=[3])
    for head in ("nearest", "mean"):
        fit_head(Cache(folder), FitConfig(head, features=(ONE,), folds=4, leakage_gap=False))
    return folder


@pytest.fixture
def folder(fitted, tmp_path):
    return shutil.copytree(fitted, tmp_path / "cache")


@given(st.lists(st.integers(0, 60), min_size=1, max_size=50))
def test_every_prompt_is_in_one_bin_of_its_length(words):
    found = by_length([" word\n" * count for count in words])
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(words)))
    assert list(found) == list(LENGTHS)
    wanted = {"≤5": (0, 5), "6–10": (6, 10), "11–20": (11, 20), "21–40": (21, 40), ">40": (41, 99)}
    for name, rows in found.items():
        low, high = wanted[name]
        assert all(low <= words[row] <= high for row in rows)


def test_clusters_are_the_ones_there_are():
    rng = np.random.default_rng(0)
    kind = rng.choice(4, 320, p=[0.4, 0.3, 0.2, 0.1])
    targets = unit(np.eye(4, 16)[kind] + 0.02 * rng.normal(size=(320, 16)))
    prompts = [f"{number} of {row}" for row, number in enumerate(kind)]
    found = by_cluster(prompts, targets)  # √(320 / 20) = 4
    assert sorted({*kind[rows]} for rows in found.values()) == [{0}, {1}, {2}, {3}]
    assert [len(rows) for rows in found.values()] == sorted(np.bincount(kind), reverse=True)
    for name, rows in found.items():
        centre = targets[rows].mean(axis=0)
        assert name == prompts[rows[np.argmax(targets[rows] @ centre)]]
    again = by_cluster(prompts, targets)
    assert all(np.array_equal(found[name], again[name]) for name in found)


@pytest.mark.parametrize(
    ("rows", "distinct", "clusters"), [(12, 12, 1), (500, 500, 5), (500, 3, 3), (1, 1, 1)]
)
def test_how_many_clusters(rows, distinct, clusters):
    targets = unit(np.random.default_rng(0).normal(size=(distinct, 8)))[np.arange(rows) % distinct]
    found = by_cluster([f"p{row % distinct}" for row in range(rows)], targets)
    assert len(found) == clusters
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(rows))


def test_clusters_are_no_more_than_a_table_holds(monkeypatch):
    monkeypatch.setattr(module, "MOST_CLUSTERS", 3)
    assert (
        len(by_cluster(list(map(str, range(500))), unit(np.random.default_rng(0).normal(size=(500, 8))))) == 3
    )


@pytest.mark.parametrize("kind", ["length", "cluster"])
def test_cells_are_means_over_the_rows_of_each_run(folder, kind):
    board = compare(folder, by=kind)
    cells = board.cells
    assert sum(cell.n for cell in cells) == 199
    for number, run in enumerate(board.runs):
        total = sum(cell.n * cell.cosines[number] for cell in cells if cell.n)
        assert total / 199 == pytest.approx(run.metrics["cosine"])
        held = load_validation(run.folder, run)
        rows = held_out(board.runs)
        cosine = dict(zip(held.ids, held.cosine, strict=True))
        for cell in cells:
            if kind == "length" and cell.n:
                inside = [name for name, p in zip(rows.ids, rows.prompts, strict=True) if len(p.split()) <= 5]
                assert (cell.name, cell.n) == ("≤5", len(inside))
                assert cell.cosines[number] == pytest.approx(np.mean([cosine[name] for name in inside]))
    empty = [cell for cell in cells if not cell.n]
    assert all(cell.cosines == [None, None] for cell in empty)
    assert len(empty) == (4 if kind == "length" else 0)


def test_held_out_rows_are_those_of_the_cache(folder):
    rows = held_out(compare(folder).runs)
    cache = Cache(folder)
    numbers = [int(name[1:]) for name in rows.ids]
    assert numbers == [row for row in range(200) if row != 3]
    assert rows.prompts == [cache.text("prompt")["prompt"][row] for row in numbers]
    np.testing.assert_array_equal(rows.targets, cache.values(cache.manifest.of_kind("targets")[0])[numbers])


def test_a_cache_that_has_grown_still_holds_them(folder, tmp_path):
    grown = make_cache(tmp_path / "grown", 260, groups=60, failed=[3])
    shutil.copytree(folder / "runs", grown / "runs")
    rows = held_out(compare(grown).runs)
    assert rows.prompts == held_out(compare(folder).runs).prompts
    smaller = make_cache(tmp_path / "smaller", 100, groups=60, failed=[3])
    shutil.copytree(folder / "runs", smaller / "runs")
    with pytest.raises(Img2PromptError, match="smaller no longer holds what nearest-one-01 was scored on"):
        held_out(compare(smaller).runs)


def test_what_is_gone_or_too_old_is_told(folder, tmp_path):
    runs = shutil.move(folder / "runs", tmp_path / "elsewhere" / "runs")
    paths = [runs / name for name in ("mean-one-01", "nearest-one-01")]
    for path in paths:
        data = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(json.dumps({**data, "cache": str(tmp_path / "gone")}))
        assert data["split"]["held_digest"]
    with pytest.raises(Img2PromptError, match=r"their cache is gone; it was .*gone"):
        compare(folder, paths, by="length")
    for path in paths:
        data = json.loads((path / "run.json").read_text())
        del data["split"]["held_digest"]
        (path / "run.json").write_text(json.dumps(data))
    with pytest.raises(Img2PromptError, match="of an older version; fit again"):
        compare(folder, paths, by="length")


def test_another_encoder_is_told(folder):
    for path in find_runs(folder):
        data = json.loads((path / "run.json").read_text())
        data["target"]["fingerprint"]["weights"] = "others"
        (path / "run.json").write_text(json.dumps(data))
    with pytest.raises(Img2PromptError, match="a prompt, image or encoder has changed"):
        compare(folder, by="cluster")


def test_unknown_kinds(folder):
    with pytest.raises(UsageError, match="unknown `by` 'lenght'; did you mean length"):
        compare(folder, by="lenght")
