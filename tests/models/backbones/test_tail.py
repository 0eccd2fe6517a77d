"""Trainable tails: the model's own last blocks, checked against the trunk column."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.tail import load_tail
from img2prompt_cache.models.backbones.taps import Tap
from kit import Tiny
from trunks import column_of, trunk_values


@pytest.mark.parametrize("which", ["cnn", "vit"])
@pytest.mark.parametrize(("k", "blocks"), [(1, None), (3, None), (3, 1), (3, 3)])
def test_middle_and_tail_go_on_to_the_features(tiny: Tiny, which: str, k: int, blocks: int | None) -> None:
    spec = getattr(tiny, which)
    backbone = load_backbone(spec)
    found = load_tail(column_of(spec, k, "bf16"), blocks)
    assert len(found.tail.blocks) == (blocks or k)
    assert found.width == backbone.dim
    images = torch.randn(2, 3, *backbone.geometry.crop, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        values = trunk_values(backbone.model, images, k)
        assert values.shape[1:] == found.shape
        torch.testing.assert_close(
            found.tail(found.middle(values)), backbone.model(images), rtol=1e-5, atol=1e-5
        )
    assert not any(p.requires_grad for part in (found.middle, found.tail) for p in part.parameters())


def test_depths_count_from_the_end(tiny: Tiny) -> None:
    found = load_tail(column_of(tiny.vit, 3))
    depths = found.depths()
    assert depths.keys() == {name for name, _ in found.tail.named_parameters()}
    for at, depth in enumerate((3, 2, 1)):
        assert {depths[name] for name in depths if name.startswith(f"blocks.{at}.")} == {depth}
    assert {depths[name] for name in depths if name.startswith("head.")} == {1}


def test_a_fresh_tail_is_a_copy_that_can_be_trained(tiny: Tiny) -> None:
    found = load_tail(column_of(tiny.vit, 1))
    fresh = found.fresh()
    assert all(p.requires_grad for p in fresh.parameters())
    with torch.no_grad():
        for p in fresh.parameters():
            p.zero_()
    assert any(p.abs().sum() > 0 for p in found.tail.parameters())


def test_columns_that_do_not_fit_are_refused(tiny: Tiny) -> None:
    column = column_of(tiny.cnn, 2)
    with pytest.raises(UsageError, match="before the last 2 blocks, so 3 cannot be trained"):
        load_tail(column, 3)
    for spec in (tiny.cnn, f"{tiny.cnn}#levels", f"{tiny.cnn}#k2-v3"):
        with pytest.raises(UsageError, match="is no trunk column"):
            load_tail(replace(column, spec=spec))
    with pytest.raises(Img2PromptError, match="which it never gives"):
        load_tail(replace(column, shape=(1 << 40, 8, 8)))
    other = {**column.fingerprint, "weights": "sha256:other"}
    with pytest.raises(Img2PromptError, match="weights was sha256:other, is now"):
        load_tail(replace(column, fingerprint=other))
    deeper = {**column.fingerprint, **Tap("k9").fingerprint}
    with pytest.raises(UsageError, match="not possible: it has 4"):
        load_tail(replace(column, spec=f"{tiny.cnn}#k9", fingerprint=deeper))
