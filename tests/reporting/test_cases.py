from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.progress import ignore
from img2prompt_cache.reporting.case_study import CaseStudy
from img2prompt_cache.reporting.material import Material
from img2prompt_cache.reporting.report import plain
from img2prompt_cache.reporting.sections.cases import gather, pick
from img2prompt_cache.reporting.words import words_found
from img2prompt_cache.runs.held_out import load_validation
from kit import paint, prompt_of, write_prompts
from synthetic import ONE, OTHER, make_cache


@pytest.fixture(scope="module")
def found(fitted):
    return gather(Material.of_cache(Cache(fitted), ["ridge-one+other-01"]), ignore)


def test_words_are_found_or_missed_in_subject_and_modifiers():
    assert words_found(
        "two red foxes and a boat, oil painting, red, 8k", ["a boats, 8k", "painting of red"]
    ) == (
        ["red", "boat"],
        ["two", "foxes"],
        ["painting", "8k"],
        ["oil"],
    )


def test_the_worst_the_best_and_some_at_random_are_picked():
    cosine = np.array([0.5, 0.1, 0.9, 0.3, 0.7])
    picked = pick(cosine, 2, np.array([1, 0, 2]))
    assert picked == {1: ["worst", "random"], 3: ["worst"], 2: ["best"], 4: ["best"], 0: ["random"]}
    assert pick(np.array([0.2]), 5, np.array([0])) == {0: ["worst", "best", "random"]}


def test_the_cases_are_the_runs_held_out_rows_with_their_cosines(found, fitted):
    held = load_validation(fitted / "runs" / "ridge-one+other-01")
    known = dict(zip(held.ids, held.cosine.tolist(), strict=True))
    assert found.n == len(known)
    assert found.mean == pytest.approx(np.mean([*known.values()]))
    assert {case.id for case in found.cases} == {*known}
    for case in found.cases:
        assert case.cosine == known[case.id]
        assert case.kinds
    worst = [case for case in found.cases if "worst" in case.kinds]
    assert worst[0].cosine == min(known.values())
    assert sum(found.cosines.counts) == len(known)


def test_what_is_near_is_a_training_row(found, fitted):
    validation = load_validation(fitted / "runs" / "ridge-one+other-01")
    held = {*validation.ids}
    predicted = dict(zip(validation.ids, validation.predictions, strict=True))
    cache = Cache(fitted)
    targets = cache.values(cache.manifest.of_kind("targets")[0])
    prompts = dict(zip(*cache.text("imgId", "prompt").values(), strict=True))
    for case in found.cases:
        assert prompts[case.id] == case.prompt
        assert len({near.prompt for near in case.nearest}) == len(case.nearest) == 3
        for near in [*case.nearest, case.reach, case.image]:
            assert near.id not in held
            assert prompts[near.id] == near.prompt
            assert -1.001 <= near.truth <= 1.001
        similar = [near.similarity for near in case.nearest]
        rows = np.array([near.row for near in case.nearest])
        assert similar == pytest.approx(list(targets[rows] @ predicted[case.id]), abs=1e-5)
        assert case.reach.similarity == pytest.approx(case.reach.truth, abs=1e-5)
        assert case.reach.truth >= max(near.truth for near in case.nearest) - 1e-5


def test_by_folds_what_is_near_is_of_another_fold(tmp_path):
    folder = make_cache(tmp_path / "cache")
    run = fit_head(Cache(folder), FitConfig("ridge", {"alpha": 1.0}, folds=3))
    held = load_validation(run.folder)
    fold = dict(zip(held.ids, held.fold.tolist(), strict=True))
    section = gather(Material.of_cache(Cache(folder), everything=True), ignore)
    assert len(section.cases) == 60
    assert all(fold[near.id] != fold[case.id] for case in section.cases for near in case.nearest)


def test_it_is_json(found):
    data = plain(found)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["cases"][0]["nearest"][0]["prompt"].startswith("prompt ")


def test_without_a_run_there_is_nothing_to_tell(tmp_path):
    assert gather(Material.of_cache(Cache(make_cache(tmp_path / "cache"))), ignore) is None


def test_a_cache_that_no_longer_holds_what_was_scored_is_an_error(fitted, tmp_path):
    run = shutil.copytree(fitted / "runs" / "ridge-one+other-01", tmp_path / "run")
    other = make_cache(tmp_path / "cache", seed=1)
    shutil.copytree(run, other / "runs" / "ridge-one+other-01")
    with pytest.raises(Img2PromptError, match="no longer holds"):
        gather(Material.of_cache(Cache(other)), ignore)


