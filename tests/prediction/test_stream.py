from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.blend import fit_blend
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.numerics.blending import mix
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.prediction.stream import load_backbones, predict_cached, predict_images
from img2prompt_cache.runs.folder import load_head
from img2prompt_cache.runs.run import load_run
from img2prompt_cache.sources import open_paths, open_source
from kit import make_source, paint, save_backbone


def fitted(tiny, pairs, folder, precision, head="ridge", **settings):
    tiny.extract(pairs, folder, backbones=(tiny.cnn, tiny.vit), precision=precision)
    config = FitConfig(head, settings, features=(tiny.vit, tiny.cnn), split="random")
    return fit_head(Cache(folder), config, folder / "runs" / "it").folder


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def run(request, tiny, pairs, tmp_path_factory):
    """A run on both backbones, joined in another order than they are cached in."""
    folder = tmp_path_factory.mktemp(request.param) / "cache"
    return fitted(tiny, pairs, folder, request.param, alpha=0.1)


def predict_files(run, source, **options):
    made = load_run(run)
    table = source.list().table
    return list(predict_images(load_head(run, made), load_backbones(made.features, **options), source, table))


def together(batches):
    batches = list(batches)
    ids = [name for batch in batches for name in batch.ids]
    vectors = np.concatenate([batch.vectors for batch in batches if batch.ids])
    bad = {name: reason for batch in batches for name, reason in batch.failed.items()}
    return dict(zip(ids, vectors, strict=True)), bad


def test_images_and_their_cached_rows_are_predicted_alike(run, pairs):
    made = load_run(run)
    cached = predict_cached(made.features, load_head(run, made), Cache(run.parents[1]), with_prompt=None)
    found, bad = together(predict_files(run, open_source(pairs)))
    assert list(found) == cached.ids
    assert bad.keys() == cached.failed.keys() == {"empty", "words", "cut"}
    assert bad == cached.failed
    exact = made.features[0].fingerprint["precision"] == "fp32"
    difference = 1 - cosine(np.stack(list(found.values())), cached.vectors)
    assert difference.max() < (1e-5 if exact else 1e-3)
    np.testing.assert_allclose(np.linalg.norm(cached.vectors, axis=1), 1, atol=1e-5)
    assert len(np.unique(cached.vectors.round(5), axis=0)) > 15


def test_only_rows_without_prompt_are_left_where_they_are_asked_for(run):
    made = load_run(run)
    head = load_head(run, made)
    assert predict_cached(made.features, head, Cache(run.parents[1]), with_prompt=False).ids == ["img019"]
    prompted = predict_cached(made.features, head, Cache(run.parents[1]), with_prompt=True)
    assert len(prompted.ids) == 19
    assert prompted.failed.keys() == {"empty", "words", "cut"}


def test_order_is_that_of_the_listing_and_identical_images_get_the_same(run, pairs, monkeypatch):
    from img2prompt_cache.prediction import stream

    monkeypatch.setattr(stream, "SLICE_ROWS", 7)
    monkeypatch.setattr(stream, "BATCH_SIZE", 3)
    names = [f"img{n:03d}" for n in (17, 2, 3, 5, 4, 0, 9, 1, 11, 12)]
    files = [pairs / f"{name}.png" for name in names]
    batches = predict_files(run, open_paths([*files[:4], pairs / "words.png", *files[4:]]))
    assert max(len(batch.ids) for batch in batches) <= 3
    found, bad = together(batches)
    assert list(found) == names
    assert list(bad) == ["words"]
    np.testing.assert_array_equal(found["img004"], found["img005"])
    np.testing.assert_allclose(found["img003"], found["img017"], atol=1e-2)


