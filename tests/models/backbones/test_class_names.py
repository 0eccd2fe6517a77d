"""What a backbone's classifier sees, against the whole model and the encoder computed by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.backbones import load_backbone, packaged
from img2prompt_cache.models.backbones.build import blocks_of_output, shape_of
from img2prompt_cache.models.backbones.class_names import imagenet_descriptions
from img2prompt_cache.models.backbones.taps import NoClassifierError, Tap
from img2prompt_cache.models.backbones.timm_models import load_classifier
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.models.naming import attach_names
from img2prompt_cache.models.specs import Spec
from img2prompt_cache.models.weights.hub import Snapshot
from img2prompt_cache.models.weights.packaged import CLASSIFIER_FILE, WEIGHTS_FILE
from img2prompt_cache.models.weights.wheels import PACKAGED
from img2prompt_cache.shortage import shortage
from kit import Tiny, save_backbone, save_clip

CLASSES = ("two red boats", "a calm sea", "night at sea", "pixel art")


def pixels(count: int, side: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def normalised(backbone, images):  # type: ignore[no-untyped-def]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))
    return (images.permute(0, 3, 1, 2) / 255 - mean) / std


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_names_are_the_encoded_classes_weighed_by_the_published_model(
    architecture: str, tiny: Tiny, tmp_path: Path
) -> None:
    folder = save_backbone(tmp_path / "model", architecture, classes=CLASSES)
    backbone = load_backbone(f"timm:local-dir:{folder}")
    plain = backbone.fingerprint
    attach_names(backbone, tiny.encoder)
    images = pixels(3, 32)
    found = backbone.read(images, {"names", ""})
    whole = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        weights = (whole(normalised(backbone, images)) / 2).softmax(1).numpy()
    expected = weights @ load_encoder(tiny.encoder).encode(CLASSES)
    np.testing.assert_allclose(found["names"], expected, atol=1e-5)
    assert np.abs(weights - 1 / len(CLASSES)).max() > 1e-3
    assert backbone.fingerprint == plain  # columns that were made without stay valid
    np.testing.assert_array_equal(found[""], backbone.encode(images))
    (block,) = blocks_of_output(backbone, Tap("names"))
    assert (block.width, block.standardise) == (16, False)
    assert shape_of(backbone, Tap("names")) == (16,)


def test_classes_without_names_of_their_own_are_those_of_imagenet() -> None:
    names = imagenet_descriptions(1000)
    assert (len(names), names[1]) == (1000, "goldfish, Carassius auratus")
    assert imagenet_descriptions(7) == ()


def test_a_backbone_without_named_classes_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    clip = f"open_clip:local-dir:{save_clip(tmp_path / 'clip')}"
    deit = save_backbone(tmp_path / "deit", "deit_tiny_distilled_patch16_224", classes=CLASSES)
    for spec in (tiny.cnn, clip, f"timm:local-dir:{deit}"):
        with pytest.raises(NoClassifierError, match="has no classifier whose classes have known names"):
            attach_names(load_backbone(spec), tiny.encoder)
    with pytest.raises(ValueError, match="without the names of its classes"):
        load_backbone(tiny.cnn).read(pixels(1, 32), {"names"})


@pytest.mark.parametrize(
    ("names", "described", "expected"),
    [
        (["n1", "n2"], {"n1": "a dog", "n2": "x" * 600}, ("a dog", "x" * 500)),
        (["n1", "n2"], {"n1": "a dog"}, ("a dog", "n2")),
        ([1, None], ["no", "table"], ("1", "None")),
        (["one"], None, None),
        ({"n1": "a", "n2": "b"}, None, None),
        ("ab", None, None),
        (None, None, None),
    ],
)
def test_classes_are_called_what_the_configuration_says(
    names: object, described: object, expected: tuple[str, ...] | None, tmp_path: Path
) -> None:
    folder = save_backbone(tmp_path / "model", classes=("one", "other"))
    config = json.loads((folder / "config.json").read_text())
    del config["label_names"]
    config["pretrained_cfg"].update(label_names=names, label_descriptions=described)
    (folder / "config.json").write_text(json.dumps(config))
    spec = Spec("timm", f"local-dir:{folder}")
    if expected is None:
        with pytest.raises(NoClassifierError, match="whose classes have known names"):
            load_classifier(spec)
    else:
        assert load_classifier(spec).descriptions == expected


@pytest.mark.weights
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2"])
def test_a_packaged_classifier_is_that_of_the_published_model(name: str) -> None:
    """Against the whole published model, put together from both files."""
    from img2prompt_cache.models.weights.packaged import classifier_path, packaged_path

    folder = packaged_path(name)
    whole = timm.create_model(PACKAGED[name].architecture).eval()
    last = load_file(classifier_path(name))
    whole.load_state_dict(
        load_file(folder / WEIGHTS_FILE) | {f"classifier.{key}": value for key, value in last.items()}
    )
    backbone = load_backbone(f"packaged:{name}")
    attach_names(backbone, "packaged:all-MiniLM-L6-v2")
    images = pixels(1, backbone.geometry.crop[0])
    with torch.inference_mode():
        weights = (whole(normalised(backbone, images)) / 2).softmax(1).numpy()
    table = load_encoder("packaged:all-MiniLM-L6-v2").encode(imagenet_descriptions(1000))
    np.testing.assert_allclose(backbone.read(images, {"names"})["names"], weights @ table, atol=1e-5)
    with pytest.raises(NoClassifierError):
        attach_names(load_backbone("packaged:vit-small-saliency"), "packaged:all-MiniLM-L6-v2")


def test_weights_converted_without_their_classifier_stay_usable(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("IMG2PROMPT_WHEELS", raising=False)
    folder = tmp_path / "home" / "packaged" / f"efficientnet-lite0-{PACKAGED['efficientnet-lite0'].version}"
    folder.mkdir(parents=True)
    model = timm.create_model("tf_efficientnet_lite0")
    last = {"weight": model.classifier.weight.detach(), "bias": model.classifier.bias.detach()}
    model.reset_classifier(0)
    save_file(model.state_dict(), folder / WEIGHTS_FILE)
    backbone = load_backbone("packaged:efficientnet-lite0")
    with pytest.raises(
        Img2PromptError, match=r"without their classifier.*weights efficientnet-lite0` adds it"
    ):
        attach_names(backbone, tiny.encoder)
    save_file(last, folder / CLASSIFIER_FILE)
    attach_names(backbone, tiny.encoder)
    assert backbone.read(pixels(1, 224), {"names"})["names"].shape == (1, 16)
    (folder / CLASSIFIER_FILE).write_bytes(b"x")
    with pytest.raises(Img2PromptError, match=r"classifier\.safetensors is damaged; delete it"):
        attach_names(load_backbone("packaged:efficientnet-lite0"), tiny.encoder)

    def short(path: Path) -> None:
        raise SafetensorError("Cannot allocate memory (os error 12)")

    # Where memory is short, nobody is told to delete weights that are whole.
    monkeypatch.setattr(packaged, "load_file", short)
    for load in (packaged.load, packaged.load_classifier):
        with pytest.raises(SafetensorError) as caught:
            load(Spec("packaged", "efficientnet-lite0"))
        assert shortage(caught.value).startswith("out of memory")
    shutil.rmtree(folder)


def test_a_model_of_the_hub_is_named_as_imagenet_at_the_commit_of_its_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet").eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    asked: list[str] = []

    def fetch(spec: str, repository: str, names: object, revision: str = "") -> Snapshot:
        asked.append(revision)
        return Snapshot(tmp_path, "c" * 40, (tmp_path / "model.safetensors",))

    monkeypatch.setattr("img2prompt_cache.models.backbones.timm_models.hub.fetch", fetch)
    backbone = load_backbone("timm:test_resnet.r160_in1k", revision="main")
    found = load_classifier(Spec("timm", "test_resnet.r160_in1k"), backbone.identity["revision"])
    assert asked == ["main", "c" * 40]
    assert found.descriptions == imagenet_descriptions(1000)
    torch.testing.assert_close(found.weight, model.fc.weight.detach(), rtol=0, atol=0)
    assert found.weight.shape == (1000, backbone.dim)
