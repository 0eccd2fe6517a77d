"""The pass over a source, with real models: what it writes, and that nothing disturbs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from img2prompt_cache.cache import writer
from img2prompt_cache.cache.manifest import Column, Manifest, Part
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction import execute
from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.encoders.base import load_encoder
from kit import Log, Tiny, make_source, paint, parts_of, prompt_of, save_backbone, write_prompts

pytestmark = pytest.mark.usefixtures("no_weights")


def columns(folder: Path) -> dict[str, np.ndarray]:
    cache = Cache(folder)
    return {column.kind: cache.values(column) for column in cache.manifest.columns[1:]}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of a backbone was given."""
    seen: list[int] = []
    read = Backbone.read

    def counting(self: Backbone, pixels: torch.Tensor, names: Any) -> dict[str, np.ndarray]:
        seen.append(len(pixels))
        return read(self, pixels, names)

    monkeypatch.setattr(Backbone, "read", counting)
    return seen


def test_features_and_targets_are_the_models_own(made: Path, pairs: Path, tiny: Tiny) -> None:
    backbone, encoder = load_backbone(tiny.cnn), load_encoder(tiny.encoder)
    cache = Cache(made)
    text = cache.text("uri", "prompt", "status")
    found = columns(made)
    for row, uri in enumerate(text["uri"]):
        if text["status"][row] == "ok":
            pixels = backbone.geometry.apply(decode((pairs / uri).read_bytes()))
            (expected,) = backbone.encode(torch.from_numpy(pixels[None]))
            np.testing.assert_allclose(found["features"][row], expected, rtol=2e-3, atol=1e-4)
        else:
            assert np.isnan(found["features"][row]).all()
    has = np.array([bool(prompt) for prompt in text["prompt"]])
    assert has.sum() == 22
    np.testing.assert_allclose(found["targets"][has], encoder.encode(text["prompt"])[has], atol=1e-6)
    assert np.isnan(found["targets"][~has]).all()
    np.testing.assert_array_equal(found["features"][5], found["features"][4])
    assert len(np.unique(found["features"][:17], axis=0)) == 16


def test_a_cache_is_laid_out_as_promised(made: Path, pairs: Path, tiny: Tiny) -> None:
    manifest = json.loads((made / "cache.json").read_text())
    assert {key: value for key, value in manifest.items() if key not in ("columns", "sources")} == {
        "schema": 2,
        "rows": 23,
        "part_rows": 8,
        "batch_size": 4,
        "preset": None,
        "extra": [],
        "updates": [],
    }
    assert [(source["root"], source["format"]) for source in manifest["sources"]] == [(str(pairs), "table")]
    rows, features, targets = manifest["columns"]
    assert (features["spec"], features["dtype"]) == (tiny.cnn, "float16")
    assert (targets["spec"], targets["dtype"]) == (tiny.encoder, "float32")
    assert features["fingerprint"] == load_backbone(tiny.cnn).fingerprint
    assert targets["fingerprint"] == load_encoder(tiny.encoder).fingerprint
    files = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    recorded = [part["file"] for column in manifest["columns"] for part in column["parts"]]
    assert sorted(files - {".lock"}) == sorted(["cache.json", "cache.h5", "stamps.npy", *recorded])
    for column in (features, targets):
        assert [(part["start"], part["stop"]) for part in column["parts"]] == [(0, 8), (8, 16), (16, 23)]
        for part in column["parts"]:
            with h5py.File(made / part["file"]) as file:
                assert list(file) == ["values"]
                values = file["values"]
                assert values.dtype == column["dtype"]
                assert values.shape == (part["stop"] - part["start"], *column["shape"])
                assert (values.chunks, values.compression, values.fletcher32) == (None, None, False)
    assert sorted(h5py.File(made / rows["parts"][0]["file"])) == sorted(
        ["imgId", "uri", "prompt", "sha256", "status", "reason"]
    )


