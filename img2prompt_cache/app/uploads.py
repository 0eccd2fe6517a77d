"""Uploads: the images of a request, each of them checked by itself before any waits for the model."""

from __future__ import annotations

import base64
import binascii
import json
import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import ImageError
from img2prompt_cache.images.decode import check_header
from img2prompt_cache.tables import printable, shorten

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from starlette.requests import Request

    from img2prompt_cache.app.settings import Limits

FIELD = "images"
LONGEST_NAME = 255
TOO_LARGE, UNSUPPORTED, UNUSABLE = 413, 415, 422
"""HTTP's statuses for an image that is too large, of a format that is not read, or damaged."""

MOST_JSON_MARKS = 16
"""Braces, brackets and commas of a JSON body for each image that a request may hold."""

_SPACES = string.whitespace.encode()
_DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(;[\w.+=-]*)*;base64,", re.IGNORECASE)
_OTHER_FORMAT = re.compile(r"not an image|format |JPEG XL|HEIC|AVIF")


@dataclass(frozen=True, slots=True)
class Upload:
    """An image file as it came."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An image, or a whole request, that is not taken: the HTTP status, and why."""

    name: str
    status: int
    reason: str


class RequestRefused(Exception):
    """A request that is refused as a whole."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def read_uploads(request: Request, limits: Limits, threads: CapacityLimiter) -> list[Upload | Refusal]:
    """Read and check the images of a request.

    Parameters
    ----------
    request : Request
    limits : Limits
    threads : CapacityLimiter
        For how many are checked at a time.

    Raises
    ------
    RequestRefused
        If it holds no images, too many, or is neither a form, nor JSON, nor an image.
    """
    from anyio import to_thread

    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = await _from_form(request, limits)
    elif kind == "application/json":
        found = await to_thread.run_sync(_from_json, await request.body(), limits, limiter=threads)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        found = [Upload("image", await request.body())]
    else:
        raise RequestRefused(
            UNSUPPORTED,
            f"send a form (multipart/form-data) with files in the field `{FIELD}`, JSON with base64, or an "
            "image as the body",
        )
    if not found:
        raise RequestRefused(UNUSABLE, f"the request holds no image; the field is called `{FIELD}`")
    return await to_thread.run_sync(_checked, found, limits, limiter=threads)


def refusal_of(name: str, reason: str) -> Refusal:
    """Make a refusal of what the decoder says of an image."""
    if reason.startswith("too large"):
        return Refusal(name, TOO_LARGE, reason)
    return Refusal(name, UNSUPPORTED if _OTHER_FORMAT.match(reason) else UNUSABLE, reason)


def _checked(found: list[Upload | Refusal], limits: Limits) -> list[Upload | Refusal]:
    return [each if isinstance(each, Refusal) else _check(each, limits) for each in found]


def _check(upload: Upload, limits: Limits) -> Upload | Refusal:
    if len(upload.data) > limits.file_bytes:
        return Refusal(upload.name, TOO_LARGE, f"too large: more than {limits.file_bytes >> 20} MiB")
    try:
        check_header(upload.data, max_pixels=limits.pixels)
    except ImageError as error:
        return refusal_of(upload.name, str(error))
    return upload


def _require_few(count: int, limits: Limits) -> None:
    if count > limits.images:
        raise RequestRefused(TOO_LARGE, f"{count} images in one request; at most {limits.images} are taken")


async def _from_form(request: Request, limits: Limits) -> list[Upload | Refusal]:
    from starlette.datastructures import UploadFile

    found: list[Upload | Refusal] = []
    async with request.form(max_files=limits.images + 1, max_fields=limits.images + 1) as form:
        files = form.getlist(FIELD)
        _require_few(len(files), limits)
        for number, file in enumerate(files, 1):
            if isinstance(file, UploadFile):
                found.append(Upload(_name(file.filename, number), await file.read()))
            else:
                found.append(Refusal(f"image {number}", UNUSABLE, "text where a file should be"))
    return found


def _from_json(body: bytes, limits: Limits) -> list[Upload | Refusal]:
    # Counted before it is parsed: as Python objects, a body of many small values takes 25 times its memory.
    if sum(body.count(mark) for mark in (b"{", b"[", b",")) > MOST_JSON_MARKS * limits.images:
        raise RequestRefused(
            TOO_LARGE, f"the JSON holds too many values; at most {limits.images} images are taken"
        )
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestRefused(UNUSABLE, "the body is not JSON") from None
    images = given.get(FIELD) if isinstance(given, dict) else None
    if isinstance(images, str | dict):
        images = [images]
    if not isinstance(images, list):
        raise RequestRefused(UNUSABLE, f'send {{"{FIELD}": ["<base64>", …]}}')
    _require_few(len(images), limits)
    return [_from_item(item, number) for number, item in enumerate(images, 1)]


def _from_item(item: Any, number: int) -> Upload | Refusal:
    given = item if isinstance(item, dict) else {"data": item}
    name, text = _name(given.get("name"), number), given.get("data")
    if not isinstance(text, str):
        return Refusal(name, UNUSABLE, "`data` must be the image as base64")
    header = _DATA_URI.match(text[:200])
    try:
        encoded = text[header.end() if header else 0 :].encode("ascii").translate(None, _SPACES)
        return Upload(name, base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return Refusal(name, UNUSABLE, "not base64; addresses are not fetched, send the image itself")


def _name(given: object, number: int) -> str:
    return printable(shorten(given, LONGEST_NAME)) if isinstance(given, str) and given else f"image {number}"
