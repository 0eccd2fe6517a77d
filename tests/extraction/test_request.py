"""Which columns a new cache gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from img2prompt_cache.errors import UsageError
from img2prompt_cache.extraction.request import ExtractConfig, choose_columns
from img2prompt_cache.models.specs import PRESETS


def test_a_preset_gives_what_is_not_named() -> None:
    backbones, encoder = PRESETS["packaged"]
    reason = {"name": "packaged", "reason": "asked for"}
    assert choose_columns(ExtractConfig(preset="packaged")) == (backbones, encoder, reason)
    assert choose_columns(ExtractConfig(preset="packaged", encoder="st:x")) == (backbones, "st:x", reason)
    assert choose_columns(ExtractConfig(preset="packaged", backbones=("timm:x",))) == (
        ("timm:x",),
        encoder,
        reason,
    )
    assert choose_columns(ExtractConfig(backbones=("timm:x",), encoder="st:x")) == (("timm:x",), "st:x", None)


def test_auto_is_decided_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    backbones, encoder, preset = choose_columns(ExtractConfig())
    assert preset["name"] == "packaged"
    assert preset["reason"] not in ("", "asked for")
    assert (backbones, encoder) == PRESETS["packaged"]


def test_an_unknown_preset_names_the_nearest_even_where_it_has_no_say() -> None:
    for backbones in ((), ("timm:x",)):
        with pytest.raises(UsageError, match="unknown preset 'standart'; did you mean standard"):
            choose_columns(ExtractConfig(preset="standart", backbones=backbones, encoder="st:x"))