def test_two_passes_in_two_folders_give_the_same_bytes(
    made: Path, pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    time.sleep(1.1)  # a time stamp would differ now
    tiny.extract(shutil.copytree(pairs, tmp_path / "images"), tmp_path / "cache")
    assert parts_of(tmp_path / "cache") == parts_of(made)
    one, other = (json.loads((folder / "cache.json").read_text()) for folder in (made, tmp_path / "cache"))
    assert {**one, "sources": 0} == {**other, "sources": 0}


def test_a_pass_tells_what_it_will_do_and_what_it_did(
    pairs: Path, tiny: Tiny, tmp_path: Path, log: Log
) -> None:
    report = tiny.extract(pairs, tmp_path / "cache", log)
    (plan,) = log.plans
    assert (plan.rows, plan.fresh, plan.work, log.rows) == (23, 23, 23, 23)
    assert [name.partition("/")[0] for name in plan.columns] == ["rows", "features", "targets"]
    written = sum(map(len, parts_of(tmp_path / "cache").values()))
    assert 0.3 * written < plan.bytes < 3 * written
    assert (plan.summary.pairs, plan.summary.without_prompt) == (22, 1)
    assert (report.rows, report.ok, report.failed, report.fresh) == (23, 20, 3, 23)
    assert (report.identical, report.without_prompt) == (2, 1)
    assert sum(report.reasons.values()) == 3
    assert "empty" in report.reasons
    assert set(report.stages) == {"read", "decode", "write", tiny.cnn, tiny.encoder}
    assert all(seconds > 0 for seconds in report.stages.values())


def test_whoever_reads_meanwhile_finds_rows_that_have_every_column(
    pairs: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def commit(folder: Path, manifest: Manifest, parts: list[tuple[Column, Part]]) -> Manifest:
        saved = writer.commit(folder, manifest, parts)
        seen.append({column.rows for column in load_manifest(folder).columns})
        return saved

    monkeypatch.setattr(execute, "commit", commit)
    tiny.extract(pairs, tmp_path / "cache")
    assert seen == [{8}, {16}, {23}]


def test_a_whole_cache_is_left_as_it_is(
    cache: Path, pairs: Path, tiny: Tiny, log: Log, counted: list[int]
) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in cache.rglob("*.h5")}
    report = tiny.extract(pairs, cache, log)
    assert (report.fresh, report.rows, log.plans[0].work, counted) == (0, 23, 0, [])
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in cache.rglob("*.h5")} == before
    (cache / "cache.h5").unlink()
    tiny.extract(pairs, cache)
    assert (cache / "cache.h5").exists()


def test_identical_images_of_a_part_are_encoded_once(tiny: Tiny, tmp_path: Path, counted: list[int]) -> None:
    source = make_source(tmp_path / "images", 16)
    for number in (1, 2, 5, 7, 8):
        shutil.copy(source / "img000.png", source / f"img{number:03d}.png")
    report = tiny.extract(source, tmp_path / "cache")
    assert report.identical == 5
    assert sum(counted) == 16 - 4
    features = columns(tmp_path / "cache")["features"]
    for number in (1, 2, 5, 7):
        np.testing.assert_array_equal(features[number], features[0])
    np.testing.assert_allclose(features[8], features[0], rtol=2e-3, atol=1e-4)


def test_new_images_are_added(tiny: Tiny, tmp_path: Path, log: Log, counted: list[int]) -> None:
    source = make_source(tmp_path / "images", 10)
    tiny.extract(source, tmp_path / "cache")
    before, seen = parts_of(tmp_path / "cache"), sum(counted)
    paint(source / "a-new-one.png", 100)
    paint(source / "img0005.png", 101)
    known = {f"img{n:03d}": prompt_of(n) for n in range(10)}
    write_prompts(source, {"a-new-one": prompt_of(0), **known, "img0005": "pixel art"})
    report = tiny.extract(source, tmp_path / "cache", log)
    after = parts_of(tmp_path / "cache")
    assert {name: after[name] for name in before} == before
    assert sum(counted) - seen == 2
    assert (report.fresh, report.rows, log.rows) == (2, 12, 2)
    assert Cache(tmp_path / "cache").text("imgId")["imgId"] == [*known, "a-new-one", "img0005"]
    found = columns(tmp_path / "cache")
    np.testing.assert_array_equal(found["targets"][10], found["targets"][0])
    assert np.isfinite(found["features"]).all()
    with h5py.File(tmp_path / "cache" / "cache.h5") as file:
        assert len(file["rows/imgId"]) == 12


