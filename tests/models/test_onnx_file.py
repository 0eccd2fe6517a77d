"""ONNX files: written whole, and refused by name when they are not ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models import onnx_file
from img2prompt_cache.models.onnx_file import read_graph, write_graph
from img2prompt_cache.models.onnx_graph import export_graph

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

OWN, OTHER = "a" * 64, "b" * 64


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 300).view(3, 100))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x.float() @ self.weight
        return self.dropout(y), y.sum(1)


@pytest.fixture(scope="session")
def exported() -> bytes:
    graph = export_graph(Twice(), {"x": torch.zeros(2, 3, dtype=torch.uint8)}, ["y", "total"])
    data: bytes = graph.SerializeToString()
    return data


@pytest.fixture
def graph(exported: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(exported)


@pytest.fixture
def path(graph: onnx.ModelProto, tmp_path: Path) -> Path:
    write_graph(graph, tmp_path / "g.onnx", kind="run", fingerprint=OWN, metadata={"spec": "x", "more": "é"})
    return tmp_path / "g.onnx"


def changed(path: Path, change: Callable[[onnx.ModelProto], Any]) -> Path:
    graph = onnx.load_model(path, load_external_data=False)
    change(graph)
    path.write_bytes(graph.SerializeToString())
    return path


def test_an_exported_graph_computes_what_the_module_does_for_any_batch(path: Path):
    file = read_graph(path, kind="run", fingerprint=OWN)
    assert file.metadata == {"spec": "x", "more": "é"}
    assert file.inputs == {"x": (3,)}
    assert file.outputs == ("y", "total")
    session = file.session(threads=1)
    for rows in (0, 1, 7):
        x = np.arange(3 * rows, dtype=np.uint8).reshape(rows, 3)
        y, total = session.run(None, {"x": x})
        want, want_total = Twice().eval()(torch.from_numpy(x))
        np.testing.assert_allclose(y, want.detach(), atol=1e-5)
        np.testing.assert_allclose(total, want_total.detach(), atol=1e-4)


def test_the_module_stays_in_the_mode_it_was_in_and_nothing_is_said(capfd: pytest.CaptureFixture[str]):
    module = Twice()
    export_graph(module, {"x": torch.zeros(2, 3, dtype=torch.uint8)}, ["y", "total"])
    assert module.training
    assert capfd.readouterr() == ("", "")


def test_a_graph_names_no_code_and_no_path_of_this_machine(path: Path):
    data = path.read_bytes()
    for text in (b".py", b"Twice", os.fsencode(Path.cwd()), os.fsencode(Path.home()), b"fx_node"):
        assert text not in data


def test_two_exports_are_equal(exported: bytes):
    again = export_graph(Twice(), {"x": torch.zeros(2, 3, dtype=torch.uint8)}, ["y", "total"])
    assert again.SerializeToString() == exported


def test_an_example_of_one_row_is_refused():
    with pytest.raises(ValueError, match="two rows"):
        export_graph(Twice(), {"x": torch.zeros(1, 3)}, ["y"])


def test_openvino_reads_the_bytes(path: Path):
    openvino = pytest.importorskip("openvino")
    file = read_graph(path, kind="run")
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # else it rounds to bfloat16 where the processor can
    compiled = core.compile_model(core.read_model(file.source), "CPU", exact)
    x = np.array([[1, 2, 3]], np.uint8)
    np.testing.assert_allclose(compiled([x])["y"], Twice().eval()(torch.from_numpy(x))[0].detach(), atol=1e-5)


@pytest.fixture
def large(graph: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A graph whose values lie beside it, as those of more than 2 GB do."""
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    size = write_graph(graph, tmp_path / "g.onnx", kind="run", fingerprint=OWN)
    assert {path.name for path in tmp_path.iterdir()} == {"g.onnx", "g.onnx.data"}
    assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size > 1200
    return tmp_path / "g.onnx"


