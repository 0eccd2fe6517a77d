from __future__ import annotations

import pytest

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.specs import ENCODER_FAMILIES, PRESETS, Spec, parse_spec


def test_a_spec_is_a_family_and_a_name() -> None:
    assert parse_spec(" timm:hf-hub:owner/name@main ") == Spec("timm", "hf-hub:owner/name@main")
    assert str(parse_spec("st:all-MiniLM-L6-v2", ENCODER_FAMILIES)) == "st:all-MiniLM-L6-v2"


def test_every_preset_is_made_of_specs() -> None:
    for backbones, encoder in PRESETS.values():
        assert [str(parse_spec(spec)) for spec in backbones] == list(backbones)
        parse_spec(encoder, ENCODER_FAMILIES)


@pytest.mark.parametrize("text", ["resnet50", "timm:", ":resnet50", "", "/models/resnet50"])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"family:name|family ''"):
        parse_spec(text)


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown backbone family 'openclip'; did you mean open_clip"):
        parse_spec("openclip:ViT-B-32")
    with pytest.raises(UsageError, match="unknown encoder family 'timm'"):
        parse_spec("timm:resnet50", ENCODER_FAMILIES)
