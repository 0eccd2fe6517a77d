"""Runs as ONNX files: they compute what the run predicts, describe themselves, and are written as a whole."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import img2prompt_cache as ipc
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.exporting import export as module
from img2prompt_cache.exporting.run_graph import parts_of
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.models.onnx_file import read_graph
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.runs.run import Run
from kit import Tiny
from synthetic import Cli

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def ridge(tiny: Tiny, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the pooled features of both small backbones, whose images have the same size."""
    folder = tmp_path_factory.mktemp("exported") / "cache"
    tiny.extract(pairs, folder, precision="fp32")
    return fit_head(Cache(folder), FitConfig("ridge", {"alpha": 0.1}, split="random"))


@pytest.fixture(scope="module")
def exported(ridge: Run, tmp_path_factory: pytest.TempPathFactory) -> module.Exported:
    return ipc.export(ridge, tmp_path_factory.mktemp("out") / "run.onnx", license="mit")


def test_the_file_computes_what_the_run_predicts_for_images(
    ridge: Run, exported: module.Exported, pairs: Path
):
    files = [pairs / f"img{number:03d}.png" for number in (1, 2, 6)]
    file = read_graph(exported.path, kind="run")
    described = json.loads(file.metadata["inputs"])
    assert {*described} == {*file.inputs}
    feeds = {}
    for name, how in described.items():
        assert file.inputs[name] == (how["height"], how["width"], 3)
        feeds[name] = np.stack([client(Image.open(path).convert("RGB"), how) for path in files])
    session = file.session(threads=1)
    found = dict(zip(file.outputs, session.run(None, feeds), strict=True))
    seen = ridge.predict(files, top_k=0)
    np.testing.assert_allclose(found["vectors"], seen.vectors, atol=1e-5)
    np.testing.assert_allclose(found["expected"], seen.expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found["vectors"], axis=1), 1, atol=1e-6)


def client(image: Image.Image, how: dict) -> np.ndarray:
    """What docs/export.md tells a client to do, for square sizes."""
    side, crop = how["size"][0], how["height"]
    short, long = sorted(image.size)
    scaled = {short: side, long: int(side * long / short)}
    resized = image.resize(
        (scaled[image.width], scaled[image.height]), Image.Resampling[how["interpolation"].upper()]
    )
    assert how["resize"] == "shortest"
    assert not how["mirror"]
    left, top = (round((length - crop) / 2) for length in resized.size)
    return np.asarray(resized.crop((left, top, left + crop, top + crop)))


def test_the_metadata_says_what_it_was_made_of(ridge: Run, exported: module.Exported):
    file = read_graph(exported.path, kind="run", fingerprint=module.fingerprint_of(ridge, precision="fp32"))
    fields = {key: json.loads(text) if text[:1] in "[{" else text for key, text in file.metadata.items()}
    assert fields == exported.metadata
    assert (fields["head"], fields["precision"], fields["license"]) == ("ridge", "fp32", "mit")
    assert [each["weights"] for each in fields["backbones"]] == [
        column.fingerprint["weights"] for column in ridge.features
    ]
    assert fields["encoder"]["weights"] == ridge.target.fingerprint["weights"]
    assert fields["score"]["cosine"] == ridge.metrics["cosine"]
    assert fields["outputs"] == {"vectors": ridge.target.width, "expected": 1}
    data = exported.path.read_bytes()
    for private in (ridge.cache, Path.cwd(), Path(ridge.features[0].spec.rpartition(":")[2]).parent):
        assert os.fsencode(private) not in data


def test_the_golden_set_holds_images_of_the_cache_and_what_the_file_gives(exported: module.Exported):
    assert exported.golden.name == "run.golden.npz"
    golden = np.load(exported.golden, allow_pickle=False)
    session = read_graph(exported.path, kind="run").session(threads=1)
    feeds = {value.name: golden[value.name] for value in session.get_inputs()}
    assert all(len(pixels) == 12 for pixels in feeds.values())
    vectors, expected = session.run(["vectors", "expected"], feeds)
    np.testing.assert_allclose(vectors, golden["vectors"], atol=1e-6)
    np.testing.assert_allclose(expected, golden["expected"], atol=1e-6)
    np.testing.assert_allclose(golden["torch_vectors"], golden["vectors"], atol=1e-5)
    assert str(golden["origin"]) == exported.origin == "images of the cache"
    assert exported.distance < 1e-6


