"""Reading and decoding a slice, with real files."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from img2prompt_cache.errors import ImageError
from img2prompt_cache.geometry import Geometry
from img2prompt_cache.images import decode
from img2prompt_cache.reader import Clock, Image, Reader, Slice
from img2prompt_cache.sources.base import Listing
from kit import make_source

SMALL = Geometry("squash", (8, 8), (8, 8), "bilinear")
LARGE = Geometry("shortest", (16, 16), (16, 16))


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


def read(folder: Folder, size: int, threads: int, given: Slice | None = None) -> list[Image]:
    """Every image, with what its pixels hashed to while it was at hand."""
    reader = Reader(given or rows(), folder, {SMALL, LARGE}, Clock())
    expected = 0
    for first, batch in reader.batches(size, threads):
        assert first == expected
        assert len(batch) == min(size, 10 - first)
        expected += len(batch)
        for image in batch:
            good = not image.reason and image.twin < 0
            assert set(image.pixels) == ({SMALL, LARGE} if good else set())
            if good:
                path = folder.root / f"img{first + batch.index(image):03d}.png"
                for geometry in (SMALL, LARGE):
                    np.testing.assert_array_equal(
                        image.pixels[geometry], geometry.apply(decode(path.read_bytes()))
                    )
    assert expected == 10
    return reader.done


@pytest.mark.parametrize(("size", "threads"), [(1, 1), (4, 3), (10, 2), (64, 1)])
def test_every_image_is_read_once_and_decoded_or_given_a_reason(
    size: int, threads: int, folder: Folder
) -> None:
    done = read(folder, size, threads)
    assert set(folder.read_counts.values()) == {1}
    assert [image.twin for image in done] == [-1, -1, -1, -1, -1, -1, 0, 3, 0, 0]
    assert [bool(image.reason) for image in done] == [n in (2, 3, 4, 7) for n in range(10)]
    assert (done[2].reason, done[7].reason) == ("empty", done[3].reason)
    assert "No such file" in done[4].reason
    for number, image in enumerate(done):
        if number != 4:
            data = (folder.root / f"img{number:03d}.png").read_bytes()
            assert image.sha256 == hashlib.sha256(data).hexdigest()
        assert image.pixels == {}


def test_rows_that_are_known_are_checked_against_what_they_were(folder: Folder) -> None:
    first = read(folder, 4, 1)
    hashes = [image.sha256 for image in first]
    hashes[5] = "0" * 64
    hashes[8] = "1" * 64
    status = ["failed" if n in (1, 2, 3, 4, 7) else "ok" for n in range(10)]
    folder.read_counts.clear()
    done = read(folder, 4, 2, rows(sha256=hashes, status=status))
    assert set(folder.read_counts) == {f"img{n:03d}.png" for n in (0, 5, 6, 8, 9)}
    changed = "the image has changed since it was first cached"
    assert [image.reason for image in done] == [
        changed if n in (5, 8) else "failed before" if status[n] == "failed" else "" for n in range(10)
    ]
    assert [image.twin for image in done] == [-1] * 6 + [0, -1, -1, 0]


def test_work_is_charged_to_its_stage(folder: Folder) -> None:
    clock = Clock()
    reader = Reader(rows(), folder, {SMALL}, clock)
    assert len(list(reader.batches(4, 2))) == 3
    assert set(clock.seconds) == {"read", "decode"}
    assert min(clock.seconds.values()) > 0
    with clock.timed("read"):
        pass
    before = clock.seconds["read"]
    clock.charge("read", 1.5)
    assert clock.seconds["read"] == before + 1.5


def test_a_slice_knows_its_length_and_whether_it_is_known() -> None:
    assert len(rows()) == 10
    assert not rows().known
    assert rows(sha256=[], status=[]).known
    assert list(Reader(Slice(0, 0, {"imgId": []}), Folder(Path()), set(), Clock()).batches(4, 1)) == []
