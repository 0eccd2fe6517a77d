"""Backbones that OpenVINO computes: what torch computes, whatever else is in a batch, kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from architectures import MODELS, backbone_of
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.build import noise
from img2prompt_cache.models.backbones.fidelity import drawn, falls_short, fidelity
from img2prompt_cache.numerics.metrics import cosine
from kit import Tiny

pytest.importorskip("openvino")

from img2prompt_cache.models.backbones import acceleration, compiled
from img2prompt_cache.models.backbones.acceleration import accelerate, accelerate_if_faster
from img2prompt_cache.models.backbones.compiled_file import graph_folder

QUICK = ("bottleneck", "vit", "clip")
BF16 = "BF16" in compiled.openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
with_bf16 = pytest.mark.skipif(not BF16, reason="OpenVINO computes in bfloat16 on newer processors only")


@pytest.fixture(autouse=True, scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A user's folder of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMG2PROMPT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in MODELS]
)
def test_features_and_levels_are_those_of_torch(kind: str) -> None:
    backbone, plain = backbone_of(kind), backbone_of(kind)
    accelerate(backbone, "fp32")
    names = compiled.outputs_of(plain)
    assert names == ("", "multi")
    assert (backbone.runtime, plain.runtime) == ("openvino", "torch")
    assert backbone.fingerprint == {**plain.fingerprint, "runtime": "openvino"}
    pixels = drawn(plain)
    found, wanted = backbone.read(pixels, names), plain.read(pixels, names)
    for name in names:
        assert found[name].shape == wanted[name].shape
        assert found[name].dtype == np.float32
        assert cosine(found[name], wanted[name]).min() >= 0.99999


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=with_bf16)])
def test_the_bytes_of_an_image_depend_on_no_batch_lane_or_other_output(tiny: Tiny, precision: str) -> None:
    backbone = load_backbone(tiny.vit)
    accelerate(backbone, precision)
    pixels = drawn(backbone)
    whole = backbone.read(pixels, ("", "multi"))
    for name, values in whole.items():
        alone = [backbone.read(pixels[at : at + 1], (name,))[name] for at in range(len(pixels))]
        assert np.array_equal(np.concatenate(alone), values)
    assert np.array_equal(backbone.encode(pixels[5:12].contiguous()), whole[""][5:12])
    with ThreadPoolExecutor(4) as pool:
        for values in pool.map(backbone.encode, [pixels] * 8):
            assert np.array_equal(values, whole[""])


@with_bf16
def test_a_graph_is_kept_and_used_again(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone(tiny.cnn)
    accelerate(backbone, "fp32")
    pixels = drawn(backbone)
    known = backbone.encode(pixels)

    def refuse(*_: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(compiled, "convert", refuse)
        patch.setattr(acceleration, "require_same", refuse)
        again = load_backbone(tiny.cnn)
        accelerate(again, "fp32")
    assert np.array_equal(again.encode(pixels), known)
    with monkeypatch.context() as patch:
        patch.setattr(acceleration, "require_same", refuse)
        with pytest.raises(AssertionError):  # in another precision it is compared first
            accelerate(load_backbone(tiny.cnn), "bf16")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def turn(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def of_other_versions(path: Path) -> None:
    note = json.loads(path.read_text())
    path.write_text(json.dumps({**note, "versions": {**note["versions"], "openvino": "2020.1"}}))


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("graph.bin", cut),
        ("graph.bin", turn),
        ("graph.xml", turn),
        ("graph.xml", Path.unlink),
        ("graph.json", Path.unlink),
        ("graph.json", cut),
        ("graph.json", lambda path: path.write_text("[" * 5000)),
        ("graph.json", lambda path: path.write_text("[]")),
        ("graph.json", of_other_versions),
    ],
)
def test_a_graph_that_is_damaged_is_made_anew(
    name: str, harm: Callable[[Path], object], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(tiny.cnn)
    accelerate(backbone, "fp32")
    known = backbone.encode(drawn(backbone))
    harm(graph_folder(backbone) / name)
    made = []

    def convert(*given: object) -> object:
        made.append(given)
        return original(*given)  # type: ignore[arg-type]

    original = compiled.convert
    monkeypatch.setattr(compiled, "convert", convert)
    for _ in range(2):
        again = load_backbone(tiny.cnn)
        accelerate(again, "fp32")
        assert np.array_equal(again.encode(drawn(again)), known)
    assert len(made) == 1


def test_where_the_users_folder_cannot_be_written_nothing_is_kept(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path / "file"))
    backbone, kept = load_backbone(tiny.cnn), load_backbone(tiny.cnn)
    accelerate(backbone, "fp32")
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path / "home"))
    accelerate(kept, "fp32")
    pixels = drawn(backbone)
    assert np.array_equal(backbone.encode(pixels), kept.encode(pixels))


def test_a_graph_that_computes_something_else_is_refused_and_not_kept(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path))

    def convert(backbone: object, names: tuple[str, ...]) -> object:
        return original(load_backbone(tiny.cnn), names)

    original = compiled.convert
    other = load_backbone(tiny.cnn)
    with torch.no_grad():
        for tensor in other.model.parameters():
            tensor.mul_(1 + 0.05 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(compiled, "convert", convert)
    for call in (accelerate, accelerate_if_faster):
        with pytest.raises(Img2PromptError, match=r"does not compute what torch does.*`runtime=\"torch\"`"):
            call(other, "fp32")
    assert other.runtime == "torch"
    assert not any((tmp_path / "graphs").iterdir())


@with_bf16
def test_a_format_that_does_not_suit_a_backbone_is_computed_where_torch_loses_as_much(
    shaky: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(shaky)
    assert falls_short(fidelity(backbone, "bf16"))
    monkeypatch.setattr(
        "img2prompt_cache.models.backbones.fidelity.in_format", lambda *_: load_backbone(shaky)
    )
    with pytest.raises(Img2PromptError, match="openvino in bf16 does not compute what torch does"):
        accelerate(backbone, "bf16")
    monkeypatch.undo()
    accelerate(backbone, "bf16")
    assert backbone.precision == "bf16"


def test_what_cannot_be_converted_is_told(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("No conversion rule found for operations: aten::strange")

    monkeypatch.setattr(compiled.FrontEndManager, "load_by_framework", fail)
    monkeypatch.setattr(compiled, "load_graph", lambda *_: None)
    with pytest.raises(Img2PromptError, match=r"openvino cannot convert it: No conversion.*aten::strange"):
        accelerate(load_backbone(tiny.cnn), "fp32")


@pytest.mark.parametrize(("gain", "runtime"), [(1.5, "openvino"), (0.8, "torch")])
def test_the_faster_one_wins(gain: float, runtime: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone(tiny.cnn)
    monkeypatch.setattr(acceleration, "race", lambda *_: gain)
    assert accelerate_if_faster(backbone, "fp32") == gain
    assert (backbone.runtime, backbone.precision) == (runtime, "fp32")


def test_a_race_runs_both_in_turn_and_leaves_the_number_of_threads(tiny: Tiny) -> None:
    backbone = load_backbone(tiny.cnn)
    graph = compiled.Graph(backbone, "fp32")
    before = torch.get_num_threads()
    assert acceleration.race(backbone, graph) > 0
    assert torch.get_num_threads() == before


def test_the_blocks_of_levels_are_known_where_openvino_computes(tiny: Tiny) -> None:
    from img2prompt_cache.models.backbones.build import blocks_of_output, shape_of
    from img2prompt_cache.models.backbones.taps import MULTI, Tap

    backbone, plain = load_backbone(tiny.cnn), load_backbone(tiny.cnn)
    accelerate(backbone, "fp32")
    assert blocks_of_output(backbone, Tap(MULTI)) == blocks_of_output(plain, Tap(MULTI)) != ()
    assert shape_of(backbone, Tap(MULTI)) == shape_of(plain, Tap(MULTI))
    assert backbone.encode(noise(backbone)).shape == (1, backbone.dim)


def test_levels_that_are_not_known_are_refused_as_with_torch(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.models.backbones import levels
    from img2prompt_cache.models.backbones.taps import MULTI

    def unknown(*_: object) -> None:
        raise UsageError("it is not known where the inner levels of this architecture are")

    monkeypatch.setattr(levels, "levels_of", unknown)
    backbone = load_backbone(tiny.cnn)
    backbone.compute_with(compiled.Graph(backbone, "fp32"))
    with pytest.raises(UsageError, match="it is not known where the inner levels"):
        backbone.read(drawn(backbone), (MULTI,))


def test_a_note_whose_comparisons_are_damaged_is_mended(tiny: Tiny) -> None:
    backbone = load_backbone(tiny.cnn)
    accelerate(backbone, "fp32")
    path = graph_folder(backbone) / "graph.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"compared": 5}))
    accelerate(load_backbone(tiny.cnn), "fp32")
    assert len(json.loads(path.read_text())["compared"]) == 1
