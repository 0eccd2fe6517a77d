"""Pictures of a report: images decoded within bounds, measured, and made into small thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.errors import ImageError
from img2prompt_cache.extraction.threads import map_in_order
from img2prompt_cache.images.decode import decode, image_format
from img2prompt_cache.progress import Callback, ignore, task
from img2prompt_cache.reporting.rows import Rows

if TYPE_CHECKING:
    from PIL import Image

SIDE = 128
"""Pixels of the longer side of a thumbnail."""
QUALITY = 60
EMBEDDED_BYTES = 5 << 20
"""Most bytes of all thumbnails of a page, as base64; the rest of a page takes about 1 MB."""
THREADS = 2


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a report shows it.

    Attributes
    ----------
    format : str
        ``"PNG"``, ``"JPEG"`` and the like, by its first bytes.
    width, height : int
        As it is shown, with the EXIF orientation applied.
    file_bytes : int
        Of the file.
    brightness : float
        Mean luma, 0…1.
    colourfulness : float
        After Hasler and Süsstrunk (2003), "Measuring colourfulness in natural images": 0 is grey, 33
        moderate, 109 extreme.
    colour : tuple of int
        Mean red, green and blue, 0…255.
    thumbnail : bytes
        WebP.
    """

    format: str
    width: int
    height: int
    file_bytes: int
    brightness: float
    colourfulness: float
    colour: tuple[int, int, int]
    thumbnail: bytes = field(repr=False)

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height of the thumbnail."""
        scale = min(1.0, SIDE / max(self.width, self.height))
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    @property
    def data_uri(self) -> str:
        """The thumbnail as a page embeds it."""
        return f"data:image/webp;base64,{base64.b64encode(self.thumbnail).decode()}"


@dataclass(slots=True, eq=False)
class Pictures:
    """Images of rows, each decoded once when it is first asked for.

    Attributes
    ----------
    rows : Rows
    known : dict of int to Picture or str
        By row: the picture, or why there is none.
    """

    rows: Rows
    known: dict[int, Picture | str] = field(default_factory=dict)

    def __getitem__(self, row: int) -> Picture | str:
        if row not in self.known:
            self.known[row] = self._load(row)
        return self.known[row]

    def load(self, rows: Iterable[int], tell: Callback = ignore) -> None:
        """Decode the images of these rows with several threads."""
        wanted = [row for row in dict.fromkeys(rows) if row not in self.known]
        if not wanted:
            return
        with task(tell, "pictures", len(wanted)) as advance:
            for row, found in zip(wanted, map_in_order(self._load, wanted, THREADS), strict=True):
                self.known[row] = found
                advance(1)

    def _load(self, row: int) -> Picture | str:
        if self.rows.status[row] != "ok":
            return self.rows.reasons[row] or f"the image is {self.rows.status[row]}"
        try:
            return picture(self.rows.image(row))
        except ImageError as error:
            return str(error)


def picture(data: bytes, side: int = SIDE) -> Picture:
    """Decode, measure and shrink an image file.

    Parameters
    ----------
    data : bytes
    side : int
        Pixels of the longer side of the thumbnail, at most.

    Raises
    ------
    ImageError
        If it cannot be decoded; see `images.decode`.
    """
    image = decode(data)
    width, height = image.size
    small = image.copy() if max(image.size) <= side else _shrink(image, side)
    brightness, colourfulness, colour = measure(np.asarray(small, np.float32))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=QUALITY, method=4)
    return Picture(
        image_format(data), width, height, len(data), brightness, colourfulness, colour, file.getvalue()
    )


def measure(pixels: np.ndarray) -> tuple[float, float, tuple[int, int, int]]:
    """Measure the brightness, the colourfulness and the mean colour of an image; see `Picture`.

    Parameters
    ----------
    pixels : numpy.ndarray, float32, shape (height, width, 3)
        Red, green and blue, 0…255.
    """
    red, green, blue = (pixels[..., channel] for channel in range(3))
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).mean() / 255
    one, other = red - green, (red + green) / 2 - blue
    spread = np.hypot(one.std(), other.std())
    colourfulness = spread + 0.3 * np.hypot(one.mean(), other.mean())
    mean = pixels.mean(axis=(0, 1))
    return float(luma), float(colourfulness), (int(mean[0]), int(mean[1]), int(mean[2]))


def sample(rows: list[int], most: int, seed: int) -> list[int]:
    """Draw at most `most` of these rows at random, in their order."""
    if len(rows) <= most:
        return rows
    drawn = np.random.default_rng(seed).choice(len(rows), most, replace=False)
    return [rows[at] for at in np.sort(drawn).tolist()]


def _shrink(image: Image.Image, side: int) -> Image.Image:
    # Reduced by a whole factor first, which is several times faster and looks the same.
    small = image.copy() if image.size[0] * image.size[1] < 1 << 16 else image
    small.thumbnail((side, side), reducing_gap=2.0)
    return small
