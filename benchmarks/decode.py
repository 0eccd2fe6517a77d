"""How fast images become a model's input, decoder by decoder, and whether pixels and features stay the same.

    pip install simplejpeg opencv-python-headless imagecodecs     # those that are there are measured
    python benchmarks/decode.py DATA [--kinds "PNG 512,JPEG 512"] [--simd PYTHON]

DATA is a folder with real images of 256 px or more. The larger pictures are put together from them, so that
their detail is that of real images: 512 px as PNG, JPEG and WebP, 1024 px as JPEG; and the files as they are.
For each decoder: images a second on one core, from bytes to RGB, and from bytes to the inputs of the two
packaged backbones; how far its pixels lie from Pillow's; the cosine (mean, least) of float32 features to
those of the reference, which is Pillow's decode and the model's own transform; how many of 19 truncated
copies of a file it refuses; and what a whole pass in bfloat16 would gain by it. Then the same of ways to
resize, also for a pass with CLIP ViT-B/32 alone (random weights), and what each step takes. `--simd` names
the interpreter of an environment with Pillow-SIMD. Prints tables and adds to `results/decode.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limit import local
from PIL import Image, ImageOps
from system import load, save

from img2prompt_cache.extraction.encode import encode_batches
from img2prompt_cache.extraction.report import Clock
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.images.decode import decode
from img2prompt_cache.images.geometry import Geometry
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.sources import open_source

BACKBONES = ("packaged:efficientnet-lite0", "packaged:vit-small-saliency")
KINDS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "PNG 512": (512, "PNG", {}),
    "JPEG 512": (512, "JPEG", {"quality": 90}),
    "JPEG 1024": (1024, "JPEG", {"quality": 90}),
    "WebP 512": (512, "WEBP", {"quality": 90}),
    "as they are": (0, "JPEG", {}),
}
TILE, CUTS = 256, 20
LIBRARIES = {
    "pillow": "PIL",
    "torchvision": "torchvision",
    "simplejpeg": "simplejpeg",
    "opencv-python-headless": "cv2",
    "imagecodecs": "imagecodecs",
}

Decoder = Callable[[bytes], Image.Image]
Resizer = Callable[[Image.Image, Geometry], np.ndarray]

SIMD = """
import io, json, sys, time
from pathlib import Path
import PIL
from PIL import Image
files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
def opened(data): return Image.open(io.BytesIO(data)).convert("RGB")
def resized(data):
    image = opened(data)
    side = 256 / min(image.size)
    return image.resize([int(length * side) for length in image.size], Image.Resampling.BICUBIC)
def best(step):
    times = []
    for _ in range(3):
        started = time.perf_counter()
        for data in files: step(data)
        times.append(time.perf_counter() - started)
    return sorted(times)[1] / len(files)
try:
    print(json.dumps({"version": PIL.__version__, "decode_s": best(opened), "resized_s": best(resized)}))
except PIL.UnidentifiedImageError:
    print("null")
