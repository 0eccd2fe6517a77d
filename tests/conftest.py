"""What tests share: models small enough to run in milliseconds, images, and a cache made of them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chromium import start_chromium
from kit import Log, Tiny, make_source, prompt_of, save_backbone, save_encoder, write_prompts
from synthetic import SETTINGS, make_cache

GOOD, TWINS = 20, ((3, 17), (4, 5))
BAD = {"empty": b"", "words": b"this is no image", "cut": None}


@pytest.fixture(scope="session", autouse=True)
def plain_targets() -> Iterator[pytest.MonkeyPatch]:
    """No pass adds MiniLM beside the targets of a small encoder, so that none depends on real weights.

    A test of that column undoes it: `extraction.grouping_column` itself is as it is. Tests that make a
    cache in another process take `no_weights`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "img2prompt_cache.extraction.plan.add_grouping_column", lambda manifest, *_, **__: manifest
        )
        yield patch


@pytest.fixture
def no_weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pre-trained weights are on this machine, for this process and those that it starts."""
    empty = str(tmp_path_factory.mktemp("home"))
    for name in ("IMG2PROMPT_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, empty)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("models")
    return Tiny(
        cnn=f"timm:local-dir:{save_backbone(folder / 'cnn')}",
        vit=f"timm:local-dir:{save_backbone(folder / 'vit', 'test_vit')}",
        encoder=f"st:local-dir:{save_encoder(folder / 'encoder')}",
    )


@pytest.fixture(scope="session")
def shaky(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ViT that bfloat16 does not suit: its norms take away a constant too large for the rest to be kept."""
    from safetensors.torch import load_file, save_file

    folder = save_backbone(tmp_path_factory.mktemp("models") / "shaky", "test_vit")
    weights = load_file(folder / "model.safetensors")
    weights["pos_embed"] += 3000
    save_file(weights, folder / "model.safetensors")
    return f"timm:local-dir:{folder}"


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window, driven by Playwright; a test that takes it is marked `browser`."""
    with start_chromium() as started:
        yield started


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 images: 20 good, two pairs of them identical, one without prompt; 3 bad. Three parts of 8 rows."""
    folder = make_source(tmp_path_factory.mktemp("pairs") / "images", GOOD)
    for one, other in TWINS:
        shutil.copy(folder / f"img{one:03d}.png", folder / f"img{other:03d}.png")
    for name, data in BAD.items():
        whole = (folder / "img001.png").read_bytes()
        (folder / f"{name}.png").write_bytes(whole[: len(whole) // 2] if data is None else data)
    prompts = {f"img{n:03d}": prompt_of(n) for n in range(GOOD - 1)}
    write_prompts(folder, {**prompts, **dict.fromkeys(BAD, "bad")})
    return folder


@pytest.fixture(scope="session")
def made(tiny: Tiny, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole cache of `pairs`; to be read only."""
    folder = tmp_path_factory.mktemp("made") / "cache"
    tiny.extract(pairs, folder)
    return folder


@pytest.fixture(scope="session")
def tuned(tiny: Tiny, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of `pairs` with trunks and views of its ViT, and none of its CNN; to be read only."""
    from img2prompt_cache.models.backbones.taps import choose_taps

    folder = tmp_path_factory.mktemp("tuned") / "cache"
    tiny.extract(pairs, folder, backbones=(tiny.vit,), taps=choose_taps(trunk=2, views=2))
    tiny.extract(pairs, folder, backbones=(tiny.vit,), taps=choose_taps(trunk=2, trunk_dtype="int8"))
    tiny.extract(pairs, folder, backbones=(tiny.vit,), taps=choose_taps(trunk=1))
    tiny.extract(pairs, folder, backbones=(tiny.cnn,))
    return folder


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    """A copy of `made`, to be changed at will."""
    return shutil.copytree(made, tmp_path / "cache")


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of made-up features with a run of each of `SETTINGS`; to be read only."""
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.fitting.config import FitConfig
    from img2prompt_cache.fitting.single import fit_head

    folder = make_cache(tmp_path_factory.mktemp("runs") / "cache")
    for head, settings in SETTINGS.items():
        fit_head(Cache(folder), FitConfig(head, settings))
    return folder


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Path:
    """A copy of the ridge run, inside its own cache."""
    copy = shutil.copytree(fitted, tmp_path / "cache")
    return copy / "runs" / "ridge-one+other-01"


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What chooses a device is told that there is a GPU: using it fails."""
    import torch

    from img2prompt_cache.models import devices

    real = torch.cuda.is_available

    def is_available() -> bool:
        return sys._getframe(1).f_globals["__name__"] == devices.__name__ or real()

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: False)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A model hub on this machine, which the token of this process may write to."""
    from img2prompt_cache.models.weights import hub as asking
    from model_hub import TOKEN, point_at, serving

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(asking, "ASK_SECONDS", 60.0)  # the machine may be busy
    with serving() as running:
        point_at(running, monkeypatch, tmp_path / "hub")
        yield running
