"""What the days share: small models, and a day to begin."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from day import EXTERNAL, IMAGES, NAMES, WIDTH, Day, prompts
from kit import save_backbone, save_encoder

CLASSES = ("a boat", "the sea", "a castle")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models; the encoder tells prompts apart by their words."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("stand-ins")
    cnn, other, vit, encoder = (folder / name for name in NAMES)
    save_backbone(cnn, classes=CLASSES)
    save_backbone(other, seed=1)
    save_backbone(vit, "test_vit")
    words = sorted({*re.findall(r"\w+|[^\w\s]", " ".join(prompts(IMAGES, EXTERNAL)))})
    save_encoder(encoder, words=words, width=WIDTH)
    weights = load_file(encoder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] *= 10
    save_file(weights, encoder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def begin(models: Path, tmp_path: Path) -> Callable[[str], Day]:
    """Begin the day of a section of the page."""
    return lambda name: Day(name, models, tmp_path)