"""


def compose(kind: str, files: list[Path], folder: Path, count: int) -> Path:
    """Write pictures of a kind: real ones put together, or, where it has no size, the files themselves."""
    side, form, options = KINDS[kind]
    folder.mkdir(parents=True)
    if not side:
        for path in files[:: len(files) // count][:count]:
            (folder / path.name).write_bytes(path.read_bytes())
        return folder
    each = side // TILE
    rng = np.random.default_rng(0)
    for number in range(count):
        picture = Image.new("RGB", (side, side))
        for place, chosen in enumerate(rng.choice(len(files), each * each, replace=False)):
            with Image.open(files[chosen]) as tile:
                fitted = ImageOps.fit(tile.convert("RGB"), (TILE, TILE))
            picture.paste(fitted, (place % each * TILE, place // each * TILE))
        picture.save(folder / f"{number:04d}.{form.lower()}", form, **options)
    return folder


def pillow(data: bytes) -> Image.Image:
    """The reference: Pillow as timm's and open_clip's loaders call it."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def drafted(data: bytes) -> Image.Image:
    """Pillow with libjpeg's scaling: the smallest of 1/1, 1/2, 1/4 and 1/8 that still covers 256 px."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (256, 256))
    return image.convert("RGB")


def decoders(form: str) -> dict[str, Decoder]:
    """The decoders of a format that are installed; each gives an image of Pillow, which is what resizes."""
    from torchvision import io as tv

    def tensor(data: bytes) -> torch.Tensor:
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def of(pixels: torch.Tensor) -> Image.Image:
        return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())

    rgb = tv.ImageReadMode.RGB
    found: dict[str, Decoder] = {"img2prompt-cache": decode, "Pillow": pillow}
    if form == "JPEG":
        found["Pillow, draft"] = drafted
        found["torchvision"] = lambda data: of(tv.decode_jpeg(tensor(data), mode=rgb))
        if find_spec("simplejpeg"):
            import simplejpeg

            found["simplejpeg"] = lambda data: Image.fromarray(simplejpeg.decode_jpeg(data))
    elif form == "PNG":
        found["torchvision"] = lambda data: of(tv.decode_png(tensor(data), mode=rgb))
    else:
        found["torchvision"] = lambda data: of(tv.decode_webp(tensor(data), mode=rgb))
    if find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        flags = cv2.IMREAD_COLOR_RGB

        def opencv(data: bytes) -> Image.Image:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
            if pixels is None:
                raise ValueError("OpenCV gives nothing")
            return Image.fromarray(pixels)

        found["OpenCV"] = opencv
    if find_spec("imagecodecs"):
        import imagecodecs

        read = {
            "JPEG": imagecodecs.jpeg8_decode,
            "PNG": imagecodecs.spng_decode,
            "WEBP": imagecodecs.webp_decode,
        }
        found["imagecodecs"] = lambda data: Image.fromarray(read[form](data)[..., :3])
    return found


def resizers() -> dict[str, Resizer]:
    """Ways to bring an image to a geometry whose resize is to the shortest side."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    def on_tensors(image: Image.Image, geometry: Geometry) -> np.ndarray:
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
        resized = tv.resize(pixels, [geometry.size[0]], InterpolationMode.BICUBIC, antialias=True)
        found: np.ndarray = tv.center_crop(resized, list(geometry.crop)).permute(1, 2, 0).contiguous().numpy()
        return found

    def gap(image: Image.Image, geometry: Geometry) -> np.ndarray:
        side = geometry.size[0] / min(image.size)
        small = image.resize(
            (int(image.width * side), int(image.height * side)), Image.Resampling.BICUBIC, reducing_gap=2.0
        )
        return Geometry(geometry.resize, (min(small.size),) * 2, geometry.crop).apply(small)

    return {
        "Pillow": lambda image, geometry: geometry.apply(image),
        "Pillow, reducing_gap 2": gap,
        "torchvision, uint8 tensor, antialias": on_tensors,
    }


