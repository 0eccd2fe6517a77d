"""`Geometry` against the transforms that timm and open_clip build themselves."""

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from img2prompt_cache.errors import UsageError
from img2prompt_cache.images.geometry import Geometry

MEAN = (0.485, 0.456, 0.406)
SIZES = [
    (512, 512),
    (224, 224),
    (300, 200),
    (199, 301),
    (768, 512),
    (97, 640),
    (1, 1),
    (1, 40),
    (37, 1),
    (235, 235),
]


def noise(height, width):
    pixels = np.random.default_rng(height * 10_007 + width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def timm_config(name, **changes):
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    return {**resolve_data_config(pretrained_cfg=get_pretrained_cfg(name).to_dict()), **changes}


def timm_pixels(config, image):
    from timm.data import create_transform

    return create_transform(**config, is_training=False, normalize=False)(image).permute(1, 2, 0).numpy()


def open_clip_pixels(config, image):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
    for step in transform.transforms[:-2]:  # what is left makes the tensor and normalises it
        image = step(image)
    return np.asarray(image)


TIMM = {
    "resnet50": timm_config("resnet50.a1_in1k"),
    "vit_base": timm_config("vit_base_patch16_224.augreg2_in21k_ft_in1k"),
    "lite0": timm_config("tf_efficientnet_lite0.in1k"),
    "lite2": timm_config("tf_efficientnet_lite2.in1k"),
    "dinov2": timm_config("vit_small_patch14_dinov2.lvd142m"),
    "dinov2 at 224": timm_config("vit_small_patch14_dinov2.lvd142m", input_size=(3, 224, 224)),
    "squash": timm_config("resnet50.a1_in1k", crop_mode="squash", crop_pct=0.9),
    "squash, padded": timm_config("resnet50.a1_in1k", crop_mode="squash", crop_pct=1.2),
    "border": timm_config("resnet50.a1_in1k", crop_mode="border", interpolation="bilinear"),
    "border, whole": timm_config("resnet50.a1_in1k", crop_mode="border", crop_pct=1.0),
    "oblong": timm_config("resnet50.a1_in1k", input_size=(3, 192, 256), interpolation="lanczos"),
    "no crop_pct": timm_config("resnet50.a1_in1k", crop_pct=None, crop_mode=None),
}
OPEN_CLIP = {
    "default": {},
    "squash": {"size": 256, "resize_mode": "squash", "interpolation": "bicubic"},
    "longest": {"size": (224, 224), "resize_mode": "longest", "fill_color": 127},
    "bilinear": {"size": 336, "interpolation": "bilinear"},
    "oblong": {"size": (192, 256), "interpolation": "bilinear"},
    "oblong longest": {"size": (240, 160), "resize_mode": "longest"},
    "oblong squash": {"size": (240, 160), "resize_mode": "squash"},
}


@pytest.mark.parametrize("config", TIMM.values(), ids=TIMM)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_timm(config, size):
    if config["crop_mode"] == "border" and size in [(1, 40), (37, 1)]:
        size = (3, 40)  # timm's own transform fails where an edge would round to nothing
    image = noise(*size)
    assert np.array_equal(Geometry.from_timm(config).apply(image), timm_pixels(config, image))


@pytest.mark.parametrize("config", OPEN_CLIP.values(), ids=OPEN_CLIP)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_open_clip(config, size):
    image = noise(*size)
    assert np.array_equal(Geometry.from_open_clip(config).apply(image), open_clip_pixels(config, image))


def test_takes_open_clip_own_config_object():
    from open_clip.transform import PreprocessCfg

    config = {"size": 256, "resize_mode": "squash"}
    assert Geometry.from_open_clip(PreprocessCfg(**config)) == Geometry.from_open_clip(config)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    target=st.tuples(st.integers(8, 96), st.integers(8, 96)),
    mode=st.sampled_from(["center", "squash", "border"]),
    fraction=st.floats(0.5, 1.3),
)
@example(height=511, width=513, target=(96, 96), mode="center", fraction=0.95)
def test_equals_timm_on_any_size(height, width, target, mode, fraction):
    config = {
        "input_size": (3, *target),
        "crop_mode": mode,
        "crop_pct": fraction,
        "interpolation": "bicubic",
        "mean": MEAN,
        "std": MEAN,
    }
    geometry = Geometry.from_timm(config)
    image = noise(height, width)
    pixels = geometry.apply(image)
    assert pixels.shape == (*target, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    try:
        expected = timm_pixels(config, image)
    except ValueError:  # an edge that rounds to nothing
        assert mode == "border"
        assert max(height, width) > 16 * min(height, width)
    else:
        assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("size", [(1, 65_535), (65_535, 1), (16, 65_535), (65_535, 1000)], ids=str)
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry("shortest", (518, 518), (518, 518)),
        Geometry("shortest", (224, 224), (256, 256)),
        Geometry("longest", (224, 224), (224, 224)),
        Geometry("squash", (224, 224), (224, 224)),
    ],
    ids=Geometry.describe,
)
def test_thin_images_take_little_time(geometry, size):
    image = Image.new("RGB", size[::-1], (10, 200, 30))
    start = time.process_time()
    pixels = geometry.apply(image)
    assert (
        time.process_time() - start < 3
    )  # a tenth of it when idle; the whole resized image would take minutes
    assert pixels.shape == (*geometry.crop, 3)
    middle = pixels[(geometry.crop[0] - 1) // 2, (geometry.crop[1] - 1) // 2]
    assert middle.tolist() == [10, 200, 30]


@pytest.mark.parametrize("size", [(90, 40_000), (40_000, 90), (700, 65_535)], ids=str)
@pytest.mark.parametrize("crop", [(224, 224), (240, 250)], ids=str)
def test_part_of_a_large_resize_is_that_part(size, crop, monkeypatch):
    geometry = Geometry("shortest", (224, 224), crop, fill=(9, 9, 9))
    rows, columns = np.ogrid[: size[0], : size[1]]
    waves = [128 + 60 * np.sin(rows / (9 + c)) + 60 * np.cos(columns / (11 + c)) for c in range(3)]
    image = Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))
    monkeypatch.setattr("img2prompt_cache.images.geometry.MAX_RESIZED", 1 << 30)
    whole = geometry.apply(image)
    monkeypatch.setattr("img2prompt_cache.images.geometry.MAX_RESIZED", 1 << 22)
    assert np.prod(geometry._resized(*size)) > 1 << 22
    assert np.abs(geometry.apply(image).astype(int) - whole).max() <= 2