def test_values_of_a_large_graph_lie_beside_it(large: Path):
    file = read_graph(large, kind="run", fingerprint=OWN)
    x = np.array([[1, 2, 3]], np.uint8)
    (y,) = file.session(threads=1).run(["y"], {"x": x})
    np.testing.assert_allclose(y, Twice().eval()(torch.from_numpy(x))[0].detach(), atol=1e-5)


def test_a_small_graph_that_replaces_a_large_one_takes_its_values_away(
    large: Path, exported: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(onnx_file, "LARGEST", 1 << 20)
    write_graph(onnx.load_model_from_string(exported), large, kind="run", fingerprint=OWN)
    assert [path.name for path in large.parent.iterdir()] == ["g.onnx"]
    read_graph(large, kind="run")


def test_values_that_were_changed_are_refused(large: Path):
    data = large.with_name("g.onnx.data")
    data.write_bytes(b"\xff" + data.read_bytes()[1:])
    with pytest.raises(Img2PromptError, match=r"its data g\.onnx\.data is damaged"):
        read_graph(large, kind="run")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(Img2PromptError, match=r"g\.onnx\.data is cut short"):
        read_graph(large, kind="run")
    data.unlink()
    with pytest.raises(Img2PromptError, match=r"g\.onnx\.data is not beside it"):
        read_graph(large, kind="run")
    data.symlink_to("/dev/zero")
    with pytest.raises(Img2PromptError, match="no plain file"):
        read_graph(large, kind="run")


@pytest.mark.parametrize(
    "location",
    [
        "../secret",
        "/etc/passwd",
        "a/b",
        "..",
        ".",
        "",
        "..\\secret",
        "C:secret",
        "a\0b",
        "file:///etc/passwd",
    ],
)
def test_data_outside_the_folder_is_refused(path: Path, location: str):
    (path.parent.parent / "secret").write_bytes(bytes(2000))

    def point(graph: onnx.ModelProto) -> None:
        tensor = graph.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    with pytest.raises(Img2PromptError, match="not beside it"):
        read_graph(changed(path, point), kind="run")


def test_data_in_an_attribute_is_looked_at_too(path: Path):
    def point(graph: onnx.ModelProto) -> None:
        tensor = TensorProto(dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="../secret")
        graph.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))

    with pytest.raises(Img2PromptError, match="not beside it"):
        read_graph(changed(path, point), kind="run")


@pytest.mark.parametrize("place", ["-1", "x", "1e3", "9" * 30])
def test_data_at_no_known_place_is_refused(path: Path, place: str):
    def point(graph: onnx.ModelProto) -> None:
        tensor = graph.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="values")
        tensor.external_data.add(key="offset", value=place)

    (path.parent / "values").write_bytes(bytes(2000))
    with pytest.raises(Img2PromptError, match="no known place"):
        read_graph(changed(path, point), kind="run")


def test_values_beside_a_graph_without_their_hash_are_refused(path: Path):
    def point(graph: onnx.ModelProto) -> None:
        tensor = graph.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="values")

    (path.parent / "values").write_bytes(bytes(2000))
    with pytest.raises(Img2PromptError, match="not what its metadata says"):
        read_graph(changed(path, point), kind="run")


def test_an_operator_of_another_domain_is_refused(path: Path):
    def custom(graph: onnx.ModelProto) -> None:
        graph.graph.node.append(helper.make_node("Shell", ["x"], ["z"], domain="evil"))

    with pytest.raises(Img2PromptError, match="the operator Shell of the domain evil"):
        read_graph(changed(path, custom), kind="run")
    with pytest.raises(Img2PromptError, match=r"operators of the domain com\.microsoft"):
        read_graph(changed(path, lambda g: g.opset_import.add(domain="com.microsoft", version=1)), kind="run")


