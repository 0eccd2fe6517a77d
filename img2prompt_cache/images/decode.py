"""Decoding: from the bytes of an image file to 8-bit RGB, safe for hostile files.

The rules are part of every fingerprint, through `DECODE_RULES`:

- The format is determined by the first bytes, never by the file's name: PNG, JPEG, WebP, GIF, BMP without
  run-length coding, or AVIF where Pillow reads it (from 11.3 on). Others are refused (TIFF, SVG, PDF…):
  generators rarely write them, and each would add a large attack surface. Pillow reads neither JPEG XL nor
  HEIC.
- An image above the pixel limit, or above `MAX_SIDE` on one side, is refused before its pixels are decoded.
- A truncated file is refused, never padded. Every chunk of a PNG that affects pixels must have the right
  checksum. (Not detected: a compressed stream that ends too early in an intact container, which leaves black
  rows, and damage that libjpeg repairs.)
- Of an animation, the first frame is used.
- 10-bit and 12-bit samples of an AVIF are rounded to 8 bits. Its rotation and mirroring are applied; as its
  specification demands, the orientation in its EXIF is not. The frame inside may be larger than the file
  declares: the decoder's own limit is 16384 × 16384, and it is scaled to the declared size.
- 16-bit samples keep their high byte, in grey and in colour. Palette, 1-bit and grey images become RGB. A
  CMYK JPEG is read as Adobe writes it (inverted), then R = (255 − C)(255 − K) / 255 and so on; YCCK likewise.
- Transparent images, however they store alpha, are composited over white.
- The EXIF orientation of other formats is applied; unreadable EXIF counts as none. An orientation in XMP is
  ignored.
- Colour profiles and gamma are ignored, as in the models' reference preprocessing.

Metadata that cannot change a pixel is removed before Pillow reads the file, so a broken profile, or a text
chunk that would decompress to gigabytes, does no harm. `decode` changes no global state of Pillow and is safe
in threads.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from img2prompt_cache.errors import ImageError
from img2prompt_cache.images.bmff import is_whole, kind_of, without_metadata
from img2prompt_cache.shortage import memory_is_short

try:
    from PIL import AvifImagePlugin
except ImportError:  # Pillow before 11.3
    AvifImagePlugin = None  # type: ignore[assignment]

DECODE_RULES = "1: first frame, 16-bit high byte, alpha over white, EXIF orientation, no colour management"
"""Version and summary of the rules above; the version must be raised when pixels of any image change."""

MAX_PIXELS = 1 << 26
"""Default limit, 8192 × 8192. Decoding takes up to 8 bytes per pixel: 0.5 GiB at the limit."""

MAX_SIDE = 65_535
"""Limit of either side, on which a decoder's row buffers depend. JPEG, GIF and WebP cannot exceed it."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH = 24  # offset of the bits per sample; IHDR is the first chunk
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")

_MARKER = re.compile(rb"\xff[\xc0-\xfe]")
_MAX_PARTS = 1 << 17  # chunks of a PNG, segments of a JPEG; far more than real files have, it bounds the time