def test_a_backbone_can_be_added_later(
    cache: Path, pairs: Path, tiny: Tiny, tmp_path: Path, log: Log
) -> None:
    before = parts_of(cache)
    tiny.extract(pairs, cache, log, backbones=(tiny.vit,))
    after = parts_of(cache)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 3
    assert len(log.plans[0].columns) == 1
    tiny.extract(pairs, tmp_path / "both", backbones=(tiny.cnn, tiny.vit))
    assert parts_of(tmp_path / "both") == after
    # From now on both are kept up to date, whether they are named or not.
    paint(pairs_copy(pairs, cache, tmp_path) / "zz.png", 7)
    tiny.extract(tmp_path / "images", cache, backbones=())
    assert {column.rows for column in Cache(cache).manifest.columns} == {24}


def pairs_copy(pairs: Path, cache: Path, tmp_path: Path) -> Path:
    """Copy the source, and let the cache know it as its own."""
    manifest = (cache / "cache.json").read_text()
    (cache / "cache.json").write_text(manifest.replace(f'"{pairs}"', f'"{tmp_path / "images"}"'))
    return shutil.copytree(pairs, tmp_path / "images")


def test_what_vanished_or_changed_is_missing_from_a_later_backbone(
    cache: Path, pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    source = pairs_copy(pairs, cache, tmp_path)
    text = Cache(cache).text("uri")
    paint(source / text["uri"][2], 99)
    report = tiny.extract(source, cache, Removing(source / text["uri"][9]), backbones=(tiny.vit,))
    cached = Cache(cache)
    first, late = cached.manifest.of_kind("features")
    assert report.missing == cached.lacking() == {late.folder: 2}
    assert cached.missing([late]) == {2, 9}
    assert cached.missing([first]) == set()
    nan = np.isnan(cached.values(late)).all(1)
    assert set(np.flatnonzero(nan)) == {2, 9, 19, 20, 21}
    assert cached.verify() == []


def test_a_source_that_is_another_one_now_adds_no_empty_column(
    cache: Path, pairs: Path, tiny: Tiny, tmp_path: Path
) -> None:
    source = pairs_copy(pairs, cache, tmp_path)
    for seed, uri in enumerate(Cache(cache).text("uri")["uri"]):
        paint(source / uri, 500 + seed)
    with pytest.raises(Img2PromptError, match="could be read again: they are gone or have changed"):
        tiny.extract(source, cache, backbones=(tiny.vit,))
    assert Cache(cache).lacking() == {}


class Removing(Log):
    """Takes a file away once the source is listed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def plan(self, plan: Any) -> None:
        self.path.unlink()


def test_a_vanished_image_of_a_listing_is_a_row_with_a_reason(tiny: Tiny, tmp_path: Path) -> None:
    source = make_source(tmp_path / "images", 6)
    report = tiny.extract(source, tmp_path / "cache", Removing(source / "img004.png"))
    assert (report.ok, report.failed) == (5, 1)
    text = Cache(tmp_path / "cache").text("status", "reason")
    assert text["status"] == ["ok"] * 4 + ["failed", "ok"]
    assert "cannot be read" in text["reason"][4]


def test_if_no_image_is_good_the_pass_fails(tiny: Tiny, tmp_path: Path) -> None:
    source = tmp_path / "images"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.png").write_bytes(b"" if number else b"x")
    with pytest.raises(Img2PromptError, match="none of the 3 images could be used; 2 of them: empty"):
        tiny.extract(source, tmp_path / "cache", format="folder")


def test_prompts_are_cleaned_where_asked(made: Path, pairs: Path, tiny: Tiny, tmp_path: Path) -> None:
    tiny.extract(pairs, tmp_path / "cache", clean="seed")
    targets = Cache(tmp_path / "cache").manifest.of_kind("targets")[0]
    assert targets.fingerprint["clean"] == "seed"
    prompts = Cache(made).text("prompt")["prompt"]
    expected = load_encoder(tiny.encoder, clean="seed").encode(prompts[:19])
    np.testing.assert_allclose(columns(tmp_path / "cache")["targets"][:19], expected, atol=1e-6)
    assert np.abs(expected - columns(made)["targets"][:19]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"precision": "bf16"}, "precision was fp32, is now bf16"),
        ({"clean": "seed"}, "clean was none, is now seed"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_what_was_made_otherwise_is_not_mixed(
    options: dict[str, str], field: str, named: bool, cache: Path, pairs: Path, tiny: Tiny
) -> None:
    before = (cache / "cache.json").read_bytes()
    unnamed = {} if named else {"backbones": (), "encoder": None}
    with pytest.raises(Img2PromptError, match=f"was made differently: {field}. Use what"):
        tiny.extract(pairs, cache, **unnamed, **options)
    assert (cache / "cache.json").read_bytes() == before


@pytest.mark.parametrize("model", ["cnn", "encoder"])
def test_other_weights_under_the_same_name_are_refused(
    model: str, tiny: Tiny, tmp_path: Path, log: Log
) -> None:
    from kit import save_encoder

    source = make_source(tmp_path / "images", 4)
    own = {
        "cnn": save_backbone(tmp_path / "cnn"),
        "encoder": save_encoder(tmp_path / "encoder"),
    }
    specs = {"backbones": (f"timm:local-dir:{own['cnn']}",), "encoder": f"st:local-dir:{own['encoder']}"}
    tiny.extract(source, tmp_path / "cache", **specs)
    shutil.rmtree(own[model])
    (save_backbone if model == "cnn" else save_encoder)(own[model], seed=1)
    tiny.extract(source, tmp_path / "cache", **specs)  # nothing is to be done, so no model is asked for
    paint(source / "new.png", 5)
    before = parts_of(tmp_path / "cache")
    with pytest.raises(Img2PromptError, match="was made differently: weights was sha256"):
        tiny.extract(source, tmp_path / "cache", **specs)
    assert parts_of(tmp_path / "cache") == before
    assert Cache(tmp_path / "cache").rows == 4


def test_a_disk_with_too_little_room_is_refused_before_anything_is_written(
    pairs: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=9_000))
    with pytest.raises(Img2PromptError, match=r"needs about .* MB more, and the disk has 0.0 MB left"):
        tiny.extract(pairs, tmp_path / "cache")
    assert not (tmp_path / "cache" / "cache.json").exists()
    monkeypatch.undo()
    assert tiny.extract(pairs, tmp_path / "cache").rows == 23


@pytest.mark.parametrize("kind", ["features", "targets"])
def test_a_deleted_part_is_computed_again_to_the_same_bytes(
    kind: str, cache: Path, pairs: Path, tiny: Tiny, log: Log
) -> None:
    before, manifest = parts_of(cache), (cache / "cache.json").read_bytes()
    column = Cache(cache).manifest.of_kind(kind)[0]
    for number in (1, 2):
        (cache / column.parts[number].file).unlink()
    tiny.extract(pairs, cache, log)
    assert (log.plans[0].work, log.plans[0].columns) == (15, (column.folder,))
    assert parts_of(cache) == before
    assert (cache / "cache.json").read_bytes() == manifest
    path = cache / column.parts[0].file
    path.write_bytes(path.read_bytes()[:-9])
    tiny.extract(pairs, cache)
    assert parts_of(cache) == before


def test_rows_that_are_damaged_stop_the_pass(cache: Path, pairs: Path, tiny: Tiny) -> None:
    path = cache / "rows" / "00001.h5"
    data = bytearray(path.read_bytes())
    data[-50] ^= 4
    path.write_bytes(data)
    with pytest.raises(Img2PromptError, match=r"rows/00001\.h5 is damaged.*repair"):
        tiny.extract(pairs, cache)


def test_a_feature_that_float16_cannot_hold_is_an_error(pairs: Path, tiny: Tiny, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import load_file, save_file

    folder = save_backbone(tmp_path / "cnn")
    state = load_file(folder / "model.safetensors")
    names = timm.create_model("test_resnet", num_classes=0).state_dict()
    last = [name for name in names if "weight" in name][-1]
    save_file({**state, last: state[last] * 1e9}, folder / "model.safetensors")
    with pytest.raises(
        Img2PromptError, match=r"not finite or too large for float16 .* try `precision=.fp32.`"
    ):
        tiny.extract(pairs, tmp_path / "cache", backbones=(f"timm:local-dir:{folder}",))
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    assert load_manifest(tmp_path / "cache").rows == 0


DRIVER = """
import os, random, signal, sys, time
from pathlib import Path
kills, folder, arguments = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
sys.argv[1:] = arguments
# Everything is imported once, here; each child begins where a fresh process would after its imports.
import filelock, timm, torch, sentence_transformers
import img2prompt_cache.cli.main as cli
import img2prompt_cache.models.encoders.base
from img2prompt_cache.extraction import extract
from img2prompt_cache.models.backbones import timm_models

def child():
    pid = os.fork()
    if pid == 0:
        sys.stderr = open(os.devnull, "w")
        try:
            cli.main()
        except SystemExit as done:
            os._exit(done.code)
    return pid

def whole():
    assert os.waitpid(child(), 0)[1] == 0

at = sys.argv.index("--cache") + 1
started = time.time()
whole()
end = time.time() - started
loaded = min(part.stat().st_mtime for part in Path(sys.argv[at]).glob("*/**/*.h5")) - started
sys.argv[at] = str(folder)
moments = random.Random(0)
killed = finished = 0
while killed < kills:
    fresh, began = not folder.exists(), time.time()
    pid, gone = child(), 0
    until = began + moments.uniform(0 if killed % 4 == 0 else loaded, end)
    while not gone and time.time() < until:
        time.sleep(0.002)
        gone, status = os.waitpid(pid, os.WNOHANG)
    if not gone:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        killed += 1
        continue
    assert status == 0, status
    finished += 1
    folder.rename(f"{folder}-{finished}")
    if fresh:  # the machine was slower before: the next moments are to lie within the work
        took = min(end, time.time() - began)
        loaded, end = loaded * took / end, took
whole()
print(f"work from {loaded:.2f} to {end:.2f} s, {killed} killed, {finished} finished first")
"""


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_anywhere_it_goes_on_to_the_same_bytes(kills: int, tiny: Tiny, tmp_path: Path) -> None:
    source = make_source(tmp_path / "images", 60)
    (source / "img030.png").write_bytes(b"bad")
    shutil.copy(source / "img010.png", source / "img012.png")
    print(run_driver(kills, tmp_path, tiny.arguments(source, tmp_path / "whole")))
    expected = parts_of(tmp_path / "whole")
    assert len(expected) == 4 * 8
    for folder in tmp_path.glob("killed*"):
        assert parts_of(folder) == expected
        assert (folder / "cache.json").read_bytes() == (tmp_path / "whole" / "cache.json").read_bytes()
        assert Cache(folder).verify() == []
        assert not list(folder.rglob("*.tmp"))


def run_driver(kills: int, tmp_path: Path, arguments: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(kills), str(tmp_path / "killed"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