def test_functions_loops_and_trainings_are_refused(path: Path, graph: onnx.ModelProto):
    body = helper.make_graph([], "endless", [], [])
    loop = helper.make_node("Loop", ["", ""], ["z"], body=body)
    data = path.read_bytes()
    with pytest.raises(Img2PromptError, match="the operator Loop, which runs a graph"):
        read_graph(changed(path, lambda g: g.graph.node.append(loop)), kind="run")
    path.write_bytes(data)
    with pytest.raises(Img2PromptError, match="operators of its own"):
        read_graph(changed(path, lambda g: g.functions.add(name="f", domain="")), kind="run")
    path.write_bytes(data)
    with pytest.raises(Img2PromptError, match="a training"):
        read_graph(changed(path, lambda g: g.training_info.add()), kind="run")


def test_a_file_that_is_cut_anywhere_is_refused(path: Path):
    data = path.read_bytes()
    for end in {0, 1, 5, *range(6, len(data), 13), *range(len(data) - 40, len(data))}:
        path.write_bytes(data[:end])
        with pytest.raises(Img2PromptError):
            read_graph(path, kind="run")


def test_what_is_no_onnx_file_is_refused(path: Path, tmp_path: Path):
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(Img2PromptError, match="no ONNX file"):
        read_graph(path, kind="run")
    with pytest.raises(UsageError, match="there is no file"):
        read_graph(tmp_path / "none.onnx", kind="run")
    with pytest.raises(Img2PromptError, match="no plain file"):
        read_graph(tmp_path, kind="run")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Img2PromptError, match="no plain file"):
        read_graph(tmp_path / "pipe", kind="run")


def test_a_file_too_large_for_the_format_is_not_read(path: Path):
    os.truncate(path, 1 << 32)
    with pytest.raises(Img2PromptError, match="more bytes than an ONNX file can have"):
        read_graph(path, kind="run")


def test_a_graph_of_somebody_else_is_refused(graph: onnx.ModelProto, tmp_path: Path):
    onnx.save_model(graph, tmp_path / "g.onnx")
    with pytest.raises(Img2PromptError, match="no metadata of img2prompt-cache"):
        read_graph(tmp_path / "g.onnx", kind="run")


def test_another_kind_fingerprint_or_format_is_refused(path: Path):
    with pytest.raises(Img2PromptError, match="holds a run, not a backbone"):
        read_graph(path, kind="backbone")
    with pytest.raises(Img2PromptError, match=f"its fingerprint is {OWN[:16]}…, not {OTHER}"):
        read_graph(path, kind="run", fingerprint=OTHER)
    with pytest.raises(Img2PromptError, match="it is of format 2, and this version reads 1"):
        read_graph(changed(path, lambda g: setattr(g.metadata_props[-1], "value", "2")), kind="run")


def test_a_graph_that_is_not_valid_is_neither_read_nor_written(path: Path, exported: bytes):
    def broken(graph: onnx.ModelProto) -> None:
        graph.graph.node[0].input[0] = "nothing"

    with pytest.raises(Img2PromptError, match="no valid ONNX graph"):
        read_graph(changed(path, broken), kind="run")
    graph = onnx.load_model_from_string(exported)
    broken(graph)
    before = path.read_bytes()
    with pytest.raises(Img2PromptError, match="no valid ONNX graph"):
        write_graph(graph, path, kind="run", fingerprint=OWN)
    assert path.read_bytes() == before
    assert len([*path.parent.iterdir()]) == 1


def test_metadata_must_be_text_and_not_that_of_the_format(graph: onnx.ModelProto, tmp_path: Path):
    with pytest.raises(TypeError, match="rows must be a str"):
        write_graph(graph, tmp_path / "x", kind="run", fingerprint=OWN, metadata={"rows": 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="kind is not the caller's"):
        write_graph(graph, tmp_path / "x", kind="run", fingerprint=OWN, metadata={"kind": "x"})
    assert not [*tmp_path.iterdir()]
