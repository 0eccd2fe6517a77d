"""The clients of `docs/clients`: an exported run in Python without this package, and in a browser."""

from __future__ import annotations

import hashlib
import runpy
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import img2prompt_cache as ipc
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.exporting.export import Exported
from img2prompt_cache.exporting.run_graph import parts_of
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.images.decode import decode
from img2prompt_cache.images.geometry import Geometry
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.runs.run import Run
from kit import Tiny

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CLIENTS = Path(__file__).parents[2] / "docs" / "clients"
WEB = "onnxruntime-web@1.30.0"
WEB_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
WEB_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
TYPES = {".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm"}
PAGE = """<!doctype html><script type="module">
import * as ort from "./ort.wasm.min.mjs";
import { open, predict, prepare } from "./predict.mjs";
import { check } from "./golden.mjs";
ort.env.wasm.numThreads = 1;
const picture = async (url) => createImageBitmap(await (await fetch(url)).blob());
window.begin = async (names) => {
  const run = await open(ort, "run.onnx");
  const images = await Promise.all(names.map(picture)), found = await predict(ort, run, images);
  return {
    cosine: await check(ort, run, "run.golden.npz"),
    inputs: run.inputs,
    pixels: Object.values(run.inputs).map((how) => images.map((image) => [...prepare(image, how)])),
    vectors: [...found.vectors.data],
    expected: [...found.expected.data],
  };
};
</script>"""


@pytest.fixture(scope="module")
def run(tiny: Tiny, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on two backbones that also see a second, mirrored view of each image."""
    folder = tmp_path_factory.mktemp("exported") / "cache"
    tiny.extract(pairs, folder, precision="fp32", taps=choose_taps(second_view="squash"))
    return fit_head(Cache(folder), FitConfig("ridge", {"alpha": 0.1}, split="random"))


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return ipc.export(run, tmp_path_factory.mktemp("out") / "run.onnx")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures: wide, high, transparent, and one that its EXIF turns."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 6, 4), np.uint8), "RGBA").resize((400, 400))
    turned = Image.Exif()
    turned[0x0112] = 6
    smooth.resize((500, 301)).convert("RGB").save(folder / "wide.png")
    smooth.resize((203, 405)).convert("RGB").save(folder / "high.webp", lossless=True)
    smooth.save(folder / "transparent.png")
    smooth.resize((320, 240)).convert("RGB").save(folder / "turned.jpg", exif=turned, quality=95)
    return sorted(folder.iterdir())


def test_the_client_in_python_predicts_what_the_run_does(run, exported, pictures, tmp_path):
    """In a process that cannot import this package or torch."""
    blocked = "import sys; sys.modules |= dict.fromkeys(('img2prompt_cache', 'torch'))"
    code = f"{blocked}; import runpy; runpy.run_path({str(CLIENTS / 'predict.py')!r}, run_name='__main__')"
    subprocess.run([sys.executable, "-c", code, exported.path, *pictures], check=True, cwd=tmp_path)
    seen = run.predict(pictures, top_k=0)
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), seen.vectors, atol=1e-5)


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(20, 20), (32, 32), (40, 24)])
@pytest.mark.parametrize("shape", [(31, 57), (57, 31), (32, 32), (9, 200)])
def test_the_client_in_python_resizes_as_the_library_does(resize, size, shape):
    client = runpy.run_path(str(CLIENTS / "predict.py"))
    geometry = Geometry(resize, size, (32, 28), "bicubic", (1, 2, 3))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8))
    how = {"height": 32, "width": 28, "resize": resize, "size": [*size], "interpolation": "bicubic"}
    found = client["prepare"](image, {**how, "fill": [1, 2, 3], "mirror": False})
    np.testing.assert_array_equal(found, geometry.apply(image))
    mirrored = client["prepare"](image, {**how, "fill": [1, 2, 3], "mirror": True})
    np.testing.assert_array_equal(mirrored, found[:, ::-1])


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of onnxruntime-web, of a pinned version from the npm registry."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("web")
    subprocess.run(["npm", "pack", "--silent", WEB], cwd=folder, check=True, capture_output=True)
    (packed,) = folder.iterdir()
    assert hashlib.sha256(packed.read_bytes()).hexdigest() == WEB_SHA256
    with tarfile.open(packed) as archive:
        for name in WEB_FILES:
            (folder / name).write_bytes(archive.extractfile(f"package/dist/{name}").read())
    return folder


@pytest.fixture
def page(browser, web, exported, pictures) -> Iterator[Any]:
    """A page with the client, which reaches nothing but its own files."""
    folders = (web, CLIENTS, exported.path.parent, pictures[0].parent)

    def answer(route: Any) -> None:
        name = route.request.url.rpartition("/")[2]
        found = [folder / name for folder in folders if (folder / name).is_file()]
        if name == "page.html":
            route.fulfill(body=PAGE, content_type="text/html")
        elif found:
            kind = TYPES.get(found[0].suffix, "application/octet-stream")
            route.fulfill(path=found[0], content_type=kind)
        else:
            route.abort()

    opened = browser.new_page()
    opened.route("**/*", answer)
    opened.goto("http://client.example/page.html")
    opened.wait_for_function("() => Boolean(window.begin)")
    yield opened
    opened.close()


@pytest.mark.browser
@pytest.mark.slow
def test_the_client_in_javascript_predicts_what_the_run_does(run, exported, pictures, page):
    found = page.evaluate("(names) => window.begin(names)", [path.name for path in pictures])
    assert found["inputs"] == exported.metadata["inputs"]
    assert found["cosine"] > 1 - 1e-5
    seen = run.predict(pictures, top_k=0)
    vectors = np.array(found["vectors"]).reshape(seen.vectors.shape)
    assert (vectors * seen.vectors).sum(axis=1).min() > 0.999
    np.testing.assert_allclose(found["expected"], seen.expected, atol=0.01)
    # A browser resizes with a filter of its own.
    images = [decode(path.read_bytes()) for path in pictures]
    for pixel_input, pixels in zip(parts_of(run).pixel_inputs, found["pixels"], strict=True):
        wanted = pixel_input.prepare(images)
        assert np.abs(np.reshape(pixels, wanted.shape) - wanted.astype(float)).mean() < 3
