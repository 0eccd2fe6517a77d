from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting.columns import choose_columns, preferred_features, stands_in
from img2prompt_cache.heads import make_head
from synthetic import make_cache


class _Cached:
    """Names of cached columns."""

    def __init__(self, *specs):
        self.manifest = self
        self.specs = specs

    def of_kind(self, kind):
        return [SimpleNamespace(spec=spec) for spec in self.specs]


RESNET, LITE = "timm:resnet50.a1_in1k", "packaged:efficientnet-lite0"
VIT, CLIP = "timm:vit_base_patch16_224.augreg2_in21k_ft_in1k", "open_clip:ViT-B-32/laion2b_s34b_b79k"
SALIENCY = "packaged:vit-small-saliency"


@pytest.mark.parametrize(
    ("head", "specs", "wanted", "stands"),
    [
        ("seed-resnet50", (CLIP, LITE, "timm:resnet18.a1_in1k", RESNET), RESNET, ""),
        ("seed-resnet50", (CLIP, LITE, "timm:resnet18.a1_in1k"), "timm:resnet18.a1_in1k", "ResNet50"),
        ("seed-tuned-resnet", (SALIENCY, LITE), LITE, "ResNet50"),
        ("seed-tuned-resnet", ("timm:wide_resnet50_2",), "timm:wide_resnet50_2", "ResNet50"),
        ("seed-resnet50", (f"{RESNET}#levels", "open_clip:RN50/openai"), "open_clip:RN50/openai", "ResNet50"),
        ("seed-vit", (CLIP, SALIENCY, VIT), VIT, ""),
        ("seed-vit", (LITE, CLIP, SALIENCY), SALIENCY, "ViT-B/16"),
        ("seed-vit", (LITE, CLIP), CLIP, "ViT-B/16"),
    ],
)
def test_a_head_of_one_backbone_takes_its_own_or_what_stands_in(head, specs, wanted, stands):
    assert preferred_features(_Cached(*specs), make_head(head)) == (wanted,)
    assert stands_in(make_head(head), wanted) == stands


def test_other_heads_take_every_backbone_and_a_backbone_that_cannot_stand_in_is_not_taken():
    assert preferred_features(_Cached(RESNET, VIT), make_head("ridge")) == ()
    assert stands_in(make_head("ridge"), LITE) == ""
    with pytest.raises(
        UsageError, match=r"seed-vit takes ViT-B/16 or another ViT or a CLIP ViT, and none .*lite0"
    ):
        preferred_features(_Cached(LITE), make_head("seed-vit"))


@pytest.mark.parametrize(
    ("head", "suffixes"),
    [
        ("kernel", ("", "#multi", "#names", "#squash", "#multi-squash")),
        *((head, ("",)) for head in ("ridge", "knn", "nearest", "mlp", "linear", "mean")),
    ],
)
def test_the_kernel_takes_every_block_and_other_heads_pooled_features(head, suffixes, tmp_path):
    cache = Cache(make_cache(tmp_path / "cache"))
    ends = ("", "#multi", "#names", "#squash", "#multi-squash")
    one, other, targets = cache.manifest.columns[1:]
    columns = [replace(one, spec=f"timm:one{end}", folder=f"features/one{end[1:]}") for end in ends]
    # Levels as version 0.1 made them are taken as they were then.
    columns += [other, replace(other, spec="timm:other#levels", folder="features/levels"), targets]
    cache.manifest = replace(cache.manifest, columns=(cache.manifest.columns[0], *columns))
    taken, _ = choose_columns(cache, make_head(head), ())
    old = ("timm:other", "timm:other#levels")
    assert tuple(column.spec for column in taken) == (*(f"timm:one{end}" for end in suffixes), *old)
    named, _ = choose_columns(cache, make_head(head), ("timm:one#names",))
    assert [column.spec for column in named] == ["timm:one#names"]
