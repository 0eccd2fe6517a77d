"""`search` and `top`: pictures of a cache by words, by an image, by what is expected, by the true score."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction import cached_rows
from img2prompt_cache.runs.held_out import load_validation
from kit import paint, prompt_of, save_backbone
from synthetic import Cli


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def fitted(tiny, pairs, tmp_path_factory):
    """A cache of real images and models with a run; to be read only."""
    folder = tmp_path_factory.mktemp("search") / "cache"
    tiny.extract(pairs, folder)
    ipc.fit(folder, "ridge", settings={"alpha": 0.1}, split="random", holdout=0.3)
    return folder


@pytest.fixture
def here(fitted, tmp_path, monkeypatch):
    shutil.copytree(fitted, tmp_path / "cache" / "default")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path / "home"))
    return tmp_path


def known(cache, spec_of):
    column = spec_of(cache)
    values = cache.values(column)
    return np.isfinite(values[:, 0]), values


def test_words_by_image_are_compared_with_what_the_run_predicts(cli, here, tiny):
    said = cli("search", "two red boats", "--json", "--top-k", "5")
    assert said.code == 0
    assert said.err.startswith("run ridge-")
    everything = ipc.predict(None, Cache("cache/default"), top_k=0)
    cosines = everything.vectors @ load_encoder(tiny.encoder).encode(["two red boats"])[0]
    order = np.argsort(-cosines, kind="stable")[:5]
    assert [each["cosine"] for each in said.json["found"]] == pytest.approx(cosines[order], abs=1e-5)
    assert {each["imgId"] for each in said.json["found"]} == {everything.ids[at] for at in order}


def test_words_by_prompt_are_compared_with_own_prompts(cli, here, pairs):
    prompt = prompt_of(0)
    said = cli("search", prompt, "--by", "prompt", "--top-k", "3", "--json")
    assert said.code == 0
    first = said.json["found"][0]
    assert first["prompt"] == prompt
    assert first["cosine"] == pytest.approx(1, abs=1e-5)
    assert first["file"] == str(pairs / f"{first['imgId']}.png")
    assert "img019" not in {
        each["imgId"]
        for each in cli("search", prompt, "--by", "prompt", "--top-k", "99", "--json").json["found"]
    }  # it has no prompt
    lines = cli("search", prompt, "--by", "prompt", "--top-k", "1").out.splitlines()
    assert lines == [f"1.000  {first['file']}  {prompt}"]


def test_a_picture_is_found_by_its_features_and_by_what_is_predicted_for_it(cli, here, pairs):
    image = pairs / "img006.png"
    said = cli("search", image, "--json")
    assert "run" not in said.err
    assert said.json["found"][0]["imgId"] == "img006"
    assert said.json["found"][0]["cosine"] == pytest.approx(1, abs=1e-3)
    assert len(said.json["found"]) == 10
    by_prompt = cli("search", image, "--by", "prompt", "--json", "--top-k", "1")
    vector = ipc.predict(None, [image], top_k=0).vectors[0]
    cache = Cache("cache/default")
    targets = cache.values(cache.manifest.of_kind("targets")[0])
    assert by_prompt.json["found"][0]["cosine"] == pytest.approx(np.nanmax(unit(targets) @ vector), abs=1e-4)


def test_rows_are_read_some_at_a_time_with_the_same_result(here, monkeypatch):
    whole = ipc.search("a calm sea", top_k=20)
    monkeypatch.setattr(cached_rows, "STEP", 3)
    for one, other in zip(ipc.search("a calm sea", top_k=20), whole, strict=True):
        assert one["cosine"] == pytest.approx(other["cosine"], abs=1e-5)


def test_without_a_run_words_are_compared_with_own_prompts(cli, here):
    shutil.rmtree("cache/default/runs")
    said = cli("search", "a calm sea", "--top-k", "1")
    assert said.code == 0
    assert "no run to search by image: the pictures' own prompts are searched" in said.err
    cli("search", "a calm sea", "--by", "image").refused(2, "a classifier whose classes have known names")


def test_without_runs_and_prompts_zero_shot_predictions_are_searched(cli, here, tiny):
    named = f"timm:local-dir:{save_backbone(here / 'named', classes=('red boats', 'a sea'))}"
    (here / "bare").mkdir()
    for number in range(4):
        paint(here / "bare" / f"{number}.png", number)
    tiny.extract(here / "bare", here / "other", format="folder", backbones=(named,))
    said = cli("search", "a calm sea", "--cache", "other", "--json")
    assert said.code == 0
    assert "zero-shot: no pair was used" in said.err
    assert sorted(each["imgId"] for each in said.json["found"]) == ["0", "1", "2", "3"]
    assert {each["prompt"] for each in said.json["found"]} == {""}
    said = cli("search", "a calm sea", "--cache", "other", "--by", "prompt")
    assert said.code == 2
    assert said.err == "error: no picture of other has a prompt to search by; search by image\n"


def test_what_cannot_be_searched_is_refused(cli, here):
    cli("search", "none.png").refused(2, "there is no image none.png")
    cli("search", " ").refused(2, "there is nothing to search for")
    cli("search", "a", "--by", "colour").refused(2, "--by", "image, prompt")
    cli("search", "a", "--cache", "none").refused(2, "no cache in none")
    cli("search", "a", "--run", "none").refused(2, "unknown run 'none'")
    cli("search", "a" * 5000, "--top-k", "0").refused(2, "--top-k")
    (here / "broken.png").write_bytes(b"x")
    cli("search", "broken.png").refused(1, "broken.png", "not an image")
    assert cli("search", "a" * 5000).code == 0


def test_a_stranger_s_cache_cannot_make_it_name_files_outside_the_source(here, pairs, monkeypatch):
    from img2prompt_cache.extraction.image_files import ImageFiles

    (here / "secret.png").write_bytes(b"x")
    files = ImageFiles(Cache("cache/default"))
    row = next(row for row, uri in enumerate(files._uris) if uri == "img004.png")
    assert files.path(row) == pairs / "img004.png"
    files._uris[row] = f"../../{here.name}/secret.png"
    assert files.path(row) is None
    files._uris[row] = str(here / "secret.png")
    assert files.path(row) is None
    files._uris[row] = "gone.png"
    assert files.path(row) is None


# Top


def test_top_by_score_is_that_of_the_held_out_rows(cli, here):
    (run,) = (here / "cache" / "default" / "runs").iterdir()
    held = load_validation(run)
    said = cli("top", "--by", "score", "--top-k", "3", "--json")
    assert said.code == 0
    assert said.err == f"run {run.name}\n"
    best = np.sort(held.cosine)[::-1][:3]
    assert [each["score"] for each in said.json["found"]] == pytest.approx(best, abs=1e-6)
    assert {each["imgId"] for each in said.json["found"]} <= {*held.ids}
    worst = ipc.top(by="score", worst=True, top_k=1)
    assert worst[0]["score"] == pytest.approx(held.cosine.min(), abs=1e-6)
    lines = cli("top", "--by", "score", "--top-k", "1").out.splitlines()
    assert lines == [f"{best[0]:.3f}  {said.json['found'][0]['file']}  {said.json['found'][0]['prompt']}"]


def test_top_by_expected_ranks_every_picture(cli, here):
    everything = ipc.predict(None, Cache("cache/default"), top_k=0)
    expected = dict(zip(everything.ids, everything.expected.tolist(), strict=True))
    said = cli("top", "--top-k", "99", "--worst", "--json")
    found = said.json["found"]
    assert {each["imgId"] for each in found} == {*everything.ids}
    assert "img019" in expected  # it has no prompt
    values = [each["expected"] for each in found]
    assert values == sorted(values)
    for each in found:
        assert each["expected"] == pytest.approx(expected[each["imgId"]], abs=1e-5)


def test_top_refuses_what_is_not_there(cli, here):
    cli("top", "--by", "colour").refused(2, "unknown --by", "did you mean score")
    cli("top", "--run", "none").refused(2, "unknown run 'none'")
    shutil.rmtree("cache/default/runs")
    cli("top").refused(2, "no run in cache/default/runs")


def test_best_first_leaves_out_what_is_not_known():
    scores = np.array([0.5, np.nan, 0.9, 0.5, -np.inf, 0.1])
    assert cached_rows.best_first(scores, 3).tolist() == [2, 0, 3]
    assert cached_rows.best_first(scores, 2).tolist() == [2, 0]
    assert cached_rows.best_first(scores, 99).tolist() == [2, 0, 3, 5]
    assert cached_rows.best_first(scores[1:2], 3).tolist() == []