def test_equal_geometries_are_one_key_and_one_line():
    one = Geometry.from_timm(TIMM["vit_base"])
    same = Geometry.from_timm({**TIMM["vit_base"], "mean": (0.1, 0.2, 0.3)})
    assert {one: 1}[same] == 1
    assert one.describe() == "shortest 248x248 bicubic, crop 224x224, fill 0,0,0"
    every = {Geometry.from_timm(c) for c in TIMM.values()} | {
        Geometry.from_open_clip(c) for c in OPEN_CLIP.values()
    }
    assert len({geometry.describe() for geometry in every}) == len(every) > 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": (1, 28, 28)}, "1 channels"),
        ({"interpolation": "random"}, "unknown interpolation 'random'"),
        ({"crop_mode": "centre"}, "did you mean center"),
        ({"input_size": (3, 0, 224)}, "not possible"),
    ],
)
def test_refuses_a_timm_config_it_cannot_honour(changes, message):
    with pytest.raises(UsageError, match=message):
        Geometry.from_timm({**TIMM["resnet50"], **changes})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mode": "L"}, "takes L images"),
        ({"interpolation": "lanczos"}, "unknown interpolation 'lanczos'"),
        ({"resize_mode": "longer"}, "did you mean longest"),
    ],
)
def test_refuses_an_open_clip_config_it_cannot_honour(config, message):
    with pytest.raises(UsageError, match=message):
        Geometry.from_open_clip(config)