def test_only_the_backbones_of_the_run_are_loaded(tiny, pairs, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    tiny.extract(pairs, folder, backbones=(tiny.cnn, tiny.vit))
    run = fit_head(Cache(folder), FitConfig("mean", features=(tiny.cnn,), split="random")).folder
    built = []
    create = torch.nn.Module.eval
    monkeypatch.setattr(
        torch.nn.Module, "eval", lambda self: (built.append(type(self).__name__), create(self))[1]
    )
    load_backbones(load_run(run).features)
    assert "ResNet" in built
    assert "VisionTransformer" not in built


def test_what_was_made_differently_is_refused_and_the_field_named(tiny, run, pairs, tmp_path):
    made = load_run(run)
    head = load_head(run, made)
    copy = shutil.copytree(run.parents[1], tmp_path / "cache")
    text = (copy / "cache.json").read_text()
    precision = made.features[0].fingerprint["precision"]
    (copy / "cache.json").write_text(text.replace(f'"precision": "{precision}"', '"precision": "fp16"', 1))
    with pytest.raises(
        Img2PromptError,
        match=rf"features/timm-local-dir.*: precision was {precision}, is now fp16\. A run predicts only",
    ):
        predict_cached(made.features, head, Cache(copy), with_prompt=None)
    data = json.loads((copy / "runs" / "it" / "run.json").read_text())
    data["features"][1]["fingerprint"]["weights"] = "sha256:others"
    (copy / "runs" / "it" / "run.json").write_text(json.dumps(data))
    with pytest.raises(Img2PromptError, match=r"weights was sha256:others, is now sha256:[0-9a-f]{10}"):
        load_backbones(load_run(copy / "runs" / "it").features)


def test_a_cache_without_the_columns_of_the_run(run, made):
    loaded = load_run(run)
    with pytest.raises(UsageError, match="unknown features column"):
        predict_cached(loaded.features, load_head(run, loaded), Cache(made), with_prompt=None)


@pytest.mark.parametrize("column", ["", "#k2-int8"])
@pytest.mark.parametrize("blocks", [None, 1])
def test_a_tuned_tail_predicts_alike_for_images_and_for_their_cached_trunk(
    tiny, tuned, pairs, tmp_path, column, blocks
):
    settings = {"blocks": blocks, "alpha": 1.0, "epochs": 2, "lr": 1e-2}
    choice = FitConfig("finetune", settings, features=(f"{tiny.vit}{column}",), split="random")
    run = fit_head(Cache(tuned), choice, tmp_path / "run").folder
    made = load_run(run)
    head = load_head(run, made)
    cached = predict_cached(made.features, head, Cache(tuned), with_prompt=None)
    found, bad = together(predict_files(run, open_source(pairs)))
    assert list(found) == cached.ids
    assert bad == cached.failed
    np.testing.assert_allclose(np.stack(list(found.values())), cached.vectors, atol=1e-4)
    assert len(np.unique(cached.vectors.round(5), axis=0)) > 15
    assert predict_cached(made.features, head, Cache(tuned), with_prompt=False).ids == ["img019"]


def test_a_blend_of_tuned_tails_and_others_predicts_alike_for_images_and_for_what_is_cached(
    tiny, tuned, pairs, tmp_path
):
    """Two trunks of one backbone, and pooled features of two."""
    cache, shared = Cache(tuned), {"alpha": 1.0, "epochs": 2, "lr": 1e-2}
    told = [
        FitConfig("finetune", shared, (f"{tiny.vit}#k2",), split="random"),
        FitConfig("ridge", {"alpha": 1.0}, (tiny.cnn, tiny.vit), split="random"),
        FitConfig("finetune", {**shared, "blocks": 1}, (f"{tiny.vit}#k2-int8",), split="random"),
    ]
    members = [fit_head(cache, each, tmp_path / f"run{i}") for i, each in enumerate(told)]
    run = fit_blend(cache, members, tmp_path / "blend").folder
    made = load_run(run)
    head = load_head(run, made)
    assert [use.spec for use in made.features] == [
        f"{tiny.vit}#k2",
        tiny.cnn,
        tiny.vit,
        f"{tiny.vit}#k2-int8",
    ]
    # Of so few pairs some weights are 0, and members of weight 0 are not kept.
    widths = tuple(use.width for use in made.features)
    head.from_fitted([each.estimator for each in members], np.array([0.5, 0.2, 0.3]), widths)
    cached = predict_cached(made.features, head, cache, with_prompt=None)
    source = open_source(pairs)
    found, bad = together(predict_images(head, load_backbones(made.features), source, source.list().table))
    assert list(found) == cached.ids
    assert bad == cached.failed
    np.testing.assert_allclose(np.stack(list(found.values())), cached.vectors, atol=1e-4)
    said = []
    for own in members:
        said.append(predict_cached(own.features, own.estimator, cache, with_prompt=None).vectors)
    np.testing.assert_allclose(cached.vectors, mix(said, head.weights_), atol=1e-6)


def test_members_are_blended_in_any_order_where_an_image_has_no_views(tiny, tmp_path):
    images, cache = make_source(tmp_path / "images", 16), tmp_path / "cache"
    tiny.extract(images, cache, backbones=(tiny.vit,), taps=choose_taps(trunk=1))
    min(images.rglob("*.png")).unlink()
    tiny.extract(images, cache, backbones=(tiny.vit,), taps=choose_taps(trunk=1, views=1))
    opened = Cache(cache)
    settings = {"alpha": 1.0, "epochs": 1, "views": False}
    tail = fit_head(opened, FitConfig("finetune", settings, split="random", folds=2), tmp_path / "tail")
    ridge = fit_head(opened, FitConfig("ridge", {"alpha": 1.0}, split="random", folds=2), tmp_path / "ridge")
    one, other = (
        fit_blend(opened, each, tmp_path / f"blend{number}")
        for number, each in enumerate(([tail, ridge], [ridge, tail]))
    )
    assert one.metrics["n"] == other.metrics["n"]
    assert one.metrics["cosine"] == pytest.approx(other.metrics["cosine"], abs=1e-6)


def test_a_tuned_tail_needs_the_backbone_and_the_trunk_it_was_cut_from(tiny, pairs, made, tmp_path):
    own = save_backbone(tmp_path / "own", "test_vit", seed=3)
    spec, folder = f"timm:local-dir:{own}", tmp_path / "cache"
    tiny.extract(pairs, folder, backbones=(spec,), taps=choose_taps(trunk=1))
    run = fit_head(
        Cache(folder), FitConfig("finetune", {"alpha": 1.0, "epochs": 1}, split="random"), tmp_path / "run"
    ).folder
    fitted_run = load_run(run)
    head = load_head(run, fitted_run)
    with pytest.raises(UsageError, match="has no trunk column"):
        predict_cached(fitted_run.features, head, Cache(made), with_prompt=None)
    shutil.rmtree(own)
    save_backbone(own, "test_vit", seed=4)
    with pytest.raises(Img2PromptError, match=r"weights was sha256:.*, is now sha256:.*fit again"):
        load_head(run, fitted_run)


def test_no_row_to_predict_for(tiny, tmp_path):
    images = make_source(tmp_path / "images", 6)
    run = fitted(tiny, images, tmp_path / "cache", "fp32", "mean")
    made = load_run(run)
    with pytest.raises(UsageError, match="no usable image without a prompt; name images"):
        predict_cached(made.features, load_head(run, made), Cache(tmp_path / "cache"), with_prompt=False)


def test_features_beyond_float16_make_a_bad_image_and_no_more(run, tmp_path):
    made = load_run(run)
    backbones = load_backbones(made.features)
    files = [paint(tmp_path / f"{name}.png", seed) for seed, name in enumerate("abc")]
    shutil.copy(files[1], tmp_path / "d.png")
    source = open_source(tmp_path)
    head = load_head(run, made)
    clean, _ = together(predict_images(head, backbones, source, source.list().table))

    first = next(iter(backbones.values()))

    class Overflowing:
        spec, geometry, device = first.spec, first.geometry, first.device

        def read(self, images, names):
            values = first.encode(images)
            values[1] = 1e6
            return {"": values}

    overflowing = {**backbones, first.spec: Overflowing()}
    batches = predict_images(head, overflowing, source, source.list().table)
    found, bad = together(batches)
    assert bad == dict.fromkeys("bd", "its features are not finite, or too large for float16")
    assert list(found) == ["a", "c"]
    np.testing.assert_array_equal(found["c"], clean["c"])
