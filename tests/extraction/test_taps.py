"""Trunks, levels and views through the whole line: cached, resumed, read, fitted on, predicted from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.reader import OK, Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.images.augment import View, take_view
from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.tail import tail_of
from img2prompt_cache.models.backbones.taps import Tap, choose_taps
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.prediction.stream import load_backbones, predict_cached, predict_images
from img2prompt_cache.runs.folder import load_head
from img2prompt_cache.runs.run import load_run
from img2prompt_cache.sources import open_source
from kit import Log, Stopping, Tiny, parts_of, save_backbone, save_encoder
from synthetic import Cli

ALL = (
    Tap("levels"),  # as version 0.1 made them
    *choose_taps(trunk=2, levels="multi", second_view="squash", views=2),
    *choose_taps(trunk=2, trunk_dtype="int8", views=1, flip=True),
    *choose_taps(trunk=1),
)
TWINS, BAD = ((3, 17), (4, 5)), 3


@pytest.fixture(scope="module")
def tapped(tiny: Tiny, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tapped") / "cache"
    tiny.extract(pairs, folder, backbones=(tiny.cnn, tiny.vit), taps=ALL)
    return folder


def good_rows(cache: Cache) -> np.ndarray:
    return np.flatnonzero([status == OK for status in cache.text("status")["status"]])


def test_columns_are_named_and_typed_for_what_they_keep(tapped: Path, tiny: Tiny) -> None:
    columns = load_manifest(tapped).columns
    found = {(c.kind, c.spec.removeprefix(tiny.vit)): (c.shape, c.dtype) for c in columns}
    expected: dict[tuple[str, str], tuple[tuple[int, ...], str]] = {
        ("features", ""): ((64,), "float16"),
        ("features", "#levels"): ((512,), "float16"),
        ("features", "#multi"): ((512,), "float16"),
        ("features", "#squash"): ((64,), "float16"),
        ("features", "#multi-squash"): ((512,), "float16"),
        ("trunk", "#k2"): ((5, 64), "float16"),
        ("trunk", "#k1"): ((5, 64), "float16"),
        ("trunk", "#k2-int8"): ((5, 64), "int8"),
        ("views", "#v2"): ((2, 64), "float16"),
        ("views", "#multi-v2"): ((2, 512), "float16"),
        ("views", "#k2-v2"): ((2, 5, 64), "float16"),
        ("views", "#v1f"): ((1, 64), "float16"),
        ("views", "#k2-int8-v1f"): ((1, 5, 64), "int8"),
    }
    assert expected.items() <= found.items()
    assert len(columns) == 1 + 2 * len(expected) + 1
    prints = [json.dumps(c.fingerprint, sort_keys=True) for c in columns if c.spec.startswith(tiny.vit)]
    assert len(set(prints)) == len(prints)
    for column in columns:
        levels = column.kind == "features" and "#multi" in column.spec
        assert (len(column.blocks) >= 4) == levels, column.spec
        assert not levels or sum(block.width for block in column.blocks) == column.shape[0]
    assert Cache(tapped).verify() == []


@pytest.mark.parametrize("which", ["cnn", "vit"])
def test_the_tail_makes_the_cached_features_of_the_cached_trunk(which: str, tapped: Path, tiny: Tiny) -> None:
    cache, spec = Cache(tapped), getattr(tiny, which)
    rows = good_rows(cache)
    features = cache.values(cache.column("features", spec), rows)
    model = load_backbone(spec).model
    for k in (1, 2):
        values = torch.from_numpy(cache.mapped(cache.column("trunk", f"{spec}#k{k}"))[rows])
        with torch.inference_mode():
            made = tail_of(model, k)(values).numpy()
        np.testing.assert_allclose(made, features, rtol=0, atol=1e-3 * np.abs(features).max())
    coded = torch.from_numpy(cache.values(cache.column("trunk", f"{spec}#k2-int8"), rows))
    with torch.inference_mode():
        assert cosine(tail_of(model, 2)(coded).numpy(), features).min() >= 0.999


def test_bad_rows_hold_nothing_and_twins_the_same(tapped: Path) -> None:
    cache = Cache(tapped)
    good = good_rows(cache)
    bad = np.setdiff1d(np.arange(cache.rows), good)
    assert len(bad) == BAD
    for column in cache.manifest.columns[1:]:
        if column.kind != "targets":
            values = cache.values(column)
            assert np.isfinite(values[good]).all(), column.spec
            assert np.isnan(values[bad]).all(), column.spec
            for one, other in TWINS:  # in batches of their own, where sums may be rounded otherwise
                np.testing.assert_allclose(values[one], values[other], rtol=2e-3, atol=1e-5)


def test_what_is_kept_besides_changes_nothing(tapped: Path, made: Path, tiny: Tiny) -> None:
    ours, plain = parts_of(tapped), parts_of(made)
    assert plain.items() <= ours.items()


def test_columns_added_one_after_the_other_have_the_same_bytes(
    tapped: Path, pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    tiny.extract(pairs, folder, backbones=(tiny.vit, tiny.cnn))
    for tap in ALL:
        # Without a backbone named, it is for every one there is.
        tiny.extract(pairs, folder, backbones=(), taps=(tap,))
    assert parts_of(folder) == parts_of(tapped)
    log = Log()
    tiny.extract(pairs, folder, log, backbones=(), taps=ALL)
    assert log.plans[0].work == 0


@pytest.mark.parametrize("lanes", [1, 3])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    lanes: int, tapped: Path, pairs: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("img2prompt_cache.extraction.encode.cores", lambda: lanes)

    folder, stops = tmp_path / "cache", 0
    for left in (2, 1, 4, 3, 2, 100):
        log = Stopping(left=left)
        try:
            tiny.extract(pairs, folder, log, backbones=(tiny.cnn, tiny.vit), taps=ALL)
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 3
    assert parts_of(folder) == parts_of(tapped)
    assert load_manifest(folder).columns == load_manifest(tapped).columns


@pytest.mark.parametrize("which", ["cnn", "vit"])
def test_the_second_view_is_the_whole_image_squashed_and_mirrored(
    which: str, tapped: Path, pairs: Path, tiny: Tiny
) -> None:
    cache, spec = Cache(tapped), getattr(tiny, which)
    backbone = load_backbone(spec)
    uris = cache.text("uri")["uri"]
    top, levels = (
        cache.values(cache.column("features", f"{spec}{end}")) for end in ("#squash", "#multi-squash")
    )
    for row in (0, 9, 18):
        picture = Image.open(pairs / uris[row]).convert("RGB")
        assert picture.width != picture.height
        squashed = picture.resize((32, 32), Image.Resampling[backbone.geometry.interpolation.upper()])
        mirrored = np.asarray(squashed.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        expected = backbone.read(torch.from_numpy(mirrored[None].copy()), {"", "multi"})
        np.testing.assert_allclose(top[row], expected[""][0], rtol=5e-3, atol=1e-3)
        np.testing.assert_allclose(levels[row], expected["multi"][0], rtol=5e-3, atol=1e-3)
    assert np.abs(top - cache.values(cache.column("features", spec)))[good_rows(cache)].max() > 1e-2


def test_an_image_is_decoded_once_for_both_views(
    pairs: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from img2prompt_cache.extraction import encode

    decoded: list[bytes] = []

    def counting(data: bytes) -> Any:
        decoded.append(data)
        return decode(data)

    monkeypatch.setattr(encode, "decode", counting)
    tiny.extract(pairs, tmp_path / "plain", backbones=(tiny.vit,))
    once = len(decoded)
    tiny.extract(
        pairs,
        tmp_path / "both",
        backbones=(tiny.vit,),
        taps=choose_taps(second_view="squash", levels="multi"),
    )
    assert len(decoded) == 2 * once


def test_names_are_cached_with_their_encoder_and_predicted_from(
    pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    classes = ("two red boats", "a calm sea", "pixel art")
    named = f"timm:local-dir:{save_backbone(tmp_path / 'named', classes=classes)}"
    log = Log()
    taps = choose_taps(names=True, second_view="squash", levels="multi")
    tiny.extract(pairs, tmp_path / "cache", log, backbones=(named, tiny.vit), taps=taps)
    assert [line for line in log.notes if line.startswith(f"{tiny.vit} has no classifier")]
    cache = Cache(tmp_path / "cache")
    specs = [column.spec for column in cache.manifest.of_kind("features")]
    assert specs == [
        *(f"{named}{end}" for end in ("", "#multi", "#names", "#squash", "#multi-squash", "#names-squash")),
        *(f"{tiny.vit}{end}" for end in ("", "#multi", "#squash", "#multi-squash")),
    ]
    column = cache.column("features", f"{named}#names")
    assert (column.shape, column.fingerprint["encoder"]) == ((16,), tiny.encoder)
    log = Log()
    tiny.extract(pairs, tmp_path / "cache", log, backbones=(), taps=taps)
    assert log.plans[0].work == 0
    # A run on them predicts for new images what it does for cached rows, and reads the encoder again.
    names = (f"{named}#names", f"{named}#names-squash", named)
    run = fit_head(cache, FitConfig("kernel", features=names, split="random"), tmp_path / "run")
    head = load_head(run.folder, run)
    cached = predict_cached(run.features, head, cache, with_prompt=None)
    source = open_source(pairs)
    found = list(predict_images(head, load_backbones(run.features), source, source.list().table))
    vectors = np.concatenate([batch.vectors for batch in found if batch.ids])
    assert cosine(vectors, cached.vectors).min() > 1 - 1e-5
    # Where the encoder is another one now, nothing is predicted.
    other = save_encoder(tmp_path / "encoder", seed=1)
    changed = replace(
        run.features[0], fingerprint={**run.features[0].fingerprint, "encoder": f"st:local-dir:{other}"}
    )
    with pytest.raises(Img2PromptError, match="#names was made differently: encoder_digest"):
        load_backbones([changed])


def test_names_of_no_backbone_are_refused(pairs: Path, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no classifier whose classes have known names"):
        tiny.extract(pairs, tmp_path / "cache", backbones=(tiny.vit,), taps=choose_taps(names=True))


@pytest.mark.parametrize("which", ["cnn", "vit"])
def test_views_are_features_of_the_views(which: str, tapped: Path, pairs: Path, tiny: Tiny) -> None:
    cache, spec = Cache(tapped), getattr(tiny, which)
    backbone = load_backbone(spec)
    text = cache.text("uri", "sha256", "status")
    for suffix, flip, count in (("#v2", False, 2), ("#v1f", True, 1)):
        values = cache.values(cache.column("views", f"{spec}{suffix}"))  # type: ignore[arg-type]
        for row in (0, 9, 18):
            picture = decode((pairs / text["uri"][row]).read_bytes())
            for number in range(count):
                view = take_view(picture, text["sha256"][row], View(number, flip))
                pixels = torch.from_numpy(backbone.geometry.apply(view)[None])
                (expected,) = backbone.encode(pixels)
                np.testing.assert_allclose(values[row, number], expected, rtol=5e-3, atol=1e-3)
    views = cache.values(cache.column("views", f"{spec}#k2-v2"), good_rows(cache))
    with torch.inference_mode():
        made = tail_of(backbone.model, 2)(torch.from_numpy(views[:, 1])).numpy()
    top = cache.values(cache.column("views", f"{spec}#v2"), good_rows(cache))
    np.testing.assert_allclose(made, top[:, 1], rtol=0, atol=2e-3 * np.abs(top).max())


def test_any_hdf5_reader_sees_them_with_their_scale(tapped: Path) -> None:
    cache = Cache(tapped)
    with h5py.File(tapped / "cache.h5") as file:
        for column in cache.manifest.columns[1:]:
            found = file[column.folder]
            assert (found.shape, found.dtype) == ((cache.rows, *column.shape), column.dtype)
            values = found[()].astype(np.float32)
            if column.dtype == "int8":
                scale = file[f"{column.folder}.scale"][()].astype(np.float32)
                values *= scale[..., None, :] if values.ndim - scale.ndim == 1 else scale[..., None, None, :]
            np.testing.assert_array_equal(values, cache.values(column))


@dataclass
class Counting:
    """Counts how often a model runs."""

    runs: int = 0

    def __call__(self, *_: Any) -> None:
        self.runs += 1


def test_all_that_is_kept_of_an_image_comes_of_one_forward_pass(
    pairs: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taps = choose_taps(trunk=2, levels="multi")
    from img2prompt_cache.models import new_backbones

    runs = Counting()

    def load(*arguments: Any, **options: Any) -> Any:
        backbone = load_backbone(*arguments, **options)
        next(backbone.model.children()).register_forward_hook(runs)
        return backbone

    monkeypatch.setattr(new_backbones, "load_backbone", load)
    tiny.extract(pairs, tmp_path / "plain", backbones=(tiny.vit,))
    plain, runs.runs = runs.runs, 0
    tiny.extract(pairs, tmp_path / "tapped", backbones=(tiny.vit,), taps=taps)
    # A blank image to see the shapes (of levels also the blocks'), and to check the cut against the model.
    assert runs.runs == plain + 3 + 2


def test_a_run_on_levels_predicts_on_new_images_as_on_cached_rows(
    tapped: Path, pairs: Path, tiny: Tiny
) -> None:
    names = (f"{tiny.vit}#multi-squash", tiny.cnn, tiny.vit, f"{tiny.cnn}#multi", f"{tiny.vit}#levels")
    run = fit_head(
        Cache(tapped),
        FitConfig("ridge", {"alpha": 0.1}, features=names, split="random"),
        tapped.parent / "run",
    )
    widths = (512, 96, 64, 736, 512)
    assert [(use.spec, use.width) for use in run.features] == list(zip(names, widths, strict=True))
    made = load_run(run.folder)
    head, source = load_head(run.folder, made), open_source(pairs)
    cached = predict_cached(made.features, head, Cache(tapped), with_prompt=None)
    backbones = load_backbones(made.features)
    assert backbones[names[0]] is backbones[names[2]]
    found = list(predict_images(head, backbones, source, source.list().table))
    assert [name for batch in found for name in batch.ids] == cached.ids
    vectors = np.concatenate([batch.vectors for batch in found if batch.ids])
    assert cosine(vectors, cached.vectors).min() > 1 - 1e-5


def test_a_column_made_by_other_rules_is_refused(
    tapped: Path, pairs: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    tiny.extract(pairs, folder, taps=choose_taps(views=1))
    next(folder.glob("views/*/00001.h5")).unlink()
    monkeypatch.setattr("img2prompt_cache.models.backbones.taps.VIEW_RULES", "2: others")
    with pytest.raises(Img2PromptError, match=r"#v1 was made differently: views was 1: 1: .* is now 1: 2:"):
        tiny.extract(pairs, folder)


def test_a_backbone_that_cannot_be_cut_is_refused_before_any_work(
    pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    spec = f"timm:local-dir:{save_backbone(tmp_path / 'convnext', 'test_convnext')}"
    with pytest.raises(
        UsageError, match=r"a ConvNeXt cannot be cut .* ViT .* ResNet and EfficientNet of timm"
    ):
        tiny.extract(pairs, tmp_path / "cache", backbones=(tiny.cnn, spec), taps=choose_taps(trunk=1))
    assert not (tmp_path / "cache" / "cache.json").exists()
    with pytest.raises(UsageError, match=r"#levels is a column, not a backbone; name timm:local-dir"):
        tiny.extract(pairs, tmp_path / "cache", backbones=(f"{tiny.cnn}#levels",))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def test_the_command_line(cli: Cli, pairs: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    base = [*tiny.arguments(pairs, folder), "--precision", "fp32"]
    kept_besides = ("--levels", "multi", "--second-view", "squash", "--views", 2, "--flip")
    said = cli(*base, "--trunk", 2, "--trunk-dtype", "int8", *kept_besides)
    assert said.code == 0, said.err
    kept = {c["name"]: c["shape"] for c in cli("info", "--cache", folder, "--json").json["columns"]}
    assert kept[f"{tiny.vit}#k2-int8"] == [23, 5, 64]
    assert kept[f"{tiny.vit}#k2-int8-v2f"] == [23, 2, 5, 64]
    assert kept[f"{tiny.cnn}#multi"] == kept[f"{tiny.cnn}#multi-squash"] == [23, 736]
    joined = f"{tiny.vit},{tiny.vit}#multi"
    assert (
        cli("fit", "--head", "mean", "--cache", folder, "--features", joined, "--split", "random").code == 0
    )
    image = next(pairs.glob("img*.png"))
    assert cli("predict", image, "--cache", folder, "--top-k", 1).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trunk", 7], ["/vit:", "before the last 7 blocks", "it has 6"]),
        (["--trunk", 2, "--trunk-dtype", "int4"], ["unknown --trunk-dtype 'int4'", "int8"]),
        (["--levels", "all"], ["unknown --levels 'all'", "multi"]),
        (["--second-view", "squashed"], ["unknown --second-view 'squashed'", "squash"]),
        (["--names"], ["/vit has no classifier whose classes have known names"]),
        (["--flip"], ["--flip", "--views"]),
        (["--views", 65], ["--views", "64 at most, not 65"]),
    ],
)
def test_a_wrong_option_is_told_in_one_line(
    options: list[object], words: list[str], cli: Cli, pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    backbone = ["--backbone", tiny.vit, "--encoder", tiny.encoder]
    cli("extract", pairs, "--cache", tmp_path / "cache", *backbone, *options).refused(2, *words)


@pytest.mark.parametrize("option", ["--trunk", "--views"])
def test_none_is_not_a_number_of_blocks_or_views(option: str, cli: Cli, pairs: Path) -> None:
    said = cli("extract", pairs, option, 0)
    assert said.code == 2
    assert option in said.err
