"""Packaged backbones: real weights, against timm's own transform and forward."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms import Compose, Normalize, ToTensor

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.build import blocks_of_output
from img2prompt_cache.models.backbones.taps import Tap
from img2prompt_cache.models.weights.packaged import WEIGHTS_FILE, packaged_path
from img2prompt_cache.models.weights.wheels import PACKAGED


@pytest.fixture
def photo(tmp_path):
    files = []
    for seed in (0, 1):
        noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
        path = tmp_path / f"{seed}.png"
        Image.fromarray(noise).resize((333, 271), Image.Resampling.BICUBIC).save(path)
        files.append(path)
    return files


def letterbox(image):
    """The whole image in a black square of 224 pixels, as the saliency model's authors do it."""
    scale = 224 / max(image.size)
    small = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (224, 224))
    canvas.paste(small, ((224 - small.width) // 2, (224 - small.height) // 2))
    return canvas


@pytest.mark.weights
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2", "vit-small-saliency"])
def test_parity_with_timm(name, photo):
    vit = name.startswith("vit")
    oracle = timm.create_model(
        PACKAGED[name].architecture, num_classes=0, **({"img_size": 224} if vit else {})
    ).eval()
    oracle.load_state_dict(load_file(packaged_path(name) / WEIGHTS_FILE))
    if vit:
        imagenet = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        transform = Compose([letterbox, ToTensor(), imagenet])
    else:
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(oracle))
    with torch.inference_mode():
        expected = oracle(torch.stack([transform(Image.open(path)) for path in photo])).numpy()
    backbone = load_backbone(f"packaged:{name}")
    crops = [backbone.geometry.apply(decode(path.read_bytes())) for path in photo]
    found = backbone.encode(torch.from_numpy(np.stack(crops)))
    assert found.shape == (2, 384 if vit else 1280)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() >= 0.9999
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected[0] - expected[1]).max() > 1e-2 * np.abs(expected).max()


@pytest.mark.weights
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2", "vit-small-saliency"])
def test_levels_are_those_of_timms_own_modules(name, photo):
    vit = name.startswith("vit")
    size = {"img_size": 224} if vit else {}
    oracle = timm.create_model(PACKAGED[name].architecture, num_classes=0, **size).eval()
    oracle.load_state_dict(load_file(packaged_path(name) / WEIGHTS_FILE))
    backbone = load_backbone(f"packaged:{name}")
    crops = [backbone.geometry.apply(decode(path.read_bytes())) for path in photo]
    pixels = torch.from_numpy(np.stack(crops))
    images = Normalize(backbone.mean, backbone.std)(pixels.permute(0, 3, 1, 2) / 255)
    kept = {}
    for at in (11, 10, 8, 5) if vit else (6, 5, 4, 3):
        oracle.blocks[at].register_forward_hook(lambda m, i, out, at=at: kept.__setitem__(at, out))
    with torch.inference_mode():
        oracle(images)
        if vit:
            tokens = {at: oracle.norm(x) for at, x in kept.items()}
            parts = [torch.cat([tokens[at][:, 0], tokens[at][:, 1:].mean(1)], 1) for at in (11, 10, 8)]
            patches = tokens[5][:, 1:]
            parts.append(torch.cat([patches.mean(1), patches.std(1, correction=0)], 1))
        else:
            parts = [torch.cat([kept[6].mean((2, 3)), kept[6].amax((2, 3))], 1)]
            parts += [
                torch.cat([kept[at].mean((2, 3)), kept[at].std((2, 3), correction=0)], 1) for at in (5, 4, 3)
            ]
    blocks = blocks_of_output(backbone, Tap("multi"))
    assert [block.width for block in blocks] == [part.shape[1] for part in parts]
    found = np.split(
        backbone.read(pixels, {"multi"})["multi"], np.cumsum([block.width for block in blocks])[:-1], axis=1
    )
    for ours, expected in zip(found, parts, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("damage", ["truncated", "other tensors", "gone"])
def test_damaged_weights_are_told(damage, tmp_path, monkeypatch):
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path))
    folder = tmp_path / "packaged" / f"efficientnet-lite0-{PACKAGED['efficientnet-lite0'].version}"
    folder.mkdir(parents=True)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    save_file(model.state_dict(), folder / WEIGHTS_FILE)
    assert load_backbone("packaged:efficientnet-lite0").dim == 1280
    if damage == "truncated":
        (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:-10])
    elif damage == "other tensors":
        save_file({"a": torch.zeros(2)}, folder / WEIGHTS_FILE)
    else:
        (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(Img2PromptError, match="delete that folder"):
        load_backbone("packaged:efficientnet-lite0")
