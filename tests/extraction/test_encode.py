"""Reading and decoding a slice, with real files."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from img2prompt_cache.errors import ImageError
from img2prompt_cache.extraction.encode import Image, encode_batches
from img2prompt_cache.extraction.report import Clock
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.sources.base import Listing
from kit import Tiny, make_source


@pytest.fixture(scope="module")
def backbones(tiny: Tiny) -> dict[str, Backbone]:
    return {spec: load_backbone(spec) for spec in (tiny.cnn, tiny.vit)}


class Folder:
    """A source of the files of a folder that counts how often each is read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings: dict[str, str] = {}
        self.read_counts: Counter[str] = Counter()

    def list(self) -> Listing:
        raise NotImplementedError

    def read(self, uri: str) -> bytes:
        self.read_counts[uri] += 1
        try:
            return (self.root / uri).read_bytes()
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}") from error


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    root = make_source(tmp_path / "images", 10)
    (root / "img002.png").write_bytes(b"")
    (root / "img003.png").write_bytes(b"no image")
    (root / "img004.png").unlink()
    for copy in (6, 8, 9):
        shutil.copy(root / "img000.png", root / f"img{copy:03d}.png")
    shutil.copy(root / "img003.png", root / "img007.png")
    return Folder(root)


def rows(**known: list[str]) -> Slice:
    uris = [f"img{n:03d}.png" for n in range(10)]
    return Slice(3, 24, {"imgId": uris, "uri": uris, "prompt": [""] * 10, **known})


def read(
    folder: Folder, backbones: dict[str, Backbone], size: int, lanes: int, given: Slice | None = None
) -> list[Image]:
    """Every image; on the way, features are held against those of the files one by one."""
    done: list[Image] = []
    for batch in encode_batches(given or rows(), folder, backbones, size, lanes):
        assert batch.first == len(done)
        assert len(batch.images) == min(size, 10 - batch.first)
        done += batch.images
        good = [i for i, image in enumerate(batch.images) if not image.reason and image.duplicate_of < 0]
        assert batch.fresh == good
        assert set(batch.features) == (set(backbones) if good else set())
        for backbone in backbones.values() if good else ():
            for i, found in zip(good, batch.features[backbone.spec], strict=True):
                picture = decode((folder.root / f"img{batch.first + i:03d}.png").read_bytes())
                alone = backbone.encode(torch.from_numpy(backbone.geometry.apply(picture)[None]))
                np.testing.assert_allclose(found, alone[0], rtol=1e-4, atol=1e-5)
    assert len(done) == 10
    return done


@pytest.mark.parametrize(("size", "lanes"), [(1, 1), (4, 3), (10, 2), (64, 1)])
def test_every_image_is_read_once_and_encoded_or_given_a_reason(
    size: int, lanes: int, folder: Folder, backbones: dict[str, Backbone]
) -> None:
    threads = torch.get_num_threads()
    done = read(folder, backbones, size, lanes)
    assert torch.get_num_threads() == threads
    assert set(folder.read_counts.values()) == {1}
    assert [image.duplicate_of for image in done] == [-1, -1, -1, -1, -1, -1, 0, 3, 0, 0]
    assert [bool(image.reason) for image in done] == [n in (2, 3, 4, 7) for n in range(10)]
    assert (done[2].reason, done[7].reason) == ("empty", done[3].reason)
    assert "No such file" in done[4].reason
    for number, image in enumerate(done):
        if number != 4:
            data = (folder.root / f"img{number:03d}.png").read_bytes()
            assert image.sha256 == hashlib.sha256(data).hexdigest()


def test_rows_that_are_known_are_checked_against_what_they_were(
    folder: Folder, backbones: dict[str, Backbone]
) -> None:
    first = read(folder, backbones, 4, 1)
    hashes = [image.sha256 for image in first]
    hashes[5] = "0" * 64
    hashes[8] = "1" * 64
    status = ["failed" if n in (1, 2, 3, 4, 7) else "ok" for n in range(10)]
    folder.read_counts.clear()
    done = read(folder, backbones, 4, 2, rows(sha256=hashes, status=status))
    assert set(folder.read_counts) == {f"img{n:03d}.png" for n in (0, 5, 6, 8, 9)}
    changed = "the image has changed since it was first cached"
    assert [image.reason for image in done] == [
        changed if n in (5, 8) else "failed before" if status[n] == "failed" else "" for n in range(10)
    ]
    assert [image.duplicate_of for image in done] == [-1] * 6 + [0, -1, -1, 0]


def test_work_is_charged_to_its_stage(folder: Folder, backbones: dict[str, Backbone]) -> None:
    clock = Clock()
    for batch in encode_batches(rows(), folder, backbones, 4, 2):
        clock.add(batch.clock)
    assert set(clock.seconds) == {"read", "decode", *backbones}
    assert min(clock.seconds.values()) > 0


def test_no_lane_is_left_behind_by_a_reader_that_stops_early(
    folder: Folder, backbones: dict[str, Backbone]
) -> None:
    batches = encode_batches(rows(), folder, backbones, 1, 2)
    next(batches)
    batches.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("lane")]


def test_a_lane_that_nobody_waits_for_ends_where_it_stands(
    tmp_path: Path, backbones: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"img{n:03d}" for n in range(60)]
    source = Folder(make_source(tmp_path / "images", 60))
    decoded: list[bytes] = []

    def slow(data: bytes) -> object:
        decoded.append(data)
        time.sleep(0.03)
        return decode(data)

    monkeypatch.setattr("img2prompt_cache.extraction.encode.decode", slow)
    everything = Slice(0, 0, {"imgId": ids, "uri": [f"{name}.png" for name in ids]})
    batches = encode_batches(everything, source, backbones, 15, 2)
    next(batches)
    before = len(decoded)
    assert before < 50
    batches.close()
    assert len(decoded) - before <= 4


def test_no_rows_no_batches() -> None:
    assert list(encode_batches(Slice(0, 0, {"imgId": []}), Folder(Path()), {}, 4, 1)) == []
