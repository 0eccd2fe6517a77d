"""Places: which paths are replaced, and which folders are tried for a spec."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from img2prompt_cache.models.specs import Spec, parse_spec
from img2prompt_cache.models.weights import places
from img2prompt_cache.models.weights.places import Places


@pytest.mark.parametrize(
    ("spec", "old", "new", "current"),
    [
        ("timm:local-dir:/a/b", "/a", "/c", "timm:local-dir:/c/b"),
        ("timm:local-dir:/a/b", "/a/", "/c/", "timm:local-dir:/c/b"),
        ("timm:local-dir:/a/b", "/a/b", "c", "timm:local-dir:c"),
        ("timm:local-dir:/ab/b", "/a", "/c", "timm:local-dir:/ab/b"),
        ("timm:local-dir:/a/b", "/", "/c", "timm:local-dir:/c/a/b"),
        ("timm:local-dir:a/a", "a", "/c", "timm:local-dir:/c/a"),
        ("timm:a/b", "a", "/c", "timm:a/b"),
    ],
)
def test_a_path_is_replaced_by_whole_names(spec: str, old: str, new: str, current: str) -> None:
    assert str(Places(replaced=((old, new),)).current(parse_spec(spec))) == current


def folder(path: Path, weights: str, config: str = "", **values: object) -> Path:
    path.mkdir(parents=True)
    (path / weights).write_bytes(b"")
    if config:
        (path / config).write_text(json.dumps(values))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder(tmp_path / "resnet", "model.safetensors", "config.json", architecture="resnet50")
    folder(tmp_path / "vit", "pytorch_model.bin", "config.json", architecture="vit_base")
    model = {"embed_dim": 8, "vision_cfg": {"layers": 2}, "text_cfg": {}}
    folder(tmp_path / "clip", "open_clip_model.safetensors", "open_clip_config.json", model_cfg=model)
    folder(tmp_path / "a" / "efficientnet-lite0-0.1.0", "model.safetensors")
    folder(tmp_path / "st", "model.safetensors", "modules.json")
    folder(tmp_path / "broken", "model.safetensors", "config.json").joinpath("config.json").write_text("{")
    folder(tmp_path / ".hidden", "model.safetensors", "config.json", architecture="resnet50")
    folder(tmp_path / "empty", "notes.txt")
    (tmp_path / "loop").symlink_to(tmp_path)
    return tmp_path


CLIP = {"architecture": '{"embed_dim": 8, "vision_cfg": {"layers": 2}}'}


@pytest.mark.parametrize(
    ("spec", "fingerprint", "names"),
    [
        ("timm:local-dir:x", {"architecture": "resnet50"}, ["resnet"]),
        ("timm:hf-hub:timm/x", {"architecture": "resnet50"}, ["resnet"]),
        ("timm:resnet50.a1", {"architecture": "resnet50"}, ["efficientnet-lite0-0.1.0", "resnet"]),
        ("open_clip:local-dir:x", CLIP, ["clip"]),
        ("open_clip:local-dir:x", {"architecture": '{"embed_dim": 9, "vision_cfg": {}}'}, []),
        ("open_clip:local-dir:x", {"architecture": '{"embed_dim": 8, "text_cfg": {}}'}, ["clip"]),
        (
            "packaged:efficientnet-lite0",
            {"architecture": "tf_efficientnet_lite0"},
            ["efficientnet-lite0-0.1.0"],
        ),
        ("st:local-dir:x", {}, ["efficientnet-lite0-0.1.0", "broken", "resnet", "st", "vit"]),
    ],
)
def test_folders_that_declare_another_model_are_passed_over(
    root: Path, spec: str, fingerprint: dict[str, str], names: list[str]
) -> None:
    found = Places((root,)).candidates(Spec(*spec.split(":", 1)), fingerprint)
    assert [path.name for path in found] == names


def test_the_environment_names_more_folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMG2PROMPT_WEIGHTS", f"{root / 'vit'}{os.pathsep}{root / 'not there'}")
    assert Places.of(root / "st").folders == (root / "st", root / "vit", root / "not there")
    spec = parse_spec("timm:local-dir:x")
    assert [*places.active().candidates(spec, {"architecture": "vit_base"})] == [root / "vit"]


def test_more_folders_than_anybody_means_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_FOLDERS", 5)
    with pytest.raises(places.UsageError, match=r"`weights` .* has more than 5 folders"):
        [*Places((root,)).candidates(parse_spec("timm:local-dir:x"), {})]
