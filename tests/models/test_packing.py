"""What of a model is copied: its weights, configuration, vocabulary and licence, and nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.packing import copy_model
from img2prompt_cache.models.specs import Spec
from img2prompt_cache.models.weights import hub
from kit import save_backbone, save_encoder

COMMIT = "c" * 40


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("spec", "file", "copied", "licence"),
    [
        ("timm:test_resnet.r160_in1k", "model.safetensors", {"model.safetensors"}, "apache-2.0"),
        ("timm:hf-hub:me/mine", "model.safetensors", {"model.safetensors", "config.json"}, "mit"),
        (
            "open_clip:ViT-B-32/laion2b_s34b_b79k",
            "open_clip_model.safetensors",
            {"open_clip_model.safetensors", "config.json", "README.md"},
            "mit",
        ),
    ],
)
def test_the_files_of_a_hub_model_are_those_that_are_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: str,
    file: str,
    copied: set[str],
    licence: str,
) -> None:
    folder, into = tmp_path / "snapshots" / COMMIT, tmp_path / "into"
    folder.mkdir(parents=True)
    into.mkdir()
    if "hf-hub" in spec or "open_clip" in spec:
        (folder / "config.json").write_text('{"license": "mit"}')
    if "open_clip" in spec:
        (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    save_file({"a": torch.ones(2)}, folder / file)
    save_file({"a": torch.zeros(2)}, folder / "another.safetensors")
    asked = []

    def fetch(spec: str, repository: str, wanted: object, revision: str = "") -> hub.Snapshot:
        asked.append((repository, revision))
        return hub.Snapshot(folder, COMMIT, (folder / file,))

    monkeypatch.setattr(hub, "fetch", fetch)
    family, _, name = spec.partition(":")
    assert copy_model(Spec(family, name), COMMIT, None, into) == licence
    assert names(into) == copied
    assert load_file(into / file)["a"].tolist() == [1, 1]
    assert [revision for _, revision in asked] == [COMMIT]


def test_of_a_text_encoder_data_alone_is_copied(tmp_path: Path) -> None:
    folder, into = save_encoder(tmp_path / "words"), tmp_path / "into"
    into.mkdir()
    for extra in ("pytorch_model.bin", "evil.py", "tf_model.h5"):
        (folder / extra).write_bytes(b"x")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "notes.json").write_text("{}")
    copy_model(Spec("st", f"local-dir:{folder}"), "", None, into)
    kinds = {Path(name).suffix for name in names(into)}
    assert kinds <= {".json", ".txt", ".safetensors", ".md"}
    assert {"modules.json", "model.safetensors", "1_Pooling/config.json"} <= names(into)
    assert not any(name.startswith(".") for name in names(into))


def test_a_checkpoint_becomes_safetensors_and_none_runs_code(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    torch.save({"state_dict": {**state, "tied": next(iter(state.values()))}}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    spec = Spec("timm", f"local-dir:{folder}")
    (tmp_path / "into").mkdir()
    copy_model(spec, "", None, tmp_path / "into")
    assert names(tmp_path / "into") == {"config.json", "model.safetensors"}
    copied = load_file(tmp_path / "into" / "model.safetensors")
    assert all(torch.equal(copied[name], value) for name, value in state.items())

    trace = tmp_path / "it-ran"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trace,))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "other").mkdir()
    with pytest.raises(Img2PromptError, match="cannot be read without running code"):
        copy_model(spec, "", None, tmp_path / "other")
    assert not trace.exists()
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(Img2PromptError, match="there are no weights in"):
        copy_model(spec, "", None, tmp_path / "other")


def test_the_licence_of_packaged_weights_is_that_of_their_pin(tmp_path: Path) -> None:
    folder, into = tmp_path / "weights", tmp_path / "into"
    for each in (folder, into):
        each.mkdir()
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    assert copy_model(Spec("packaged", "efficientnet-lite0"), "", folder, into) == "Apache-2.0"
    assert names(into) == {"model.safetensors"}