def seconds(step: Callable[[Any], object], work: list[Any], rounds: int = 3) -> float:
    """Median seconds for one piece of work."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for piece in work:
            step(piece)
        times.append(time.perf_counter() - started)
    return statistics.median(times) / len(work)


def refused(decoder: Decoder, data: bytes) -> int:
    """How many truncated copies of a file a decoder refuses, of `CUTS` − 1."""
    count = 0
    for part in range(1, CUTS):
        try:
            decoder(data[: len(data) * part // CUTS])
        except Exception:
            count += 1
    return count


class Parity:
    """Features of images brought to the input size in another way, against those of the reference."""

    def __init__(self, backbones: list[Backbone], pictures: list[Image.Image]) -> None:
        self.backbones = backbones
        self.pixels = [self.inputs(pictures, backbone.geometry) for backbone in backbones]
        self.features = [
            backbone.encode(torch.from_numpy(pixels))
            for backbone, pixels in zip(backbones, self.pixels, strict=True)
        ]

    def of(self, pictures: list[Image.Image], resize: Resizer | None = None) -> dict[str, Any]:
        """Mean and least cosine by backbone; exactly 1 where every input pixel is the same."""
        found = {}
        for backbone, pixels, features in zip(self.backbones, self.pixels, self.features, strict=True):
            if resize is not None and backbone.geometry.resize != "shortest":
                continue
            other = self.inputs(pictures, backbone.geometry, resize)
            if np.array_equal(other, pixels):
                found[backbone.spec] = {"mean": 1.0, "least": 1.0}
                continue
            between = cosine(backbone.encode(torch.from_numpy(other)), features)
            found[backbone.spec] = {"mean": float(between.mean()), "least": float(between.min())}
        return found

    def inputs(
        self, pictures: list[Image.Image], geometry: Geometry, resize: Resizer | None = None
    ) -> np.ndarray:
        return np.stack(
            [resize(picture, geometry) if resize else geometry.apply(picture) for picture in pictures]
        )


def steps(kind: str, folder: Path, files: list[bytes], geometries: list[Geometry]) -> dict[str, float]:
    """Milliseconds of each step that an image goes through before the forward pass."""
    paths, pictures = sorted(folder.iterdir()), [decode(data) for data in files]
    found = {
        "read": seconds(Path.read_bytes, paths),
        "sha256": seconds(lambda data: hashlib.sha256(data).hexdigest(), files),
        "decode": seconds(decode, files),
        "of which Pillow": seconds(pillow, files),
        "resize": seconds(lambda picture: [g.apply(picture) for g in geometries], pictures),
    }
    return {name: each * 1e3 for name, each in found.items()}


def whole_pass(folder: Path, backbones: list[Backbone]) -> float:
    """Core-seconds an image takes in a pass: reading, decoding, and every backbone."""
    source = open_source(folder)
    uris = source.list().table["uri"].to_pylist()
    rows = Slice(0, 0, {"imgId": uris, "uri": uris})
    models, totals = {backbone.spec: backbone for backbone in backbones}, []
    for _ in range(3):
        clock = Clock()
        for batch in encode_batches(rows, source, models, 16, 1):
            clock.add(batch.clock)
        totals.append(sum(clock.seconds.values()))
    return statistics.median(totals) / len(uris)


def measure(
    kind: str, files: list[Path], count: int, simd: str, fast: dict[str, list[Backbone]]
) -> dict[str, Any]:
    """Everything about one kind of picture."""
    exact = [load_backbone(spec) for spec in BACKBONES]
    geometries = [backbone.geometry for backbone in exact]
    with tempfile.TemporaryDirectory() as temporary:
        folder = compose(kind, files, Path(temporary) / "pictures", count)
        data = [path.read_bytes() for path in sorted(folder.iterdir())]
        reference = [pillow(each) for each in data]
        parity = Parity(exact, reference)
        whole = {name: whole_pass(folder, models) for name, models in fast.items()}
        found: dict[str, Any] = {
            "pictures": count,
            "mean_bytes": statistics.mean(map(len, data)),
            "pass_ms": {name: each * 1e3 for name, each in whole.items()},
            "steps_ms": steps(kind, folder, data, geometries),
            "decoders": {},
            "resizers": {},
        }
        for name, decoder in decoders(KINDS[kind][1]).items():
            pictures = [decoder(each) for each in data]
            away = [
                np.abs(np.asarray(mine, np.int16) - np.asarray(theirs, np.int16))
                for mine, theirs in zip(pictures, reference, strict=True)
                if mine.size == theirs.size
            ]

            def to_inputs(each: bytes, decoder: Decoder = decoder) -> None:
                picture = decoder(each)
                for geometry in geometries:
                    geometry.apply(picture)

            found["decoders"][name] = {
                "decode_s": seconds(decoder, data),
                "inputs_s": seconds(to_inputs, data),
                "pixels": {"mean": float(np.mean(away)), "most": int(np.max(away))} if away else None,
                "cosine": parity.of(pictures),
                "refused": refused(decoder, data[0]),
            }
        ours = found["decoders"]["img2prompt-cache"]["inputs_s"]
        for each in found["decoders"].values():
            each["gain_of_pass"] = (ours - each["inputs_s"]) / whole["packaged"]
        square = next(geometry for geometry in geometries if geometry.resize == "shortest")
        exact_pixels = parity.inputs(reference, square)
        for name, resize in resizers().items():
            step = lambda picture, resize=resize: resize(picture, square)  # noqa: E731
            away = np.abs(parity.inputs(reference, square, resize).astype(np.int16) - exact_pixels)
            found["resizers"][name] = {
                "s": seconds(step, reference),
                "pixels": {"differ": float((away > 0).mean()), "most": int(away.max())},
                "cosine": parity.of(reference, resize),
            }
        pillow_s = found["resizers"]["Pillow"]["s"]
        for each in found["resizers"].values():
            each["gain_of_pass"] = {
                name: len(models) * (pillow_s - each["s"]) / whole[name] for name, models in fast.items()
            }
        if simd:
            command = [simd, "-c", SIMD, str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            found["pillow_simd"] = json.loads(done.stdout)
    return found


def tell(kind: str, found: dict[str, Any]) -> None:
    """Print the tables of one kind."""
    told = ", ".join(f"{name} {ms:.2f}" for name, ms in found["steps_ms"].items())
    passes = ", ".join(f"{name} {ms:.1f}" for name, ms in found["pass_ms"].items())
    print(f"\n{kind}: {found['mean_bytes'] / 1e3:.0f} kB; ms an image: {told}; pass, {passes}\n")
    print("| decoder | decode/s | inputs/s | pixels, mean | most | cosine | least | refused | gain |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, each in found["decoders"].items():
        pixels = each["pixels"] or {"mean": np.nan, "most": "–"}
        low = min(each["cosine"].values(), key=lambda value: value["mean"])
        least = min(value["least"] for value in each["cosine"].values())
        print(
            f"| {name} | {1 / each['decode_s']:.0f} | {1 / each['inputs_s']:.0f} | {pixels['mean']:.3f} | "
            f"{pixels['most']} | {low['mean']:.5f} | {least:.4f} | {each['refused']}/{CUTS - 1} | "
            f"{each['gain_of_pass']:+.1%} |",
        )
    for name, each in found["resizers"].items():
        (between,) = each["cosine"].values()
        gains = ", ".join(f"{name} {gain:+.1%}" for name, gain in each["gain_of_pass"].items())
        print(
            f"resize, {name}: {1 / each['s']:.0f}/s, {each['pixels']['differ']:.2%} of values differ, by "
            f"{each['pixels']['most']} at most, cosine {between['mean']:.5f}, {between['least']:.4f}; {gains}"
        )
    if found.get("pillow_simd"):
        one = found["pillow_simd"]
        told = f"{1 / one['decode_s']:.0f}/s, with resize to 256 {1 / one['resized_s']:.0f}/s"
        print(f"Pillow-SIMD {one['version']}: decode {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--kinds", default=",".join(KINDS), help="which, with commas between")
    parser.add_argument("--count", type=int, default=32, help="pictures of each kind")
    parser.add_argument("--simd", default="", help="interpreter of an environment with Pillow-SIMD")
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = []
    for path in sorted(options.data.iterdir()):
        with Image.open(path) as image:
            if min(image.size) >= TILE:
                files.append(path)
    figures: dict[str, Any] = load("decode") or {}
    figures["libraries"] = {name: version(name) for name, module in LIBRARIES.items() if find_spec(module)}
    with tempfile.TemporaryDirectory() as work:
        clip = load_backbone(local(Path(work), "clip_b_32"), precision="bf16")
    fast = {
        "packaged": [load_backbone(spec, precision="bf16") for spec in BACKBONES],
        "CLIP ViT-B/32": [clip],
    }
    for kind in options.kinds.split(","):
        figures[kind] = measure(kind, files, options.count, options.simd, fast)
        tell(kind, figures[kind])
        save("decode", figures)


if __name__ == "__main__":
    main()