_OTHER_FORMATS = (
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML or SVG"),
    (0, b"8BPS", "PSD"),
    (0, b"\0\0\0\x0cjP", "JPEG 2000"),
)
_JPEG_XL = (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a")

_ORIENTATION_TAG, _SHORT = 0x0112, 3  # EXIF
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


ENOUGH_MEMORY = 1 << 30
"""Bytes that are enough to decode the largest image that is allowed."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file by the rules of this module.

    Parameters
    ----------
    data : bytes
        The whole file.
    max_pixels : int
        Width × height above which the image is refused.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, 8 bits per channel, fully loaded.

    Raises
    ------
    ImageError
        If it cannot be used: ``"empty"``, ``"not an image"``, ``"format TIFF is not allowed"``,
        ``"too large: 9000×9000 pixels, limit 67108864"``, ``"truncated"``, ``"damaged: …"``.
    """
    try:
        image, form, data, exif = _open(data, max_pixels)
        image.load()
        orientation = _orientation(exif or image.info.get("exif", b""))
        rgb = _to_rgb(_eight_bit(image, depth=data[_PNG_DEPTH]) if form == "PNG" else image)
        return rgb.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else rgb
    except ImageError:
        raise
    except Exception as error:
        # Pillow's readers raise nearly any exception on hostile bytes; none of them may end an extraction.
        _blame(error)
        raise ImageError(_reason(error)) from error


def check_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> None:
    """Check an image file as `decode` does before it decodes pixels; damage inside the pixels is not seen.

    Parameters
    ----------
    data : bytes
        The whole file.
    max_pixels : int
        Width × height above which the image is refused.

    Raises
    ------
    ImageError
        As `decode`.
    """
    try:
        _open(data, max_pixels)
    except ImageError:
        raise
    except Exception as error:
        _blame(error)
        raise ImageError(_reason(error)) from error


def _blame(error: Exception) -> None:
    """Raise an error that comes from want of memory; an image that asks for too much has itself to blame."""
    if isinstance(error, MemoryError) and memory_is_short(ENOUGH_MEMORY):
        raise error


def _open(data: bytes, max_pixels: int) -> tuple[ImageFile.ImageFile, str, bytes, bytes]:
    """Open an image without decoding it; return it, its format, the bytes it is read from, and its EXIF."""
    form, exif = image_format(data), b""
    if form == "PNG":
        data, exif = _essential_png(data)
    elif form == "JPEG":
        data, exif = _essential_jpeg(data)
    elif form == "AVIF":
        if not is_whole(data):
            raise ImageError("truncated")
        data = without_metadata(data)
    image = _READERS[form](io.BytesIO(data))
    _check_size(image, max_pixels)
    return image, form, data, exif


def image_format(data: bytes) -> str:
    """Tell the format of an image file by its first bytes: ``"PNG"``, ``"JPEG"``, …

    Raises
    ------
    ImageError
        If it is none that `decode` reads; the message names it.
    """
    if not data:
        raise ImageError("empty")
    if data.startswith(_PNG):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        if len(data) < 8 + int.from_bytes(data[4:8], "little"):
            raise ImageError("truncated")
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    if data.startswith(_JPEG_XL):
        raise ImageError("JPEG XL is not read by Pillow; convert it, for instance to PNG")
    if data[4:8] == b"ftyp":
        kind = kind_of(data)
        if kind == "HEIC":
            raise ImageError("HEIC is not read by Pillow; convert it, for instance to JPEG")
        if kind == "AVIF" and "AVIF" not in _READERS:
            raise ImageError("AVIF is read by Pillow 11.3 and later; update it, or convert the image")
        if kind == "AVIF":
            return kind
        raise ImageError("format video is not allowed")
    for offset, magic, name in _OTHER_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            raise ImageError(f"format {name} is not allowed")
    raise ImageError("not an image")


def _essential_png(data: bytes) -> tuple[bytes, bytes]:
    """Keep the chunks that affect pixels, after checking their checksums; return the EXIF separately."""
    if data[12:16] != b"IHDR":
        raise ImageError("damaged: the PNG does not begin with IHDR" if len(data) >= 16 else "truncated")
    kept, exif, view, position = [_PNG], b"", memoryview(data), len(_PNG)
    for _ in range(_MAX_PARTS):
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4])
        if end > len(data):
            break
        if kind in _PNG_CHUNKS:
            if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
                raise ImageError(f"damaged: wrong checksum in {kind.decode()}")
            kept.append(data[position:end])
        elif kind == b"eXIf":
            exif = data[position + 8 : end - 4]
        position = end
        if kind == b"IEND":
            return b"".join(kept), exif
    else:
        raise ImageError("damaged: too many chunks")
    raise ImageError("truncated")


def _essential_jpeg(data: bytes) -> tuple[bytes, bytes]:
    """Drop comments, application segments and junk before the first scan; return the EXIF separately.

    JFIF and Adobe segments determine the colour space, so they are kept if they are long enough for libjpeg
    to read them.
    """
    kept, exif, position = [data[:2]], b"", 2
    for _ in range(_MAX_PARTS):
        found = _MARKER.search(data, position)
        if found is None:
            break
        position, marker = found.start(), data[found.start() + 1]
        if 0xD0 <= marker <= 0xD9:  # these have no length
            position += 2
            continue
        if marker == 0xDA:
            return b"".join([*kept, data[position:]]), exif
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        if end > len(data):
            break
        body = data[position + 4 : end]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif = exif or body
        metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        colour = (marker == 0xE0 and len(body) >= 14 and body.startswith(b"JFIF\0")) or (
            marker == 0xEE and len(body) >= 12 and body.startswith(b"Adobe")
        )
        if colour or not metadata:
            kept.append(data[position:end])
        position = end
    else:
        raise ImageError("damaged: too many segments")
    raise ImageError("truncated")


def _check_size(image: ImageFile.ImageFile, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"too large: {width}×{height} pixels, limit {max_pixels}")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"too large: {width}×{height} pixels, limit {MAX_SIDE} a side")
    if any(tile[0] == "bmp_rle" for tile in image.tile):
        # Pillow decodes it in Python, pixel by pixel: seconds for a small file.
        raise ImageError("format BMP with run-length coding is not allowed")


def _eight_bit(image: Image.Image, depth: int) -> Image.Image:
    """Convert 16-bit grey, and a PNG's transparent colour, to 8 bits; Pillow converts everything else."""
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if depth == 16 and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif image.mode == "L" and key is not None:
        highest = (1 << depth) - 1
        image.info["transparency"] = key >> 8 if depth == 16 else (key & highest) * 255 // highest
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(image, mask=image)
        return canvas
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(exif: bytes) -> int:
    """Find the orientation tag in the first directory of an EXIF block; 1 (upright) if there is none.

    Pillow's own reader issues process-wide warnings about every other fault of the block.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for position in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, _, short = struct.unpack_from(f"{order}HHIH", tiff, position)
            if tag == _ORIENTATION_TAG and kind == _SHORT:
                return int(short)
    except struct.error:
        pass
    return 1


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too large: a decompression bomb"
    text = " ".join(str(error).split())
    if "truncated" in text.lower() or isinstance(error.__cause__ or error, IndexError | struct.error):
        return "truncated"
    return f"damaged: {text[:100] or type(error).__name__}"


_READERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
if AvifImagePlugin is not None and AvifImagePlugin.SUPPORTED:
    _READERS["AVIF"] = AvifImagePlugin.AvifImageFile
