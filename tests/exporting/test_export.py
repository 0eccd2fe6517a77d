"""Runs as ONNX files: they compute what the run predicts, describe themselves, and are written as a whole."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import img2prompt_cache as ipc
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.exporting import export as module
from img2prompt_cache.exporting import loss
from img2prompt_cache.exporting.golden import prepare, read_pictures, run_file
from img2prompt_cache.exporting.run_graph import RunGraphs, graphs_of, parts_of
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.models.onnx_file import read_graph
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.runs.held_out import load_validation
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
def graphs(ridge: Run) -> RunGraphs:
    return graphs_of(parts_of(ridge))


@contextmanager
def made_before(graphs: RunGraphs) -> Iterator[None]:
    """The graphs of the run are there already: making them takes seconds."""

    def there(*_: object) -> RunGraphs:
        return copy.deepcopy(graphs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "graphs_of", there)
        yield


@pytest.fixture
def quickly(graphs: RunGraphs) -> Iterator[None]:
    with made_before(graphs):
        yield


@pytest.fixture(scope="module")
def exported(ridge: Run, graphs: RunGraphs, tmp_path_factory: pytest.TempPathFactory) -> module.Exported:
    with made_before(graphs):
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


@pytest.mark.usefixtures("quickly")
def test_pictures_are_drawn_where_the_images_are_gone(ridge: Run, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Run, "home", None)
    assert ipc.export(ridge, tmp_path / "run.onnx").origin == "pictures drawn with the seed 0"


@pytest.mark.usefixtures("quickly")
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
    (tmp_path / "run.golden.npz").unlink()
    (tmp_path / "run.onnx.data").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"onnx\.data is there and was not made by"):
        ipc.export(ridge, out, overwrite=True)
    assert (tmp_path / "run.onnx.data").read_bytes() == b"mine"
    for name, why in (("run.pt", "must be .onnx"), ("none/run.onnx", "no folder")):
        with pytest.raises(UsageError, match=why):
            ipc.export(ridge, tmp_path / name)
    with pytest.raises(UsageError, match="`license` must be a line"):
        ipc.export(ridge, tmp_path / "run.onnx", license="a\nb")


@pytest.mark.usefixtures("quickly")
def test_an_export_of_before_is_replaced(exported: module.Exported, ridge: Run):
    with pytest.raises(UsageError, match="`overwrite=True` replaces it"):
        ipc.export(ridge, exported.path)
    before = exported.path.read_bytes()
    exported.golden.write_bytes(b"")  # an empty file is free
    again = ipc.export(ridge, exported.path, license="mit", overwrite=True)
    assert again == exported
    assert exported.path.read_bytes() == before


@pytest.mark.usefixtures("quickly")
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


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize(("precision", "operators"), [("fp16", {"Cast"}), ("int8", {"QuantizeLinear"})])
def test_fewer_bits_are_compared_with_float32_on_held_out_images(
    ridge: Run, tmp_path: Path, precision: Any, operators: set[str], capsys
):
    out = tmp_path / "run.onnx"
    found = ipc.export(ridge, out, precision=precision, force=True)
    assert found.precision == found.metadata["precision"] == precision
    file = read_graph(out, kind="run", fingerprint=module.fingerprint_of(ridge, precision=precision))
    golden = np.load(found.golden)
    vectors = file.session(threads=1).run(["vectors"], {name: golden[name] for name in file.inputs})[0]
    np.testing.assert_allclose(vectors, golden["vectors"], atol=1e-3)
    assert operators <= {node.op_type for node in onnx.load_model(out).graph.node}
    lost = found.loss
    assert lost.images == ridge.metrics["n"]
    assert 0.95 < lost.least <= lost.mean < 1 - 1e-9
    assert 1e-9 < abs(lost.change) < 0.1
    assert cosine(golden["vectors"], golden["torch_vectors"]).min() > 0.95


def test_a_loss_that_is_too_large_or_unknown_is_refused_unless_forced(
    ridge: Run, exported: module.Exported, tmp_path: Path, monkeypatch, capsys
):
    cli, out = Cli(capsys), tmp_path / "run.onnx"
    monkeypatch.setattr(module, "shorten", lambda graph, *_: graph)
    known = {"images": 4, "mean": 0.9, "least": 0.8, "bytes": 5}
    for change, words in ((-0.0021, "falls by 0.0021, and 0.002 is allowed"), (None, "no held-out image")):
        monkeypatch.setattr(module, "measure_loss", lambda *_, c=change: module.Loss(change=c, **known))
        cli("export", ridge.folder, "--out", out, "--precision", "fp16").refused(1, words, "--force")
        assert not [*tmp_path.iterdir()]
        said = cli("export", ridge.folder, "--out", out, "--precision", "fp16", "--force", "--json")
        assert said.json["loss"] == {"change": change, **known}
        assert (
            cli("export", ridge.folder, "--out", out, "--precision", "fp16", "--force", "--overwrite").code
            == 0
        )
        for path in tmp_path.iterdir():
            path.unlink()
    monkeypatch.setattr(module, "measure_loss", lambda *_: module.Loss(change=-0.0019, **known))
    assert ipc.export(ridge, out, precision="fp16").loss.change == -0.0019
    with pytest.raises(UsageError, match="unknown `precision` 'int4'"):
        ipc.export(ridge, out, precision="int4")  # type: ignore[arg-type]


def test_a_graph_in_fewer_bits_that_gives_nan_is_not_written_even_if_forced(
    ridge: Run, graphs: RunGraphs, tmp_path: Path, monkeypatch
):
    calls = []

    def overflowing(path: Path, pixels: dict) -> dict[str, np.ndarray]:
        calls.append(path)
        found = run_file(path, pixels)
        return found if len(calls) == 1 else {name: values * np.nan for name, values in found.items()}

    monkeypatch.setattr(module, "shorten", lambda graph, *_: graph)
    monkeypatch.setattr(module, "run_file", overflowing)
    with made_before(graphs), pytest.raises(Img2PromptError, match="NaN or infinity"):
        ipc.export(ridge, tmp_path / "run.onnx", precision="fp16", force=True)
    assert len(calls) == 2
    assert not [*tmp_path.iterdir()]


def test_ranges_are_not_measured_on_held_out_images(ridge: Run, monkeypatch):
    asked = []

    def reading(rows: Any, count: int, among: Any = None) -> Any:
        asked.append({rows.ids[row] for row in among})
        return read_pictures(rows, count, among)

    monkeypatch.setattr(loss, "read_pictures", reading)
    assert loss.calibration_pictures(ridge)
    held = {*load_validation(ridge.folder, ridge).ids}
    assert asked[0]
    assert held
    assert not asked[0] & held


def same_as_predict(run: Run, path: Path, pairs: Path) -> None:
    """Export a run, and compare with what it predicts for images."""
    ipc.export(run, path)
    file, golden = read_graph(path, kind="run"), np.load(path.with_suffix(".golden.npz"))
    files = [pairs / f"img{number:03d}.png" for number in (1, 2, 6)]
    parts = parts_of(run)
    assert {each.name for each in parts.pixel_inputs} == {*file.inputs}
    feeds = prepare(parts, [Image.open(path).convert("RGB") for path in files])
    found = dict(zip(file.outputs, file.session(threads=1).run(None, feeds), strict=True))
    seen = run.predict(files, top_k=0)
    assert cosine(found["vectors"], seen.vectors).min() > 1 - 1e-6
    np.testing.assert_allclose(found["expected"], seen.expected, atol=1e-4)
    assert cosine(golden["torch_vectors"], golden["vectors"]).min() > 1 - 1e-6


@pytest.mark.slow
def test_levels_and_a_second_view_are_in_the_graph(tiny: Tiny, pairs: Path, tmp_path: Path):
    taps = choose_taps(levels="multi", second_view="squash")
    tiny.extract(pairs, tmp_path / "cache", backbones=(tiny.cnn,), taps=taps, precision="fp32")
    cache = Cache(tmp_path / "cache")
    specs = tuple(column.spec for column in cache.manifest.of_kind("features"))
    config = FitConfig("ridge", {"alpha": 0.1}, split="random", features=specs)
    run = fit_head(Cache(tmp_path / "cache"), config)
    assert len(run.features) == 4
    same_as_predict(run, tmp_path / "run.onnx", pairs)
    inputs = json.loads(read_graph(tmp_path / "run.onnx", kind="run").metadata["inputs"])
    assert sorted(how["mirror"] for how in inputs.values()) == [False, True]
    graph = onnx.load_model(tmp_path / "run.onnx")
    weights = [tensor for tensor in graph.graph.initializer if tensor.dims and len(tensor.dims) == 4]
    assert (
        len({tensor.name for tensor in weights})
        == len(weights)
        < len([node for node in graph.graph.node if node.op_type == "Conv"])
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_fine_tuned_tail_is_in_the_graph(tiny: Tiny, pairs: Path, tmp_path: Path, dtype: str):
    taps = choose_taps(trunk=2, trunk_dtype=dtype)
    tiny.extract(pairs, tmp_path / "cache", backbones=(tiny.vit,), taps=taps, precision="fp32")
    settings = {"epochs": 1, "alpha": 1.0, "precision": "fp32", "blocks": 1}
    run = fit_head(Cache(tmp_path / "cache"), FitConfig("finetune", settings, split="random"))
    same_as_predict(run, tmp_path / "run.onnx", pairs)


@pytest.mark.slow
def test_a_mean_takes_pixels_and_no_backbone(tiny: Tiny, pairs: Path, tmp_path: Path):
    tiny.extract(pairs, tmp_path / "cache", backbones=(tiny.cnn,), precision="fp32")
    run = fit_head(Cache(tmp_path / "cache"), FitConfig("mean", {}, split="random"))
    same_as_predict(run, tmp_path / "run.onnx", pairs)
    assert (tmp_path / "run.onnx").stat().st_size < 100_000
