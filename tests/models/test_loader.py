"""Which models a pass gets, and that they are the ones a column was made with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from img2prompt_cache.cache.manifest import Column, Manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.loader import Models
from img2prompt_cache.progress import Event
from kit import Tiny

EMPTY = Manifest(8, 4, (Column("rows", "", "rows", (), "text", {}),))


def test_columns_are_declared_with_all_they_depend_on(tiny: Tiny) -> None:
    models = Models(precision="fp32")
    manifest = models.declare(EMPTY, (tiny.cnn, tiny.vit), (tiny.encoder,))
    _, cnn, vit, targets = manifest.columns
    assert [column.kind for column in manifest.columns[1:]] == ["features", "features", "targets"]
    assert cnn.fingerprint == load_backbone(tiny.cnn).fingerprint
    assert (cnn.shape, cnn.dtype, cnn.parts) == ((load_backbone(tiny.cnn).dim,), "float16", ())
    assert (targets.shape, targets.dtype, targets.fingerprint["clean"]) == ((16,), "float32", "none")
    assert cnn.folder != vit.folder
    assert models.declare(manifest, (tiny.cnn,), (tiny.encoder,)) == manifest


def test_a_model_is_loaded_once(tiny: Tiny) -> None:
    models = Models(precision="fp32")
    manifest = models.declare(EMPTY, (tiny.cnn,), (tiny.encoder,))
    models.load(manifest.columns)
    assert models.backbone(manifest.columns[1]) is models.backbone(manifest.columns[1])
    assert models.encoder(manifest.columns[2]) is models.encoder(manifest.columns[2])


def test_a_cached_column_gets_the_settings_it_was_made_with(tiny: Tiny) -> None:
    made = Models(precision="bf16", clean="seed").declare(EMPTY, (tiny.cnn,), (tiny.encoder,))
    models = Models()
    models.load(made.columns)
    assert models.backbone(made.columns[1]).precision == "bf16"
    assert models.encoder(made.columns[2]).clean == "seed"
    # What is asked for is for columns that are new.
    both = Models(precision="fp32").declare(made, (tiny.vit,), ())
    assert [column.fingerprint["precision"] for column in both.of_kind("features")] == ["bf16", "fp32"]


def test_auto_takes_the_short_format_only_where_it_will_do(
    tiny: Tiny, shaky: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("img2prompt_cache.models.devices.has_bf16", lambda device: True)
    notes: list[Event] = []
    models = Models(precision="auto", device="cpu")
    manifest = models.declare(EMPTY, (tiny.vit, shaky), (), notes.append)
    made = {column.spec: column for column in manifest.of_kind("features")}
    assert {spec: column.fingerprint["precision"] for spec, column in made.items()} == {
        tiny.vit: "bf16",
        shaky: "fp32",
    }
    (note,) = notes
    assert note.kind == "note"
    assert note.message.startswith(
        f"{shaky} computes in fp32, because its features in bf16 have a mean cosine of "
    )
    for spec, column in made.items():
        plain = load_backbone(spec, precision="fp32" if spec == shaky else "bf16")
        pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
        np.testing.assert_array_equal(models.backbone(column).encode(pixels), plain.encode(pixels))
    # What was settled stays, and what is asked for is given.
    assert models.declare(manifest, (tiny.vit, shaky), (), notes.append) == manifest
    asked = Models(precision="bf16").declare(EMPTY, (shaky,), (), notes.append)
    assert asked.columns[1].fingerprint["precision"] == "bf16"
    assert len(notes) == 1


@pytest.mark.parametrize(
    "field", ["weights", "preprocessing", "decode", "architecture", "activation", "library"]
)
def test_every_field_that_differs_is_refused(field: str, made: Path, tiny: Tiny) -> None:
    column = Cache(made).column("features", tiny.cnn)
    other = replace(column, fingerprint={**column.fingerprint, field: "another"})
    with pytest.raises(Img2PromptError, match=f"timm:.* made differently: {field} was another, is now"):
        Models().load([other])
    targets = Cache(made).column("targets", tiny.encoder)
    other = replace(targets, fingerprint={**targets.fingerprint, "tokenizer": "another"})
    with pytest.raises(Img2PromptError, match=r"st:.* made differently: tokenizer was another, is now"):
        Models().load([other])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbones": ("resnet50",)}, "'resnet50' is not a spec"),
        ({"encoder": "timm:x"}, "unknown encoder family 'timm'"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"clean": "wash"}, "unknown `clean` rule 'wash'"),
    ],
)
def test_a_wrong_option_is_told(options: dict[str, Any], said: str, tiny: Tiny) -> None:
    backbones, encoder = options.pop("backbones", (tiny.cnn,)), options.pop("encoder", tiny.encoder)
    with pytest.raises(UsageError, match=said):
        Models(**options).declare(EMPTY, backbones, (encoder,))
