"""What a column keeps, and that its spec says it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.errors import UsageError
from img2prompt_cache.images.augment import SQUASHED, View
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.build import shape_of
from img2prompt_cache.models.backbones.taps import Tap, choose_taps, split_spec
from kit import Tiny, save_backbone

TAPS = st.builds(
    lambda stored, views, flip, squash: Tap(
        *stored, views, flip and views > 0, squash and not views and not stored[0].startswith("k")
    ),
    st.one_of(
        st.just(("", "float16")),
        st.sampled_from([("levels", "float16"), ("multi", "float16"), ("names", "float16")]),
        st.tuples(st.integers(1, 9999).map("k{}".format), st.sampled_from(["float16", "int8"])),
    ),
    st.integers(0, 64),
    st.booleans(),
    st.booleans(),
)


@given(base=st.sampled_from(["timm:a.b_c@rev", "open_clip:ViT-B-32/x", "timm:local-dir:/a#b/c"]), tap=TAPS)
def test_the_spec_of_a_column_tells_all(base: str, tap: Tap) -> None:
    assert split_spec(f"{base}{tap.suffix}") == (base, tap)


@given(one=TAPS, other=TAPS)
def test_no_two_columns_share_a_spec_and_what_differs_has_another_fingerprint(one: Tap, other: Tap) -> None:
    assert (one == other) == (one.suffix == other.suffix) == (one.fingerprint == other.fingerprint)


@pytest.mark.parametrize(
    "spec",
    ["timm:a", "timm:a#", "timm:a#k0", "timm:a#k", "timm:a#int8", "timm:a#-v2", "timm:a#levels-int8",
     "timm:a#v0", "timm:a#v2-k2", "timm:a#levelsv2", "#levels", "timm:a#v2f2", "timm:a#k2-squash",
     "timm:a#squash-v2", "timm:a#-squash"],
)  # fmt: skip
def test_any_other_spec_is_a_backbone(spec: str) -> None:
    assert split_spec(spec) == (spec, Tap())


def test_kinds_and_inputs() -> None:
    assert [Tap(name).kind for name in ("", "levels", "k3")] == ["features", "features", "trunk"]
    assert {Tap(name, views=2).kind for name in ("", "levels", "k3")} == {"views"}
    assert Tap("k3").inputs == (None,)
    assert Tap(views=2, flip=True).inputs == (View(0, flip=True), View(1, flip=True))
    # More views begin with the same ones.
    assert Tap(views=4).inputs[:2] == Tap(views=2).inputs
    assert Tap("multi", squash=True).inputs == (SQUASHED,)
    assert {Tap(name, squash=True).kind for name in ("", "multi", "names")} == {"features"}
    assert Tap().suffix == ""
    assert Tap().fingerprint == {}


def test_choices_become_columns() -> None:
    def suffixes(**options: object) -> list[str]:
        return [tap.suffix for tap in choose_taps(**options)]  # type: ignore[arg-type]

    assert suffixes() == []
    assert suffixes(trunk=2) == ["#k2"]
    assert suffixes(levels="multi", trunk=3, trunk_dtype="int8") == ["#multi", "#k3-int8"]
    assert suffixes(levels="multi", names=True) == ["#multi", "#names"]
    assert suffixes(levels="multi", names=True, second_view="squash", trunk=1, views=2) == [
        "#multi", "#names", "#k1", "#squash", "#multi-squash", "#names-squash",
        "#v2", "#multi-v2", "#names-v2", "#k1-v2"
    ]  # fmt: skip
    assert suffixes(views=4) == ["#v4"]
    assert suffixes(views=4, flip=True, levels="multi", trunk=1) == [
        "#multi", "#k1", "#v4f", "#multi-v4f", "#k1-v4f"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trunk": -1}, "`trunk` is the number of blocks after the cut, at least 1, not -1"),
        ({"trunk_dtype": "int4"}, "unknown `trunk_dtype` 'int4'; did you mean int8"),
        ({"levels": "mult"}, "unknown `levels` 'mult'; did you mean multi"),
        ({"second_view": "squashed"}, "unknown `second_view` 'squashed'; did you mean squash"),
        ({"views": 65}, "`views` is a number of views, 64 at most, not 65"),
        ({"flip": True}, "`flip=True` mirrors views; give their number as `views`"),
    ],
)
def test_a_wrong_choice_is_told(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose_taps(**options)  # type: ignore[arg-type]


def test_shapes_are_those_of_the_values(tiny: Tiny) -> None:
    vit, cnn = load_backbone(tiny.vit), load_backbone(tiny.cnn)
    assert shape_of(vit, Tap("k2")) == (5, 64)
    assert shape_of(cnn, Tap("k1")) == (2, 2, 192)
    assert shape_of(cnn, Tap("k1", "int8", 3)) == (3, 2, 2, 192)
    assert shape_of(vit, Tap("levels")) == (2 * 4 * 64,)
    assert shape_of(vit, Tap(views=2)) == (2, vit.dim)


def test_a_model_that_cannot_be_tapped_is_refused_by_name(tiny: Tiny, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"local-dir.*/vit: .*before the last 7 blocks .* it has 6"):
        shape_of(load_backbone(tiny.vit), Tap("k7"))
    folder = save_backbone(tmp_path_factory.mktemp("models") / "convnext", "test_convnext")
    backbone = load_backbone(f"timm:local-dir:{folder}")
    assert shape_of(backbone, Tap("multi")) == (2 * (64 + 48 + 32 + 24),)
    for tap in (Tap("k1"), Tap("levels")):
        with pytest.raises(UsageError, match=r"convnext: a ConvNeXt cannot be cut"):
            shape_of(backbone, tap)
    assert shape_of(backbone, Tap(views=2)) == (2, backbone.dim)


def test_a_model_that_computes_otherwise_than_its_class_is_refused(tiny: Tiny) -> None:
    from timm.models.vision_transformer import VisionTransformer

    class Doubled(VisionTransformer):
        def forward_features(self, x, **options):  # type: ignore[no-untyped-def]
            return 2 * super().forward_features(x, **options)

    backbone = load_backbone(tiny.vit)
    backbone.model.__class__ = Doubled
    with pytest.raises(UsageError, match=r"/vit: a Doubled of timm [\d.]+.* cannot be cut into blocks"):
        shape_of(backbone, Tap("k1"))
