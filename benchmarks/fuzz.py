"""Fuzz whatever reads a stranger's bytes, for a given time: images, prompts inside images, tar shards.

    python benchmarks/fuzz.py --seconds 600 [--seed 0] [--save]

Sound files are cut, spliced, overwritten and given right checksums again. A reader must give its result or
its own error, within five seconds of processor time; anything else is a finding: its bytes are written to
`fuzz-<reader>-<number>` in the current folder, and the exit code is 1. Prints one JSON object; `--save`
writes it to `results/fuzz.json`.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import struct
import sys
import tarfile
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.images.decode import decode
from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.embedded.prompts import read_prompt

SLOWEST = 5.0
GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad"}},
}


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    """Write an image."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def images() -> list[bytes]:
    """Sound images of every format, with prompts and other metadata."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (23, 31, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a cat\nSteps: 20".encode("utf-16-be")
    found = []
    for zipped in (False, True):
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", "a cat\nNegative prompt: bad\nSteps: 20, Sampler: Euler", zip=zipped)
        info.add_itxt("prompt", json.dumps(GRAPH), zip=zipped)
        info.add_itxt("invokeai_metadata", json.dumps({"positive_prompt": "a cat"}), zip=zipped)
        found.append(encode(noise, "PNG", pnginfo=info, exif=exif, icc_profile=b"p" * 99))
    frames = [noise.rotate(90), noise.rotate(180)]
    found += [
        encode(noise, "JPEG", exif=exif, icc_profile=b"p" * 99),
        encode(noise.convert("CMYK"), "JPEG"),
        encode(noise, "JPEG", progressive=True),
        encode(noise, "WEBP", exif=exif, xmp=b"<x/>"),
        encode(noise, "WEBP", save_all=True, append_images=frames),
        encode(noise, "PNG", save_all=True, append_images=frames),
        encode(noise, "GIF", save_all=True, append_images=frames),
        encode(noise.quantize(16), "PNG", transparency=3),
        encode(noise.quantize(16), "BMP"),
    ]
    return found


def shards() -> list[bytes]:
    """Sound tar files in every dialect."""
    found = []
    for dialect in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=dialect) as archive:
            for name in ("0.png", "0.txt", "0.json", f"{'l' * 90}/{'n' * 60}.jpg"):
                member = tarfile.TarInfo(name)
                member.size = 700
                archive.addfile(member, io.BytesIO(b'{"prompt": "a cat"}'.ljust(700)))
        found.append(buffer.getvalue())
    return found


def mutate(data: bytes, others: list[bytes], choose: random.Random) -> bytes:
    """Damage a file in a few random ways."""
    found = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 4, 12))):
        at = choose.randrange(len(found) + 1)
        match choose.randrange(8):
            case 0:
                found[at : at + 1] = bytes([choose.randrange(256)])
            case 1:
                found[at : at + 4] = struct.pack(">I", choose.choice((0, 1, 2**31 - 1, 2**32 - 1, 65535)))
            case 2:
                del found[at:]
            case 3:
                del found[at : at + choose.randrange(1, 600)]
            case 4:
                found[at:at] = choose.randbytes(choose.randrange(1, 40))
            case 5:
                found[at:at] = found[at : at + choose.randrange(1, 600)] * choose.randrange(1, 9)
            case 6:
                other = choose.choice(others)
                begin = choose.randrange(len(other))
                found[at:] = other[begin:]
            case 7:
                found[at : at + 12] = choose.choice((b"0" * 12, b"7" * 12, b"\xff" * 12, b"\x80" + bytes(11)))
    return bytes(found)


def right_checksums(data: bytes) -> bytes:
    """Make the checksums of a PNG or of a tar file's headers fit again, so that damage passes the door."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        at, parts = 8, [data[:8]]
        while at + 12 <= len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            body = data[at + 4 : at + 8 + size]
            if len(body) < size + 4:
                break
            parts.append(struct.pack(">I", size) + body + struct.pack(">I", zlib.crc32(body)))
            at += 12 + size
        return b"".join([*parts, data[at:]])
    found = bytearray(data)
    for at in range(0, len(found) - 511, 512):
        if found[at + 257 : at + 262] == b"ustar":
            found[at + 148 : at + 156] = b" " * 8
            found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
    return bytes(found)


def read_image(data: bytes, folder: Path) -> str:
    """Decode an image."""
    try:
        image = decode(data)
    except ImageError as error:
        return str(error).partition(":")[0]
    assert image.mode == "RGB"
    return "decoded"


def read_text(data: bytes, folder: Path) -> str:
    """Look for a prompt in an image."""
    path = folder / "image"
    path.write_bytes(data)
    found = read_prompt(path)
    if found is not None:
        found.encode()
    return "no prompt" if found is None else "a prompt"


def read_tar(data: bytes, folder: Path) -> str:
    """List a shard and read every image in it."""
    path = folder / "shard.tar"
    path.write_bytes(data)
    try:
        source = open_source(path)
        uris = source.list().table["uri"].to_pylist()
    except UsageError:
        return "refused"
    for uri in uris:
        try:
            source.read(uri)
        except ImageError:
            return "listed, an image refused"
    return "listed"


def fuzz(seconds: float, seed: int) -> dict[str, Any]:
    """Fuzz each reader for its share of the time."""
    readers: dict[str, tuple[Callable[[bytes, Path], str], list[bytes]]] = {
        "image": (read_image, images()),
        "prompt": (read_text, images()),
        "tar": (read_tar, shards()),
    }
    figures: dict[str, Any] = {}
    findings = 0
    with tempfile.TemporaryDirectory() as place:
        for name, (read, seeds) in readers.items():
            choose, outcomes, slowest = random.Random(seed), Counter[str](), 0.0
            end = time.monotonic() + seconds / len(readers)
            while time.monotonic() < end:
                data = mutate(choose.choice(seeds), seeds, choose)
                if choose.random() < 0.7:
                    data = right_checksums(data)
                began = time.process_time()
                try:
                    outcome = read(data, Path(place))
                except Exception as error:
                    outcome = f"FINDING: {type(error).__name__}: {error}"
                took = time.process_time() - began
                slowest = max(slowest, took)
                if took > SLOWEST:
                    outcome = "FINDING: too slow"
                if outcome.startswith("FINDING"):
                    Path(f"fuzz-{name}-{findings}").write_bytes(data)
                    findings += 1
                outcomes[outcome] += 1
            figures[name] = {
                "files": outcomes.total(),
                "slowest_seconds": round(slowest, 3),
                "outcomes": dict(outcomes.most_common(12)),
            }
    return {"seconds": seconds, "seed": seed, "findings": findings, "peak_mb": peak_mb(), **figures}


def peak_mb() -> int:
    """Tell the most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write the figures to results/")
    options = parser.parse_args()
    found = fuzz(options.seconds, options.seed)
    print(json.dumps(found))
    if options.save:
        from system import save

        save("fuzz", found)
    sys.exit(bool(found["findings"]))


if __name__ == "__main__":
    main()
