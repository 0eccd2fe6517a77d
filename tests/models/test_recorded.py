"""Models as a column was made with them: its precision, revision and cleaning, and no other weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from img2prompt_cache.cache.manifest import Column, Manifest
from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones.taps import Tap, choose_taps
from img2prompt_cache.models.loader import Models
from img2prompt_cache.models.recorded import load_recorded_backbone, load_recorded_encoder
from kit import Tiny


@pytest.fixture(scope="module")
def columns(tiny: Tiny) -> dict[str, UsedColumn]:
    """Columns of a cache in bfloat16 with cleaned prompts, as a run records them."""
    models = Models(precision="bf16", clean="seed", taps=choose_taps(trunk=1, views=2))
    empty = Manifest(8, 4, (Column("rows", "", "rows", (), "text", {}),))
    found = models.declare(empty, (tiny.vit,), (tiny.encoder,)).columns[1:]
    return {column.spec.removeprefix(tiny.vit): UsedColumn.of(column) for column in found}


@pytest.mark.parametrize("suffix", ["", "#k1", "#v2", "#k1-v2"])
def test_a_backbone_computes_in_the_recorded_precision_or_the_one_asked_for(
    suffix: str, columns: dict[str, UsedColumn]
) -> None:
    column = columns[suffix]
    assert load_recorded_backbone(column).precision == "bf16"
    assert load_recorded_backbone(column, device="cpu", precision="fp32").precision == "fp32"


def test_an_encoder_cleans_as_recorded(columns: dict[str, UsedColumn], tiny: Tiny) -> None:
    assert load_recorded_encoder(columns[tiny.encoder]).clean == "seed"


@pytest.mark.parametrize("precision", [None, "fp32"])
@pytest.mark.parametrize("field", ["weights", "preprocessing", "decode", "output"])
def test_a_backbone_that_differs_is_refused(
    field: str, precision: str | None, columns: dict[str, UsedColumn]
) -> None:
    column = columns["#k1"]
    other = replace(column, fingerprint={**column.fingerprint, field: "another"})
    with pytest.raises(Img2PromptError, match=rf"column .*#k1 was made differently: {field} was another, is"):
        load_recorded_backbone(other, precision=precision)  # type: ignore[arg-type]


def test_an_encoder_that_differs_is_refused(columns: dict[str, UsedColumn], tiny: Tiny) -> None:
    column = columns[tiny.encoder]
    other = replace(column, fingerprint={**column.fingerprint, "tokenizer": "another"})
    with pytest.raises(Img2PromptError, match=r"tokenizer was another, is now .*extract into a new `cache`"):
        load_recorded_encoder(other)


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ({}, "precision was absent, is now fp32"),
        ({"precision": "auto"}, "precision was auto, is now (bf16|fp32)"),
        ({"precision": "int4"}, "unknown precision 'int4'"),
    ],
)
def test_a_record_without_a_precision_is_refused(
    recorded: dict[str, str], said: str, columns: dict[str, UsedColumn]
) -> None:
    fingerprint = {key: value for key, value in columns[""].fingerprint.items() if key != "precision"}
    with pytest.raises(Img2PromptError, match=said):
        load_recorded_backbone(replace(columns[""], fingerprint={**fingerprint, **recorded}))


def test_columns_of_one_backbone_share_it_and_those_in_another_precision_do_not(
    columns: dict[str, UsedColumn], tiny: Tiny
) -> None:
    models = Models(device="cpu")
    top = columns[""]
    assert models.backbone(top) is models.backbone(columns["#v2"])
    exact = replace(top, fingerprint={**top.fingerprint, "precision": "fp32"})
    assert models.backbone(exact).precision == "fp32"
    assert models.backbone(top).precision == "bf16"
    deeper = replace(columns["#k1"], spec=f"{tiny.vit}{Tap('k2').suffix}")
    with pytest.raises(Img2PromptError, match="output was before the last 1 blocks, float16, is now before"):
        models.backbone(deeper)
    with pytest.raises(UsageError, match="is not a spec"):
        models.backbone(replace(top, spec="vit"))
