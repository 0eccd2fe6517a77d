"""`predict --zero-shot`: without a run, from class names or a CLIP model and a bank of prompts."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction import zero_shot
from kit import save_backbone, save_clip
from synthetic import Cli

CLASSES = ("red boats", "calm sea", "pixel art")
BANK = ("two red boats", "a calm sea", "pixel art at night", "boats at night", "4k sea")


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def caches(tiny, pairs, tmp_path_factory):
    """Caches of a backbone with class names, of a CLIP model beside it, and of neither; to be read only."""
    folder = tmp_path_factory.mktemp("zero")
    named = f"timm:local-dir:{save_backbone(folder / 'named', classes=CLASSES)}"
    clip = f"open_clip:local-dir:{save_clip(folder / 'clip')}"
    for name, backbones in (("named", (tiny.vit, named)), ("clip", (named, clip)), ("neither", (tiny.vit,))):
        tiny.extract(pairs, folder / "caches" / name, backbones=backbones)
    return folder / "caches"


@pytest.fixture
def here(caches, tmp_path, monkeypatch):
    shutil.copytree(caches, tmp_path / "caches")
    (tmp_path / "bank.txt").write_text("\n".join(BANK))
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def features(cache, family):
    column = next(each for each in cache.manifest.of_kind("features") if each.spec.startswith(family))
    return column, cache.values(column, np.flatnonzero(np.isfinite(cache.values(column)[:, 0])))


def test_class_names_against_the_formula(cli, here, tiny):
    said = cli(
        "predict", "caches/named", "--zero-shot", "--bank", "bank.txt", "--top-k", "0", "--out", "x.npy"
    )
    assert said.code == 0
    assert "zero-shot: no pair was used, only the names of 3 classes" in said.err
    from safetensors.numpy import load_file

    cache = Cache(here / "caches" / "named")
    column = next(each for each in cache.manifest.of_kind("features") if each.spec.endswith("/named"))
    values = cache.values(column)
    values = values[np.isfinite(values[:, 0])]
    weights = load_file(f"{column.spec.removeprefix('timm:local-dir:')}/model.safetensors")
    encoder = load_encoder(tiny.encoder)
    names, prompts = encoder.encode(CLASSES), encoder.encode(BANK)
    toward = (names - names.mean(0))[(prompts @ names.T).argmax(1)].ravel()
    slope = toward @ (prompts - prompts.mean(0)).ravel() / (toward @ toward)
    logits = values @ weights["fc.weight"].T + weights["fc.bias"]
    expected = unit(prompts.mean(0) + max(0, slope) * (softmax(logits) @ names - names.mean(0)))
    np.testing.assert_allclose(np.load("x.npy"), expected, atol=2e-3)


def test_a_clip_model_is_compared_with_the_bank(cli, here, tiny):
    said = cli(
        "predict", "caches/clip", "--zero-shot", "--bank", "bank.txt", "--top-k", "0", "--out", "x.npy"
    )
    assert said.code == 0
    assert "only the comparison of images with prompts (open_clip:" in said.err
    column, values = features(Cache(here / "caches" / "clip"), "open_clip:")
    tower = load_encoder(column.spec)
    cosines = unit(values) @ tower.encode(BANK).T
    expected = unit(softmax(tower.model.scale * cosines) @ load_encoder(tiny.encoder).encode(BANK))
    np.testing.assert_allclose(np.load("x.npy"), expected, atol=2e-3)


def test_images_are_predicted_as_the_cached_rows(cli, here, pairs):
    bank = ("--zero-shot", "--bank", "bank.txt")
    image = pairs / "img004.png"
    said = cli("predict", image, *bank, "--cache", "caches/named", "--out", "x.npy")
    assert said.code == 0
    assert "fitted on them" not in said.err
    whole = ipc.predict(None, ipc.Cache("caches/named"), zero_shot=True, bank="bank.txt")
    np.testing.assert_allclose(np.load("x.npy")[0], whole.vectors[whole.ids.index("img004")], atol=1e-3)
    shown = cli("predict", image, *bank, "--cache", "caches/named", "--json")
    assert shown.json["run"] is None
    assert shown.json["head"] == "zero-shot"
    (found,) = shown.json["predictions"]
    assert {each["prompt"] for each in found["prompts"]} < {*BANK}
    assert "expected" not in found
    captions = cli("predict", image, *bank, "--cache", "caches/named", "--out", "captions/")
    assert captions.code == 0
    assert (here / "captions" / "img004.txt").read_text().strip() == found["prompts"][0]["prompt"]


def test_without_paths_rows_without_prompt_are_predicted(cli, here):
    said = cli("predict", "--zero-shot", "--bank", "bank.txt", "--cache", "caches/named", "--json")
    assert [each["imgId"] for each in said.json["predictions"]] == ["img019"]
    fallback = cli("predict", "--bank", "bank.txt", "--cache", "caches/named", "--json")
    assert fallback.json["predictions"] == said.json["predictions"]
    assert "no run in caches/named/runs; make one" in fallback.err
    assert "; predicted without a run" in fallback.err
    cli("predict", "--zero-shot").refused(2, "no cache in cache/default")
    shutil.copytree("caches/named", "cache/default")
    fallback = cli("predict", "--bank", "bank.txt", "--json")
    assert fallback.json["predictions"] == said.json["predictions"]
    with pytest.raises(ipc.UsageError, match="no run in"):
        ipc.predict()


def test_without_a_run_and_a_cache_the_advice_is_to_make_both(cli, here, pairs):
    both = ("there is no cache in cache/default, and so no run", "`img2prompt-cache extract`", "fit`")
    cli("predict").refused(2, *both)
    cli("top").refused(2, "no cache in cache/default")
    image = pairs / "img004.png"
    for named in ((), (image,), ("caches/named",)):
        known = ("--bank", "bank.txt")
        said = cli("predict", *named, "--compose", *known)
        said.refused(2, *(("--compose takes a run: without pairs",) if named else ()), *both)
        said = cli("predict", *named, "--min-expected", ".3", *known)
        said.refused(2, *(("not known without pairs",) if named else ()), *both)
    said = cli("predict", "--compose", "--cache", "caches/named")
    said.refused(2, "--compose takes a run", "; no run in caches/named/runs; make one with")


def test_where_there_is_no_run_it_is_taken_with_a_word(cli, here, pairs):
    image = pairs / "img004.png"
    said = cli("predict", image, "--cache", "caches/named", "--bank", "bank.txt", "--top-k", "1")
    assert said.code == 0
    assert (
        "no run in caches/named/runs; make one with `img2prompt-cache fit --cache caches/named`" in said.err
    )
    assert "zero-shot: no pair was used" in said.err
    assert said.out.splitlines()[0] == "img004"
    with pytest.raises(ipc.UsageError, match="no run in"):
        ipc.predict(None, [image], cache="caches/named")
    cli("predict", image, "--cache", "caches/neither").refused(
        2, "no run in caches/neither/runs", "nor is there a way to predict without one", "/vit"
    )


def test_what_needs_a_run_is_refused(cli, here, pairs):
    image, named = pairs / "img004.png", ("--cache", "caches/named", "--bank", "bank.txt")
    cli("predict", image, "--zero-shot", "--run", "x", *named).refused(2, "--zero-shot takes no --run")
    cli("predict", image, "--zero-shot", "--compose", *named).refused(2, "--compose takes a run")
    cli("predict", image, "--zero-shot", "--min-expected", ".3", *named).refused(2, "not known without pairs")
    cli("predict", image, "--zero-shot", "--cache", "caches/neither").refused(
        2, "--zero-shot takes a backbone with a text tower"
    )


def test_without_a_cache_the_preset_encodes_images(cli, here, pairs, tiny, caches, monkeypatch):
    named = f"timm:local-dir:{caches.parent / 'named'}"
    monkeypatch.setattr(zero_shot, "choose_columns", lambda _: ((tiny.vit, named), tiny.encoder, None))
    image = pairs / "img004.png"
    said = cli("predict", image, "--zero-shot", "--bank", "bank.txt", "--out", "x.npy")
    assert said.code == 0
    assert f"({named})" in said.err
    whole = ipc.predict(None, ipc.Cache("caches/named"), zero_shot=True, bank="bank.txt")
    np.testing.assert_allclose(np.load("x.npy")[0], whole.vectors[whole.ids.index("img004")], atol=1e-3)


def test_the_starter_bank_is_the_default_and_can_be_named(cli, here, pairs):
    image = pairs / "img004.png"
    said = cli("predict", image, "--zero-shot", "--cache", "caches/named", "--json")
    named = cli("predict", image, "--zero-shot", "--cache", "caches/named", "--bank", "starter", "--json")
    assert named.json == said.json
    assert "of the bank starter" in said.err
