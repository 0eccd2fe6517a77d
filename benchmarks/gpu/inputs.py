"""The run's files: images with prompts, checkpoints with seeded random weights, a target encoder."""

from __future__ import annotations

import csv
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from setting import NAMES, Notes, Setting, seconds
from vs_clip_retrieval import picture

TIMM = {"resnet50": ("resnet50", "test_resnet"), "vit_b_16": ("vit_base_patch16_224", "test_vit")}
CLIP = {"clip_b_32": "ViT-B-32", "clip_l_14": "ViT-L-14"}


def measure(setting: Setting, notes: Notes) -> None:
    """Make everything; the time it takes is kept too."""
    with ProcessPoolExecutor(max_workers=None if not setting.small else 2) as pool:
        pending = {name: pool.submit(checkpoint, setting, name) for name in NAMES}
        pending["encoder"] = pool.submit(encoder, setting)
        images = list(range(setting.images))
        pool_done = pool.map(draw, [setting.source / "images"] * len(images), images, chunksize=8)
        notes.add("images_s", seconds(lambda: list(pool_done), repeats=1, warm=0))
        write_prompts(setting)
        for name, made in pending.items():
            notes.add(name, made.result())
    sizes: dict[str, list[int]] = {}
    for path in (setting.source / "images").iterdir():
        sizes.setdefault(path.suffix, []).append(path.stat().st_size)
    notes.add("mean_bytes", {kind: sum(each) / len(each) for kind, each in sizes.items()})


def draw(folder: Path, number: int) -> None:
    """Write one image of 512 px: even numbers as PNG, odd ones as JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    form, options = (("png", {}), ("jpg", {"quality": 90}))[number % 2]
    picture(number).save(folder / f"i{number:05d}.{form}", **options)


def prompts(count: int) -> list[str]:
    """Distinct prompts of the demo's words."""
    from img2prompt_cache.images.scenes.words import sample_scenes

    return [f"{scene.prompt}, variation {i}" for i, scene in enumerate(sample_scenes(count, 0))]


def write_prompts(setting: Setting) -> None:
    with (setting.source / "prompts.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(f"i{i:05d}", prompt) for i, prompt in enumerate(prompts(setting.images))]
        csv.writer(file).writerows([("imgId", "prompt"), *rows])


def checkpoint(setting: Setting, name: str) -> str:
    """Save a backbone with seeded random weights."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    place = setting.work / name
    place.mkdir(parents=True, exist_ok=True)
    if name in TIMM:
        import timm

        architecture = TIMM[name][setting.small]
        model = timm.create_model(architecture, num_classes=0)
        (place / "config.json").write_text(json.dumps({"architecture": architecture, "num_classes": 0}))
        save_file(model.state_dict(), place / "model.safetensors")
        return architecture
    import open_clip

    config: Any = open_clip.get_model_config(CLIP[name])
    if setting.small:
        config["vision_cfg"] |= {"layers": 2, "width": 64}
        config["text_cfg"] |= {"layers": 1, "width": 64, "heads": 1}
    model = open_clip.CLIP(**config)
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    (setting.work / "architectures").mkdir(exist_ok=True)
    (setting.work / "architectures" / f"{name}.json").write_text(json.dumps(config))
    save_file(model.state_dict(), place / "open_clip_model.safetensors")
    torch.save(model.state_dict(), place.with_suffix(".pt"))
    return CLIP[name]


def encoder(setting: Setting) -> str:
    """Save a sentence encoder of the size of all-MiniLM-L6-v2 whose words are those of the prompts."""
    import re

    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.!'-"
    words = {word for prompt in prompts(2000) for word in re.findall(r"[a-z]+", prompt.lower())}
    pieces = sorted({*words, *letters, *(f"##{letter}" for letter in letters)})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces])}
    torch.manual_seed(0)
    size = (
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        if setting.small
        else {
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
        }
    )
    inner = setting.work / "bert"
    BertModel(BertConfig(vocab_size=30522, max_position_embeddings=512, **size)).save_pretrained(inner)
    BertTokenizer(vocab=vocabulary).save_pretrained(inner)
    modules = [Transformer(str(inner), max_seq_length=256), Pooling(size["hidden_size"], "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(
        str(setting.work / "encoder"), create_model_card=False
    )
    return f"{len(vocabulary)} words"
