"""Loading, encoding and identity of backbones, on small models of real architectures."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones import FAMILIES, load_backbone
from img2prompt_cache.models.specs import BACKBONE_FAMILIES


def save(folder, name, seed=0, **arguments):
    torch.manual_seed(seed)
    model = timm.create_model(name, **arguments).eval()
    timm.models.save_for_hf(model, folder, model_args=arguments or None, safe_serialization=True)
    return model


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    save(folder, "resnet10t")
    return f"timm:local-dir:{folder}"


@pytest.fixture(scope="module")
def pixels(resnet):
    noise = np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), dtype=np.uint8)
    geometry = load_backbone(resnet).geometry
    return torch.from_numpy(np.stack([geometry.apply(Image.fromarray(image)) for image in noise]))


def test_a_backbone_is_frozen(resnet):
    model = load_backbone(resnet).model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_encode_is_deterministic_and_row_by_row(resnet, pixels):
    backbone = load_backbone(resnet)
    kept = pixels.clone()
    features = backbone.encode(pixels)
    assert features.shape == (4, backbone.dim)
    assert features.dtype == np.float32
    assert torch.equal(pixels, kept)
    np.testing.assert_array_equal(backbone.encode(pixels), features)
    np.testing.assert_allclose(
        np.concatenate([backbone.encode(pixels[:1]), backbone.encode(pixels[1:])]),
        features,
        rtol=1e-4,
        atol=1e-5,
    )
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_half_precision_computes_in_it_and_gives_float32(resnet, pixels):
    full = load_backbone(resnet)
    half = load_backbone(resnet, precision="bf16")
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    found, expected = half.encode(pixels), full.encode(pixels)
    assert found.dtype == np.float32
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999
    assert not np.array_equal(found, expected)


def test_fingerprint_tells_weights_precision_and_preprocessing(resnet, tmp_path):
    first = load_backbone(resnet).fingerprint
    assert first["library"] == "timm"
    assert first["architecture"].split()[0] == "resnet10t"
    assert first["activation"] == "ReLU"
    assert load_backbone(resnet).fingerprint == first
    half = load_backbone(resnet, precision="bf16").fingerprint
    assert {key for key in first if first[key] != half[key]} == {"precision"}
    save(tmp_path, "resnet10t", seed=1)
    other = load_backbone(f"timm:local-dir:{tmp_path}").fingerprint
    assert {key for key in first if first[key] != other[key]} == {"weights"}


def test_every_family_has_a_loader():
    assert set(FAMILIES) == set(BACKBONE_FAMILIES)


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("resnet50", {}, "family:name"),
        ("tim:resnet50", {}, "timm"),
        ("packaged:efficientnet", {}, "efficientnet-lite0"),
        ("packaged:all-MiniLM-L6-v2", {}, "efficientnet-lite0"),
        ("packaged:efficientnet-lite0", {"precision": "fp8"}, "fp16"),
        ("packaged:efficientnet-lite0", {"device": "gpu"}, "device"),
    ],
)
def test_wrong_use_is_told(spec, options, said):
    with pytest.raises(UsageError, match=said):
        load_backbone(spec, **options)


def test_a_model_without_pooling_is_refused(tmp_path):
    save(tmp_path, "resnet10t", num_classes=0, global_pool="")
    with pytest.raises(Img2PromptError, match="no pooled feature"):
        load_backbone(f"timm:local-dir:{tmp_path}")
