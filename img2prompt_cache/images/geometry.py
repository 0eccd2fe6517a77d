"""Geometry: how a decoded image is resized and cropped to the input of a model.

Bit-exact with the evaluation transforms that timm (`timm.data.create_transform`) and open_clip
(`open_clip.image_transform_v2`) build for a PIL image, up to the point where it becomes a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from img2prompt_cache.errors import UsageError, unknown

Resize = Literal["shortest", "longest", "squash"]

MAX_RESIZED = 1 << 24
"""Largest resized image, in pixels, that is computed whole; of larger ones, only the cropped part is."""

_INTERPOLATIONS = tuple(member.name.lower() for member in Image.Resampling)


@dataclass(frozen=True, slots=True)
class Geometry:
    """A resize and a centre crop; equal geometries give equal pixels.

    Attributes
    ----------
    resize : {"shortest", "longest", "squash"}
        Resize, keeping the aspect ratio, so that the image just covers `size`, or just fits into it; or
        resize to exactly `size`.
    size : tuple of int
        Target height and width of the resize, in pixels.
    crop : tuple of int
        Height and width of the result. It is cropped from the centre, and padded if the image is smaller.
    interpolation : str
        A filter of `PIL.Image.Resampling`, in lower case.
    fill : tuple of int
        The colour of the padding, 0…255 each.
    """

    resize: Resize
    size: tuple[int, int]
    crop: tuple[int, int]
    interpolation: str = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        """Refuse values that no image can be resized to."""
        if self.interpolation not in _INTERPOLATIONS:
            raise unknown("interpolation", self.interpolation, _INTERPOLATIONS)
        if min(*self.size, *self.crop) < 1:
            raise UsageError(f"an input size of {self.crop} (resized to {self.size}) is not possible")

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Geometry:
        """Read a data config, as `timm.data.resolve_data_config` returns it.

        Parameters
        ----------
        config : mapping
            With `input_size` and `interpolation`, and with `crop_pct`, `crop_mode` and `mean` if they are not
            the defaults.

        Raises
        ------
        UsageError
            If the model does not take RGB images, or the interpolation or crop mode is random or unknown.
        """
        channels, height, width = config["input_size"]
        if channels != 3:
            raise UsageError(f"the model takes {channels} channels; only RGB models can be used")
        fraction = config.get("crop_pct") or 0.875  # timm.data.constants.DEFAULT_CROP_PCT
        size = (math.floor(height / fraction), math.floor(width / fraction))
        mode = config.get("crop_mode") or "center"
        if mode not in _RESIZE_OF_CROP_MODE:
            raise unknown("crop mode", mode, _RESIZE_OF_CROP_MODE)
        resize = _RESIZE_OF_CROP_MODE[mode]
        if resize == "longest":
            red, green, blue = (round(255 * value) for value in config["mean"])
            return cls(resize, size, (height, width), config["interpolation"], (red, green, blue))
        return cls(resize, size, (height, width), config["interpolation"])

    @classmethod
    def from_open_clip(cls, config: Any) -> Geometry:
        """Read an open_clip preprocessing config.

        Parameters
        ----------
        config : open_clip.transform.PreprocessCfg or mapping
            Keys that a mapping lacks have open_clip's defaults.

        Raises
        ------
        UsageError
            If the mode is not RGB, or open_clip does not know the resize mode or the interpolation.
        """
        given = asdict(config) if is_dataclass(config) and not isinstance(config, type) else dict(config)
        if given.get("mode", "RGB") != "RGB":
            raise UsageError(f"the model takes {given['mode']} images; only RGB models can be used")
        interpolation = given.get("interpolation") or "bicubic"
        if interpolation not in _OPEN_CLIP_INTERPOLATIONS:
            raise unknown("interpolation", interpolation, _OPEN_CLIP_INTERPOLATIONS)
        resize: Resize = given.get("resize_mode") or "shortest"
        if resize not in _RESIZE_OF_CROP_MODE.values():
            raise unknown("resize mode", resize, _RESIZE_OF_CROP_MODE.values())
        size = _pair(given.get("size", 224))
        if resize == "shortest" and size[0] != size[1]:
            interpolation = "bicubic"  # open_clip ignores its setting for inputs that are not square
        grey = given.get("fill_color", 0) if resize == "longest" else 0
        return cls(resize, size, size, interpolation, (grey, grey, grey))

    def apply(self, image: Image.Image) -> np.ndarray:
        """Resize and crop.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB, as `decode` returns it.

        Returns
        -------
        numpy.ndarray, uint8, shape (height, width, 3)
            C-contiguous, writable, of the size `crop`. If the resized image would have more than
            `MAX_RESIZED` pixels, because it is very long and thin, only its cropped part is computed, and
            pixels may differ by rounding.
        """
        height, width = self._resized(image.height, image.width)
        y, rows, top = _window(height, self.crop[0])
        x, columns, left = _window(width, self.crop[1])
        resample = Image.Resampling[self.interpolation.upper()]
        if (height, width) == (image.height, image.width):
            part = image.crop((x, y, x + columns, y + rows))
        elif height * width <= MAX_RESIZED:
            resized = image.resize((width, height), resample)
            part = resized.crop((x, y, x + columns, y + rows))
        else:
            down, across = image.height / height, image.width / width
            right, bottom = min((x + columns) * across, image.width), min((y + rows) * down, image.height)
            part = image.resize((columns, rows), resample, box=(x * across, y * down, right, bottom))
        if (rows, columns) == self.crop:
            return np.array(part)
        pixels = np.empty((*self.crop, 3), np.uint8)
        pixels[:] = self.fill
        pixels[top : top + rows, left : left + columns] = np.asarray(part)
        return pixels

    def describe(self) -> str:
        """Describe the geometry in one line; two geometries have the same line exactly if they are equal."""
        (height, width), (rows, columns) = self.size, self.crop
        fill = ",".join(map(str, self.fill))
        return f"{self.resize} {height}x{width} {self.interpolation}, crop {rows}x{columns}, fill {fill}"

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Compute the size of the whole resized image, at least 1, rounded as timm and open_clip do."""
        if self.resize == "squash":
            return self.size
        if self.resize == "shortest" and self.size[0] == self.size[1]:  # torchvision's Resize(int)
            short, long = sorted((height, width))
            longer = int(self.size[0] * long / short)
            return (self.size[0], longer) if height <= width else (longer, self.size[0])
        ratios = (height / self.size[0], width / self.size[1])  # ResizeKeepRatio
        ratio = max(ratios) if self.resize == "longest" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))


_RESIZE_OF_CROP_MODE: dict[str, Resize] = {"center": "shortest", "border": "longest", "squash": "squash"}
_OPEN_CLIP_INTERPOLATIONS = ("bicubic", "bilinear")


def _window(length: int, crop: int) -> tuple[int, int, int]:
    """Compute along one axis where the crop starts in the image, its length, and its start in the result."""
    if length < crop:
        return 0, length, (crop - length) // 2
    return round((length - crop) / 2), crop, 0


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return int(size[0]), int(size[-1])
