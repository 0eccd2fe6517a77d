"""What tests are made with: small real images, small real models, passes over them."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["two", "red", "boat", "##s", "sea", "night", "at", "calm", "pixel", "art", "4k", ",", "!", "é"]


def paint(path: Path, seed: int, size: tuple[int, int] = (40, 32)) -> Path:
    """Write an image of smooth seeded colours."""
    from PIL import Image

    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def write_prompts(folder: Path, rows: dict[str, str]) -> None:
    """Write `prompts.csv`: imgId to prompt."""
    with (folder / "prompts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("imgId", "prompt"), *rows.items()])


def make_source(folder: Path, count: int, first: int = 0) -> Path:
    """A folder of `count` images with a prompt each, every third prompt used twice."""
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        paint(folder / f"img{number:03d}.png", number)
    write_prompts(folder, {f"img{n:03d}": prompt_of(n) for n in range(first, first + count)})
    return folder


def prompt_of(number: int) -> str:
    """The prompt of an image made by `make_source`."""
    number -= number % 3 == 2
    return f"{'two red boats' if number % 2 else 'a calm sea'} at night, {number} pixel art"


def save_encoder(
    folder: Path,
    *,
    seed: int = 0,
    normalize: bool = True,
    heads: int = 2,
    width: int = 16,
    words: Sequence[str] = WORDS,
) -> Path:
    """A real BERT sentence encoder of these words, small and with seeded random weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    pieces = sorted(
        {*words, *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")}
    )
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces])}
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    inner = folder.parent / f"{folder.name}-bert"
    BertModel(config).save_pretrained(inner)
    BertTokenizer(vocab=vocabulary).save_pretrained(inner)
    modules = [Transformer(str(inner), max_seq_length=32), Pooling(width, "mean")]
    SentenceTransformer(modules=[*modules, *([Normalize()] if normalize else [])], device="cpu").save(
        str(folder), create_model_card=False
    )
    shutil.rmtree(inner)
    return folder


def save_backbone(
    folder: Path,
    architecture: str = "test_resnet",
    *,
    seed: int = 0,
    size: int = 32,
    classes: Sequence[str] = (),
) -> Path:
    """A real timm model with seeded random weights, for images of `size` pixels; of named classes, if any."""
    import timm
    import torch

    torch.manual_seed(seed)
    options = {"img_size": size} if "vit" in architecture else {}
    model = timm.create_model(architecture, num_classes=len(classes), **options)
    timm.models.save_for_hf(model, folder, model_args=options or None, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"]["input_size"] = [3, size, size]
    if classes:
        config["label_names"] = [*classes]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def save_clip(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """A real CLIP model of open_clip with its whole vocabulary and seeded random weights, otherwise small."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    whole = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
        **config,
    }
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": whole, "preprocess_cfg": {}}))
    torch.manual_seed(seed)
    kind = {"multimodal_cfg": open_clip.CoCa, "custom_text": open_clip.CustomTextCLIP}
    make = next((kind[key] for key in kind if key in whole), open_clip.CLIP)
    model = make(**{key: value for key, value in whole.items() if key != "custom_text"})
    with torch.no_grad():
        for tensor in model.state_dict().values():  # so that no layer is an identity
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape), alpha=0.05)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


@dataclass
class Log:
    """A callback that keeps what it was told; a test overrides the method for the moment it waits for."""

    notes: list[str] = field(default_factory=list)
    plans: list[Any] = field(default_factory=list)
    rows: int = 0
    _done: int = 0

    def __call__(self, event: Any) -> None:
        if event.kind == "note":
            self.note(event.message)
        elif event.kind == "plan":
            self._done = 0
            self.plan(event.value)
        elif event.kind == "step" and event.done != self._done:
            rows, self._done = event.done - self._done, event.done
            self.advance(rows)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def plan(self, plan: Any) -> None:
        self.plans.append(plan)

    def advance(self, rows: int) -> None:
        self.rows += rows


@dataclass
class Stopping(Log):
    """A log that interrupts what it follows, at its so many-th step."""

    left: int = 0

    def advance(self, rows: int) -> None:
        super().advance(rows)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Tiny:
    """Small real models, and the pass over a source with them."""

    cnn: str
    vit: str
    encoder: str

    def config(self, **options: Any) -> Any:
        """What a new cache of parts of 8 rows, in batches of 4, is asked for with."""
        from img2prompt_cache.extraction.request import ExtractConfig

        defaults = {"backbones": (self.cnn,), "encoder": self.encoder, "precision": "fp32"}
        return ExtractConfig(**{**defaults, "part_rows": 8, "batch_size": 4, **options})

    def extract(
        self, source: Path, folder: Path, log: Log | None = None, *, format: str = "auto", **options: Any
    ) -> Any:
        """Run a pass; give its report."""
        from img2prompt_cache.extraction.execute import run_pass
        from img2prompt_cache.progress import ignore
        from img2prompt_cache.sources import SourceOptions, open_source

        opened = open_source(source, SourceOptions(format=format))
        return run_pass(folder, opened, self.config(**options), log or ignore)

    def arguments(self, source: Path, folder: Path) -> list[str]:
        """The same pass on the command line, with both backbones."""
        return [
            *("extract", str(source), "--cache", str(folder), "--part-rows", "8", "--batch-size", "4"),
            *("--backbone", self.cnn, "--backbone", self.vit, "--encoder", self.encoder),
        ]


def parts_of(folder: Path) -> dict[str, bytes]:
    """Every part of a cache: its name and bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/**/*.h5"))}


def run_cli(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the real command line."""
    return subprocess.run(
        [sys.executable, "-m", "img2prompt_cache.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,
    )