def test_openvino_computes_the_same(exported: module.Exported):
    openvino = pytest.importorskip("openvino")
    core, golden = openvino.Core(), np.load(exported.golden, allow_pickle=False)
    compiled = core.compile_model(core.read_model(exported.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({each.any_name: golden[each.any_name] for each in compiled.inputs})
    assert cosine(found["vectors"], golden["vectors"]).min() > 1 - 1e-6
    np.testing.assert_allclose(found["expected"], golden["expected"], atol=1e-4)


def test_pictures_are_drawn_where_the_images_are_gone(ridge: Run, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Run, "home", None)
    monkeypatch.setattr(module, "run_graph", lambda *_, **__: onnx.ModelProto())
    monkeypatch.setattr(module, "write_graph", lambda *_, **__: 0)
    assert ipc.export(ridge, tmp_path / "run.onnx").origin == "pictures drawn with the seed 0"


@pytest.fixture
def made_before(exported: module.Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of the run is there already: making it takes seconds."""
    monkeypatch.setattr(module, "run_graph", lambda *_, **__: onnx.load_model(exported.path))


@pytest.mark.usefixtures("made_before")
def test_a_graph_that_computes_something_else_is_not_written(ridge: Run, tmp_path: Path, monkeypatch):
    def other(parts: object, pixels: dict) -> tuple[np.ndarray, None]:
        vectors = np.zeros((12, ridge.target.width), np.float32)
        vectors[:, 0] = 1
        return vectors, None

    monkeypatch.setattr(module, "predicted", other)
    with pytest.raises(Img2PromptError, match="computes something else than the run"):
        ipc.export(ridge, tmp_path / "run.onnx")
    assert not [*tmp_path.iterdir()]


def test_what_is_there_is_replaced_only_if_asked_and_only_if_it_is_an_export(ridge: Run, tmp_path: Path):
    out = tmp_path / "run.onnx"
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"was not made by `export\(\)`"):
        ipc.export(ridge, out, overwrite=True)
    assert out.read_bytes() == b"mine"
    out.unlink()
    (tmp_path / "run.golden.npz").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"golden\.npz is there and was not made by"):
        ipc.export(ridge, out, overwrite=True)
    for name, why in (("run.pt", "must be .onnx"), ("none/run.onnx", "no folder")):
        with pytest.raises(UsageError, match=why):
            ipc.export(ridge, tmp_path / name)
    with pytest.raises(UsageError, match="`license` must be a line"):
        ipc.export(ridge, tmp_path / "run.onnx", license="a\nb")


@pytest.mark.usefixtures("made_before")
def test_an_export_of_before_is_replaced(exported: module.Exported, ridge: Run):
    with pytest.raises(UsageError, match="`overwrite=True` replaces it"):
        ipc.export(ridge, exported.path)
    before = exported.path.read_bytes()
    exported.golden.write_bytes(b"")  # an empty file is free
    again = ipc.export(ridge, exported.path, license="mit", overwrite=True)
    assert again == exported
    assert exported.path.read_bytes() == before


@pytest.mark.usefixtures("made_before")
def test_the_command_says_what_it_wrote(ridge: Run, tmp_path: Path, capsys):
    cli = Cli(capsys)
    said = cli("export", ridge.folder, "--out", tmp_path / "run.onnx", "--json")
    assert said.json["out"] == str(tmp_path / "run.onnx")
    assert said.json["bytes"] == (tmp_path / "run.onnx").stat().st_size
    assert said.json["metadata"]["head"] == "ridge"
    cli("export", ridge.folder, "--out", tmp_path / "run.onnx").refused(2, "--overwrite replaces it")


def test_an_export_is_shared_without_the_images_of_the_cache(exported: module.Exported, ridge: Run):
    listed = ipc.push(ridge, "me/head", onnx=exported.path, dry_run=True)
    names = [file.name for file in listed.files]
    assert ("run.onnx" in names, "run.golden.npz" in names) == (True, False)
    everything = ipc.push(ridge, "me/head", onnx=exported.path, with_images=True, dry_run=True)
    assert [file.name for file in everything.files if file.name not in names] == ["run.golden.npz"]


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_several_columns_of_a_backbone_are_exported_whatever_they_were_made_with(
    tiny: Tiny, pairs: Path, tmp_path: Path, runtime: str
):
    """In bfloat16 and with another runtime, though the graph is in float32 and made with torch."""
    tiny.extract(pairs, tmp_path / "cache", precision="fp32", taps=choose_taps(levels="multi"))
    run = fit_head(Cache(tmp_path / "cache"), FitConfig("kernel", {"alpha": 0.1}, split="random"))
    made = {"precision": "bf16", "runtime": runtime} if runtime != "torch" else {"precision": "bf16"}
    features = [replace(column, fingerprint={**column.fingerprint, **made}) for column in run.features]
    parts = parts_of(replace(run, features=tuple(features)))
    assert all(len(used.columns) > 1 for used in parts.backbones)
    assert {used.backbone.precision for used in parts.backbones} == {"fp32"}
    assert {used.recorded for used in parts.backbones} == {"bf16"}
