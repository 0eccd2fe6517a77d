"""open_clip backbones against open_clip's own transform and encode_image, on the same image file."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones import load_backbone

SMALL_TEXT = {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
SMALL_TOWER = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}


def save(folder, config, seed=0, **preprocess):
    """Save a seeded model as open_clip's local-dir and hub layout has it."""
    folder.mkdir(exist_ok=True)
    text = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(text))
    torch.manual_seed(seed)
    kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CLIP
    model = kind(**{key: value for key, value in config.items() if key != "custom_text"})
    for tensor in model.state_dict().values():  # so that no layer is an identity
        if tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape), alpha=0.02)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return f"local-dir:{folder}"


@pytest.fixture
def photo(tmp_path):
    files = []
    for seed in (0, 1):
        noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
        path = tmp_path / f"{seed}.png"
        Image.fromarray(noise).resize((333, 271), Image.Resampling.BICUBIC).save(path)
        files.append(path)
    return files


def check_parity(name, photo):
    oracle, transform = open_clip.create_model_from_pretrained(name)
    with torch.inference_mode():
        images = torch.stack([transform(Image.open(path)) for path in photo])
        expected = oracle.eval().encode_image(images, normalize=False).numpy()
    backbone = load_backbone(f"open_clip:{name}")
    crops = [backbone.geometry.apply(decode(path.read_bytes())) for path in photo]
    found = backbone.encode(torch.from_numpy(np.stack(crops)))
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() >= 0.9999
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected[0] - expected[1]).max() > 2e-3 * np.abs(expected).max()
    assert np.abs(np.linalg.norm(found, axis=1) - 1).min() > 1e-2  # not normalised
    return backbone


@pytest.mark.parametrize(
    ("architecture", "activation"), [("ViT-B-32", "GELU"), ("ViT-B-32-quickgelu", "QuickGELU")]
)
def test_parity_with_open_clip(architecture, activation, photo, tmp_path):
    # The image tower is the whole one; the text tower, which is thrown away, is small.
    config = {**open_clip.get_model_config(architecture), "text_cfg": SMALL_TEXT}
    backbone = check_parity(save(tmp_path / "model", config), photo)
    assert backbone.dim == 512
    assert backbone.identity["activation"] == activation
    kinds = {type(module).__name__ for module in backbone.model.modules()}
    assert kinds & {"GELU", "QuickGELU"} == {activation}
    assert not any("token_embedding" in name for name in backbone.model.state_dict())


def test_quickgelu_changes_the_features_and_the_fingerprint(tmp_path):
    config = {"embed_dim": 16, "vision_cfg": SMALL_TOWER, "text_cfg": SMALL_TEXT}
    plain = load_backbone(f"open_clip:{save(tmp_path / 'a', config)}")
    quick = load_backbone(f"open_clip:{save(tmp_path / 'b', {**config, 'quick_gelu': True})}")
    assert plain.identity["weights"] == quick.identity["weights"]
    assert plain.fingerprint != quick.fingerprint
    pixels = torch.randint(
        0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    assert np.abs(plain.encode(pixels) - quick.encode(pixels)).max() > 1e-4


@pytest.mark.parametrize(
    ("config", "preprocess"),
    [
        ({}, {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"}),
        ({"vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64, "head_width": 32}}, {}),
        (
            {
                "vision_cfg": {
                    **SMALL_TOWER,
                    "attentional_pool": True,
                    "attn_pooler_heads": 2,
                    "output_tokens": True,
                },
                "text_cfg": {**SMALL_TEXT, "embed_cls": True, "output_tokens": True},
                "custom_text": True,
                "multimodal_cfg": {**SMALL_TEXT, "attn_pooler_heads": 1},
            },
            {},
        ),
    ],
    ids=["siglip-like preprocessing", "ResNet", "CoCa"],
)
def test_parity_of_other_towers(config, preprocess, photo, tmp_path):
    whole = {"embed_dim": 16, "vision_cfg": SMALL_TOWER, "text_cfg": SMALL_TEXT, **config}
    check_parity(save(tmp_path / "model", whole, **preprocess), photo)


@pytest.mark.parametrize("damage", ["truncated", "other tower", "no weights", "pickle"])
def test_weights_that_do_not_fit_are_refused(damage, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    config = {"embed_dim": 16, "vision_cfg": SMALL_TOWER, "text_cfg": SMALL_TEXT}
    name = save(tmp_path / "model", config)
    weights = tmp_path / "model" / "open_clip_model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "other tower":
        text = json.dumps({"model_cfg": {**config, "embed_dim": 24}})
        (tmp_path / "model" / "open_clip_config.json").write_text(text)
    else:
        weights.unlink()
        if damage == "pickle":
            torch.save({"a": Evil()}, weights.with_name("open_clip_pytorch_model.bin"))
    with pytest.raises(Img2PromptError, match="cannot load these weights") as caught:
        load_backbone(f"open_clip:{name}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViT-B-32", "ViT-B-32/"),
        ("ViT-B-32/laion2b", "ViT-B-32/laion2b"),
        ("vit-b-32/laion2b_s34b_b79k", "ViT-B-32/laion2b_s34b_b79k"),
        ("./model", "local-dir"),
        ("/models/clip", "local-dir"),
        ("local-dir:", "unknown"),
        ("local-dir:/nonexistent/folder", r"open_clip_config\.json"),
        ("hf-hub:too/many/parts", "not a repository"),
    ],
)
def test_names_that_are_not_there(name, said):
    with pytest.raises(UsageError, match=said):
        load_backbone(f"open_clip:{name}")


@pytest.mark.parametrize("text", ["not json", "[]", "{}", '{"model_cfg": {"embed_dim": 3}}'])
def test_a_config_that_is_not_open_clips_is_refused(text, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(text)
    with pytest.raises(UsageError, match="open_clip"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")