def test_a_prompt_is_composed_of_phrases_of_other_folds_where_asked_for(tiny, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    prompts = {}
    for number in range(24):
        paint(images / f"i{number:02d}.png", number)
        prompts[f"i{number:02d}"] = prompt_of(number) + ", oil painting"
    write_prompts(images, prompts)
    tiny.extract(images, tmp_path / "cache")
    cache = Cache(tmp_path / "cache")
    fit_head(cache, FitConfig("ridge", {"alpha": 1.0}, split="random", folds=3))
    plain_cases = gather(Material.of_cache(cache), ignore).cases
    assert all(case.composed is None for case in plain_cases)
    found = gather(Material.of_cache(cache, compose=True), ignore)
    for case in found.cases:
        assert case.composed.prompt
        assert -1.001 <= case.composed.truth <= 1.001
        assert case.composed.similarity >= max(near.similarity for near in case.nearest) - 0.02


def selection(folder, numbers):
    """A table of ids that `only` takes."""
    path = folder / "some.csv"
    path.write_text("imgId\n" + "".join(f"i{number:03d}\n" for number in numbers))
    return path


def test_by_folds_rows_that_were_left_out_are_no_training_rows(tmp_path):
    folder = make_cache(tmp_path / "cache")
    used = range(0, 60, 2)
    fit_head(Cache(folder), FitConfig("ridge", {"alpha": 1.0}, folds=3, only=selection(tmp_path, used)))
    section = gather(Material.of_cache(Cache(folder), everything=True), ignore)
    assert len(section.cases) == len(used)
    near = {each.row for case in section.cases for each in [*case.nearest, case.reach, case.image]}
    assert near <= {*used}


def test_by_a_hold_out_rows_that_were_left_out_are_no_training_rows(tmp_path):
    folder = make_cache(tmp_path / "cache")
    used = range(0, 60, 2)
    fit_head(Cache(folder), FitConfig("ridge", {"alpha": 1.0}, only=selection(tmp_path, used)))
    material = Material.of_cache(Cache(folder), everything=True)
    study = CaseStudy(material, material.cache, material.board.best)
    assert {*study.rows} < {*study.train} == {*used}
    section = gather(material, ignore)
    assert (len(section.cases), section.gone) == (len(study.rows), 0)


@pytest.mark.parametrize("changed", ["removed", "another prompt", "another image"])
def test_cases_are_the_held_out_rows_that_are_still_as_they_were(changed, tmp_path):
    folder = make_cache(tmp_path / "cache")
    run = fit_head(Cache(folder), FitConfig("ridge", {"alpha": 1.0}))
    before = CaseStudy(material := Material.of_cache(Cache(folder)), material.cache, material.board.best)
    held, fitted = int(before.rows[0]), int(np.setdiff1d(before.train, before.rows)[0])
    material = Material.of_cache(Cache(folder), everything=True)
    values = {"removed": material.rows.status, "another prompt": material.rows.prompts}
    for row in (held, fitted):
        values.get(changed, material.rows.digests)[row] = changed
    study = CaseStudy(material, material.cache, material.board.best)
    assert study.gone == 1
    np.testing.assert_array_equal(study.rows, before.rows[1:])
    np.testing.assert_array_equal(study.predictions, before.predictions[1:])
    assert {*study.train} == {*before.train} - {held, fitted}
    section = gather(material, ignore)
    assert (section.n, section.gone) == (run.metrics["n"] - 1, 1)
    (folder / "runs" / run.name / "rows.csv").write_text("imgId,side,contents\ni000,train,0\n")
    with pytest.raises(Img2PromptError, match=r"rows\.csv cannot be read: a hash is cut"):
        gather(material, ignore)


def test_of_an_older_run_by_a_hold_out_rows_that_were_left_out_are_told(tmp_path):
    folder = make_cache(tmp_path / "cache")
    config = FitConfig("ridge", {"alpha": 1.0}, only=selection(tmp_path, range(0, 60, 2)))
    (fit_head(Cache(folder), config).folder / "rows.csv").unlink()
    with pytest.raises(Img2PromptError, match="was fitted on other rows"):
        gather(Material.of_cache(Cache(folder)), ignore)


def test_of_an_older_run_by_folds_rows_that_were_removed_are_no_cases(tmp_path):
    folder = make_cache(tmp_path / "cache")
    (fit_head(Cache(folder), FitConfig("ridge", {"alpha": 1.0}, folds=3)).folder / "rows.csv").unlink()
    material = Material.of_cache(Cache(folder), everything=True)
    material.rows.status[7] = "removed"
    section = gather(material, ignore)
    assert (section.n, section.gone) == (59, 1)
    near = {each.row for case in section.cases for each in [*case.nearest, case.reach, case.image]}
    assert 7 not in near | {case.row for case in section.cases}


def test_a_row_that_only_another_backbone_lacks_is_a_training_row(tmp_path):
    folder = make_cache(tmp_path / "cache")
    run = fit_head(Cache(folder), FitConfig("ridge", {"alpha": 1.0}, features=(ONE,)))
    held = {*load_validation(run.folder).ids}
    row = next(row for row in range(16) if f"i{row:03d}" not in held)
    manifest = load_manifest(folder)
    columns = [
        replace(column, parts=(replace(column.parts[0], missing=(row,)), *column.parts[1:]))
        if column.spec == OTHER
        else column
        for column in manifest.columns
    ]
    save_manifest(folder, replace(manifest, columns=tuple(columns)))
    material = Material.of_cache(Cache(folder))
    assert row in CaseStudy(material, material.cache, material.board.best).train
