"""Text towers against open_clip's own tokenizer and encode_text."""

from __future__ import annotations

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.encoders.base import load_encoder
from kit import save_clip, save_encoder

PROMPTS = ["two red boats at night", "A calm sea, 4k!", "", "pixel art " * 40, "船 café ½", "boat"]
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
COCA = {
    "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
    "vision_cfg": {
        "image_size": 32,
        "layers": 1,
        "width": 32,
        "patch_size": 8,
        "attentional_pool": True,
        "head_width": 16,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "custom_text": True,
    "multimodal_cfg": {**TEXT, "attn_pooler_heads": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip") / "model")


def spec(folder):
    return f"open_clip:local-dir:{folder}"


def library_encode(folder, prompts):
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        return model.eval().encode_text(tokenize(prompts), normalize=True).numpy()


@pytest.mark.parametrize(
    "config",
    [{}, {"quick_gelu": True}, {"custom_text": True}, COCA],
    ids=["CLIP", "QuickGELU", "custom text", "CoCa"],
)
def test_embeddings_are_open_clips_own(config, tmp_path):
    save_clip(tmp_path / "model", **config)
    encoder = load_encoder(spec(tmp_path / "model"))
    vectors = encoder.encode(PROMPTS, batch_tokens=16)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(PROMPTS), 24) == (len(PROMPTS), encoder.dim)
    np.testing.assert_allclose(vectors, library_encode(tmp_path / "model", PROMPTS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.linalg.norm(vectors[0] - vectors[1]) > 1e-3
    assert not any(name.startswith("visual.") for name in encoder.model.model.state_dict())


def test_order_and_repetition_change_no_bit_and_no_prompts_give_no_rows(folder):
    encoder = load_encoder(spec(folder))
    rows = [3, 0, 0, 5, 1, 2, 4]
    again = encoder.encode([PROMPTS[row] for row in rows], batch_tokens=16)
    np.testing.assert_array_equal(again, encoder.encode(PROMPTS, batch_tokens=16)[rows])
    assert encoder.encode([]).shape == (0, 24)


def test_the_fingerprint_tells_text_towers_apart_and_copies_not(folder, tmp_path):
    encoder = load_encoder(spec(folder))
    shutil.copytree(folder, tmp_path / "copy")
    assert load_encoder(spec(tmp_path / "copy")).fingerprint == encoder.fingerprint

    def differs(other):
        found = load_encoder(spec(other)).fingerprint
        assert found.keys() == encoder.fingerprint.keys()
        return {name for name in found if found[name] != encoder.fingerprint[name]}

    assert differs(save_clip(tmp_path / "seeded", seed=1)) == {"weights"}
    assert differs(save_clip(tmp_path / "quick", quick_gelu=True)) == {"activation"}
    shorter = save_clip(tmp_path / "shorter", text_cfg={**TEXT, "context_length": 12})
    assert differs(shorter) == {"architecture", "tokenizer", "weights"}
    assert load_encoder(spec(folder), clean="seed").fingerprint == {**encoder.fingerprint, "clean": "seed"}


def test_a_tokenizer_that_lies_with_the_model_is_used(tmp_path):
    save_encoder(tmp_path / "bert")
    config = {**TEXT, "hf_tokenizer_name": "owner/tokenizer", "vocab_size": 64, "pad_id": 0}
    folder = save_clip(tmp_path / "model", text_cfg=config)
    for path in (tmp_path / "bert").glob("*.json"):
        if path.name.startswith("tokenizer"):
            shutil.copy(path, folder)
    encoder = load_encoder(spec(folder))
    prompts = ["two red boat", "a calm sea"]
    np.testing.assert_allclose(encoder.encode(prompts), library_encode(folder, prompts), atol=1e-5)


def test_a_tokenizer_that_is_not_there_is_one_error(tmp_path):
    folder = save_clip(tmp_path / "model", text_cfg={**TEXT, "hf_tokenizer_name": "owner/tokenizer"})
    with pytest.raises(Img2PromptError, match="open_clip cannot load its tokenizer") as caught:
        load_encoder(spec(folder))
    assert "\n" not in str(caught.value)


def test_folders_that_hold_no_model_are_named(folder, tmp_path):
    with pytest.raises(UsageError, match=r"open_clip_config\.json"):
        load_encoder(spec(tmp_path))
    with pytest.raises(UsageError, match="ViT-B-32"):
        load_encoder("open_clip:ViT-B-32/laion")
    broken = shutil.copytree(folder, tmp_path / "broken")
    config = json.loads((broken / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["width"] = 20
    (broken / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(Img2PromptError, match="cannot load these weights"):
        load_encoder(spec(broken))
