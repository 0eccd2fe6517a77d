"""Columns are known by what they are: by fingerprint, by an alias, and not by where the weights lay."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from img2prompt_cache.cache.manifest import Column, Manifest
from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, feature_specs
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.models.specs import split_alias
from kit import Log, Tiny, paint, parts_of, prompt_of, save_backbone, save_encoder, write_prompts
from synthetic import ONE, OTHER, Cli, make_cache


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_backbone(folder / "cnn")
    save_backbone(folder / "other", seed=7)
    save_encoder(folder / "encoder")
    return folder


@pytest.fixture
def place(models: Path, tmp_path: Path) -> Path:
    """A folder of the models that may be moved."""
    return shutil.copytree(models, tmp_path / "models")


def tiny_at(folder: Path) -> Tiny:
    cnn, other = (f"timm:local-dir:{folder / name}" for name in ("cnn", "other"))
    return Tiny(cnn, other, f"st:local-dir:{folder / 'encoder'}")


def columns(cache: Path) -> dict[str, str]:
    return {column.spec: column.current for column in load_manifest(cache).columns[1:]}


def test_the_same_weights_by_another_path_are_not_encoded_again(
    place: Path, pairs: Path, tmp_path: Path
) -> None:
    cache, here = tmp_path / "cache", tiny_at(place)
    here.extract(pairs, cache, taps=choose_taps(trunk=1, views=2))
    before = parts_of(cache)
    place.rename(tmp_path / "moved")
    moved, log = tiny_at(tmp_path / "moved"), Log()
    moved.extract(pairs, cache, log, backbones=(moved.cnn,), encoder=moved.encoder)
    assert parts_of(cache) == before
    assert log.rows == 0
    assert [line for line in log.notes if "which is cached" in line] == [
        f"{moved.encoder} is the encoder of {here.encoder}, which is cached",
        f"{moved.cnn} is the backbone of {here.cnn}, which is cached",
    ]
    suffixes = ("", "#k1", "#v2", "#k1-v2")
    assert columns(cache) == {
        **{f"{here.cnn}{suffix}": f"{moved.cnn}{suffix}" for suffix in suffixes},
        here.encoder: moved.encoder,
    }


def test_rows_that_come_later_are_encoded_by_the_weights_where_they_lie_now(
    place: Path, tmp_path: Path
) -> None:
    def source(count: int) -> Path:
        folder = tmp_path / f"images{count}" / "images"
        folder.mkdir(parents=True)
        for number in range(count):
            paint(folder / f"img{number:03d}.png", number)
        write_prompts(folder, {f"img{n:03d}": prompt_of(n) for n in range(count)})
        return folder

    whole = tmp_path / "whole"
    tiny_at(place).extract(source(9), whole)
    cache = tmp_path / "cache"
    few = source(6)
    tiny_at(place).extract(few, cache)
    place.rename(tmp_path / "moved")
    moved = tiny_at(tmp_path / "moved")
    moved.extract(few, cache, backbones=(moved.cnn,), encoder=moved.encoder)
    shutil.rmtree(few)
    (tmp_path / "images9" / "images").rename(few)
    moved.extract(few, cache, backbones=(), encoder=None)
    for kind in ("features", "targets"):
        (one,), (other,) = (Cache(each).manifest.of_kind(kind) for each in (cache, whole))
        np.testing.assert_allclose(
            Cache(cache).values(one), Cache(whole).values(other), atol=1e-3, err_msg=kind
        )


def test_other_weights_are_another_column(place: Path, pairs: Path, tmp_path: Path) -> None:
    cache, here = tmp_path / "cache", tiny_at(place)
    here.extract(pairs, cache)
    here.extract(pairs, cache, backbones=(here.vit,))
    assert columns(cache) == {here.cnn: "", here.encoder: "", here.vit: ""}


def test_weights_that_come_back_are_found_again(place: Path, pairs: Path, tmp_path: Path) -> None:
    cache, here = tmp_path / "cache", tiny_at(place)
    here.extract(pairs, cache)
    moved = tiny_at(shutil.copytree(place, tmp_path / "moved"))
    moved.extract(pairs, cache)
    assert columns(cache) == {here.cnn: moved.cnn, here.encoder: moved.encoder}
    here.extract(pairs, cache)
    assert columns(cache) == {here.cnn: "", here.encoder: ""}
    moved.extract(pairs, cache)
    shutil.rmtree(place / "cnn")
    (place / "other").rename(place / "cnn")
    with pytest.raises(UsageError, match="is the name of another model in this cache"):
        here.extract(pairs, cache)


def test_the_precision_of_a_column_stays(place: Path, pairs: Path, tmp_path: Path) -> None:
    cache, here = tmp_path / "cache", tiny_at(place)
    here.extract(pairs, cache)
    moved = tiny_at(shutil.copytree(place, tmp_path / "moved"))
    with pytest.raises(Img2PromptError, match="precision was fp32, is now bf16"):
        moved.extract(pairs, cache, precision="bf16")
    moved.extract(pairs, cache, precision="auto")
    assert len(columns(cache)) == 2


def test_an_alias_names_a_column(
    cli: Cli, place: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, here = tmp_path / "cache", tiny_at(place)
    options = ("--cache", cache, "--precision", "fp32", "--part-rows", "8", "--batch-size", "4")
    named = ("--backbone", f"cnn-a={here.cnn}", "--encoder", f"words={here.encoder}")
    assert cli("extract", pairs, *options, *named, "--levels", "multi").code == 0
    assert columns(cache) == {
        "cnn-a": here.cnn,
        "cnn-a#multi": f"{here.cnn}#multi",
        "words": here.encoder,
    }
    assert (cache / "features" / "cnn-a").is_dir()
    before = parts_of(cache)
    for again in (named, ("--backbone", "cnn-a", "--encoder", "words"), ("--backbone", here.cnn), ()):
        said = cli("extract", pairs, *options, *again)
        assert (said.code, "0 new" in said.out) == (0, True), said.err
        assert parts_of(cache) == before
    for name in ("cnn-a", here.cnn):
        fitted = cli("fit", "--cache", cache, "--head", "ridge", "--split", "random", "--features", name)
        assert fitted.code == 0, fitted.err
    assert sorted(path.name for path in (cache / "runs").iterdir()) == ["ridge-cnn-a-01", "ridge-cnn-a-02"]
    said = cli("predict", pairs / "img004.png", "--run", cache / "runs" / "ridge-cnn-a-01", "--json")
    assert said.code == 0, said.err
    cli("extract", pairs, *options, "--backbone", f"cnn-a={here.vit}").refused(
        2, "cnn-a is the name of another model in this cache"
    )
    cli("extract", pairs, *options, "--backbone", f"c/nn={here.vit}").refused(2, "'c/nn' in", "is no name")
    cli("extract", pairs, *options, "--backbone", "cnn-b").refused(2, "'cnn-b' is not a spec")
    said = cli("extract", pairs, *options, "--backbone", f"cnn-b={here.cnn}")
    assert f"cnn-b={here.cnn} is the backbone of cnn-a, which is cached" in said.err
    assert parts_of(cache) == before
    assert cli("extract", pairs, *options, "--backbone", f"b={here.vit}", "--dry-run").code == 0
    assert cli("verify", "--cache", cache).code == 0


def test_a_run_predicts_from_a_cache_that_calls_its_columns_otherwise(
    place: Path, pairs: Path, tmp_path: Path
) -> None:
    here = tiny_at(place)
    here.extract(pairs, tmp_path / "one")
    run = fit_head(Cache(tmp_path / "one"), FitConfig("ridge", {"alpha": 0.1}, split="random"))
    here.extract(pairs, tmp_path / "two", backbones=(f"a={here.cnn}",), encoder=f"b={here.encoder}")
    seen = [run.predict(Cache(tmp_path / name), top_k=1) for name in ("one", "two")]
    np.testing.assert_array_equal(seen[0].vectors, seen[1].vectors)
    assert run.predict(pairs / "img004.png", cache=tmp_path / "two", top_k=1).prompts


def twice(folder: Path) -> Cache:
    """A cache with a column that an earlier version made twice, of weights in two places."""
    made = load_manifest(make_cache(folder))
    (one, other) = made.of_kind("features")
    again = replace(other, fingerprint=one.fingerprint)
    save_manifest(folder, replace(made, columns=(made.columns[0], one, again, *made.columns[3:])))
    return Cache(folder)


def test_a_column_that_is_there_twice_is_joined_once(tmp_path: Path) -> None:
    cache = twice(tmp_path / "cache")
    assert feature_specs(cache) == (ONE,)
    assert [column.spec for column in choose_features(cache, ())] == [ONE]
    assert [column.spec for column in choose_features(cache, (OTHER,))] == [OTHER]
    with pytest.raises(UsageError, match="names a backbone twice"):
        choose_features(cache, (ONE, OTHER))


def test_a_manifest_says_by_which_spec_a_model_is_loaded_only_where_it_is_another(tmp_path: Path) -> None:
    made = load_manifest(make_cache(tmp_path / "cache"))
    assert '"current"' not in (tmp_path / "cache" / "cache.json").read_text()
    named = replace(made.columns[1], current="timm:local-dir:/x")
    save_manifest(tmp_path / "cache", replace(made, columns=(made.columns[0], named, *made.columns[2:])))
    read = load_manifest(tmp_path / "cache")
    assert read.columns[1] == named
    assert read.column("features", "timm:local-dir:/x") == named == read.column("features", ONE)
    path = tmp_path / "cache" / "cache.json"
    path.write_text(path.read_text().replace('"timm:local-dir:/x"', "7"))
    with pytest.raises(Img2PromptError, match="7 is not text"):
        load_manifest(tmp_path / "cache")


def test_a_column_is_found_by_its_spec_before_that_of_another() -> None:
    rows = Column("rows", "", "rows", (), "text", {})
    a = Column("features", "timm:a", "features/timm-a", (2,), "float16", {}, current="timm:b")
    b = Column("features", "timm:b", "features/timm-b", (2,), "float16", {})
    made = Manifest(8, 4, (rows, a, b))
    assert made.column("features", "timm:b") == b
    assert made.with_column(replace(b, shape=(3,))).columns == (rows, a, replace(b, shape=(3,)))


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("timm:resnet50", ("timm:resnet50", "timm:resnet50")),
        ("timm:local-dir:/a=b", ("timm:local-dir:/a=b", "timm:local-dir:/a=b")),
        ("r50=timm:local-dir:/a=b", ("r50", "timm:local-dir:/a=b")),
        ("clip-l", ("clip-l", "clip-l")),
    ],
)
def test_aliases_are_told_from_paths(text: str, split: tuple[str, str]) -> None:
    assert split_alias(text) == split


def test_runs_keep_by_which_spec_a_model_was_loaded(place: Path, pairs: Path, tmp_path: Path) -> None:
    here = tiny_at(place)
    here.extract(pairs, tmp_path / "cache", backbones=(f"a={here.cnn}",))
    run = fit_head(Cache(tmp_path / "cache"), FitConfig("ridge", {"alpha": 0.1}, split="random"))
    said = json.loads((run.folder / "run.json").read_text())
    assert [(use["spec"], use["current"]) for use in said["features"]] == [("a", here.cnn)]


def test_a_pass_finds_moved_weights_in_the_folders_of_the_environment(
    place: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, here = tmp_path / "cache", tiny_at(place)
    here.extract(pairs, cache)
    before = parts_of(cache)
    place.rename(tmp_path / "moved")
    shutil.rmtree(cache / "features" / next((cache / "features").iterdir()).name)
    with pytest.raises(UsageError, match="IMG2PROMPT_WEIGHTS"):
        here.extract(pairs, cache, backbones=(), encoder=None)
    monkeypatch.setenv("IMG2PROMPT_WEIGHTS", str(tmp_path / "moved"))
    here.extract(pairs, cache, backbones=(), encoder=None)
    assert parts_of(cache) == before
