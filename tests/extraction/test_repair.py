"""Repair: whatever happens to parts, they come back byte for byte, or are left with the reason."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from img2prompt_cache.cache.identity import BYTES
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.writer import writing
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.repair import Repaired, repair
from img2prompt_cache.extraction.targets import TargetWorker
from img2prompt_cache.models.encoders.base import Encoder
from img2prompt_cache.models.loader import Models
from img2prompt_cache.progress import Event
from kit import Tiny, make_source, paint, parts_of, prompt_of, save_backbone, write_prompts


@pytest.fixture(scope="module")
def whole(tiny: Tiny, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of two backbones over `pairs`: 4 columns of 3 parts; to be read only."""
    folder = tmp_path_factory.mktemp("whole") / "cache"
    tiny.extract(pairs, folder, backbones=(tiny.cnn, tiny.vit))
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "cache")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[random.Random(path.name).randrange(len(data))] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -random.Random(path.name).randrange(1, 2000)])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def link(path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    path.symlink_to(path.with_suffix(".away"))


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["values"] = np.zeros(3)


DAMAGES = [flip, cut, empty, Path.unlink, link, foreign]


def part(folder: Path, kind: str, number: int) -> str:
    return Cache(folder).manifest.of_kind(kind)[0].parts[number].file  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("kind", "number"), [("rows", 1), ("features", 2), ("targets", 0), ("targets", 2)])
def test_a_damaged_part_comes_back_and_no_other_is_touched(
    damage: Callable[[Path], None], kind: str, number: int, folder: Path
) -> None:
    before, manifest = parts_of(folder), (folder / "cache.json").read_bytes()
    name = part(folder, kind, number)
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*/**/*.h5") if path != folder / name}
    damage(folder / name)
    assert repair(folder) == Repaired((name,), ())
    assert parts_of(folder) == before
    assert (folder / "cache.json").read_bytes() == manifest
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert Cache(folder).verify() == []
    assert not (folder / name).is_symlink()


@pytest.mark.parametrize("seed", range(4))
def test_any_damage_to_any_parts_comes_back(seed: int, folder: Path) -> None:
    before, choose = parts_of(folder), random.Random(seed)
    names = choose.sample(sorted(before), choose.randint(2, 12))
    for name in names:
        choose.choice(DAMAGES)(folder / name)
    assert {damage.file for damage in Cache(folder).verify()} == {*names}
    done = repair(folder)
    assert (sorted(done.parts), done.left) == (sorted(names), ())
    assert parts_of(folder) == before


def test_everything_can_be_gone_but_the_manifest(folder: Path) -> None:
    before = parts_of(folder)
    for kind in ("rows", "features", "targets"):
        shutil.rmtree(folder / kind)
    (folder / "cache.h5").unlink()
    assert len(repair(folder).parts) == 12
    assert parts_of(folder) == before
    with h5py.File(folder / "cache.h5") as file:
        assert len(file["rows/imgId"]) == 23


def test_a_whole_cache_loads_no_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Models, "__init__", pytest.fail)
    assert repair(folder) == Repaired((), ())


def test_progress_is_told_part_by_part(folder: Path) -> None:
    told: list[Event] = []
    for number in range(3):
        (folder / part(folder, "features", number)).unlink()
    repair(folder, tell=told.append)
    assert told == [Event("step", "repair", done, 3) for done in range(4)]


def test_no_cache_and_a_cache_that_is_being_written(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no cache in"):
        repair(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with writing(folder), pytest.raises(Img2PromptError, match="is being written by process"):
        repair(folder)


@pytest.fixture
def own(tiny: Tiny, tmp_path: Path) -> tuple[Path, Path]:
    """A source that may be changed, and its cache: 24 rows in three parts."""
    source = make_source(tmp_path / "images", 24)
    tiny.extract(source, tmp_path / "cache")
    return source, tmp_path / "cache"


def test_rows_come_back_though_there_are_new_images(own: tuple[Path, Path], tiny: Tiny) -> None:
    source, folder = own
    prompts = {f"img{n:03d}": prompt_of(n) for n in range(24)}
    for name in ("a", "b"):
        paint(source / f"{name}.png", 50)
    tiny.extract(source, folder)
    before = parts_of(folder)
    for name in ("img0005", "img010", "img0165", "zzz"):
        paint(source / f"{name}.png", 60 if name != "img010" else 10)
    write_prompts(source, {"img0005": "x", **prompts, "img0165": "y", "zzz": "z"})
    for number in range(4):
        name = part(folder, "rows", number)
        blind(folder / name)
        assert repair(folder) == Repaired((name,), ()), number
    assert parts_of(folder) == before


def blind(path: Path) -> None:
    """Flip a bit of the superblock, so that nothing can be read."""
    data = bytearray(path.read_bytes())
    data[BYTES + 8] ^= 1
    path.write_bytes(data)


def test_rows_cannot_come_back_where_nothing_tells_which_they_were(own: tuple[Path, Path]) -> None:
    source, folder = own
    paint(source / "img0105.png", 60)
    write_prompts(source, {f"img{n:03d}": prompt_of(n) for n in range(11)} | {"img0105": "x"}
                  | {f"img{n:03d}": prompt_of(n) for n in range(11, 24)})  # fmt: skip
    name = part(folder, "rows", 1)
    blind(folder / name)
    before = parts_of(folder)
    (left,) = repair(folder).left
    assert left.reason == "the source has changed since; bring it back from a copy, or make a new cache"
    assert parts_of(folder) == before


def test_a_rows_part_still_tells_its_ids(own: tuple[Path, Path]) -> None:
    source, folder = own
    before = parts_of(folder)
    write_prompts(source, {"img0005": "x", **{f"img{n:03d}": prompt_of(n) for n in range(24)}})
    paint(source / "img0005.png", 60)
    name = part(folder, "rows", 0)
    whole = before[name]
    sha256 = Cache(folder).text("sha256")["sha256"][3].encode()
    assert whole.count(sha256) == 1
    (folder / name).write_bytes(whole.replace(sha256, b"0" * 64))
    assert repair(folder) == Repaired((name,), ())
    assert parts_of(folder) == before


def test_a_source_that_changed_is_told_and_the_cache_left_as_it_is(own: tuple[Path, Path]) -> None:
    source, folder = own
    names = [part(folder, kind, 1) for kind in ("rows", "features", "targets")]
    write_prompts(source, {f"img{n:03d}": "other" if n == 9 else prompt_of(n) for n in range(24)})
    paint(source / "img010.png", 99)
    whole, sha256 = (folder / names[0]).read_bytes(), Cache(folder).text("sha256")["sha256"][11].encode()
    (folder / names[0]).write_bytes(whole.replace(sha256, b"0" * 64))
    flip(folder / names[1])
    flip(folder / names[2])
    before = parts_of(folder)
    left = {damage.file: damage.reason for damage in repair(folder).left}
    assert left[names[0]].startswith("the source has changed since")
    assert "prompt" in left[names[0]]
    assert "sha256" in left[names[0]]
    for name in names[1:]:
        assert left[name] == f"it is computed from {names[0]}, which is damaged"
    assert parts_of(folder) == before
    assert not (folder / ".redo").exists()


def test_images_that_changed_or_are_gone_are_counted(own: tuple[Path, Path]) -> None:
    source, folder = own
    paint(source / "img010.png", 99)
    (source / "img012.png").unlink()
    names = [part(folder, "features", number) for number in (0, 1)]
    for name in names:
        flip(folder / name)
    damaged = (folder / names[1]).read_bytes()
    done = repair(folder)
    assert done.parts == (names[0],)
    (left,) = done.left
    assert left.file == names[1]
    assert left.reason.startswith("2 of its images have changed or are gone, first 'img010'; to keep the")
    assert (folder / names[1]).read_bytes() == damaged


def test_the_source_can_be_gone(own: tuple[Path, Path]) -> None:
    source, folder = own
    names = [part(folder, kind, 0) for kind in ("features", "targets")]
    rows = part(folder, "rows", 2)
    for name in (*names, rows):
        (folder / name).unlink()
    shutil.rmtree(source)
    done = repair(folder)
    assert done.parts == (names[1],)  # prompts are all it takes
    left = {damage.file: damage.reason for damage in done.left}
    assert {*left} == {names[0], rows}
    assert all(str(source) in reason for reason in left.values())


def test_a_model_that_is_another_now_is_told(tiny: Tiny, tmp_path: Path) -> None:
    source = make_source(tmp_path / "images", 8)
    own = save_backbone(tmp_path / "cnn")
    tiny.extract(source, tmp_path / "cache", backbones=(f"timm:local-dir:{own}", tiny.vit))
    one, other = (column.parts[0].file for column in Cache(tmp_path / "cache").manifest.of_kind("features"))
    for name in (one, other):
        (tmp_path / "cache" / name).unlink()
    shutil.rmtree(own)
    save_backbone(own, seed=1)
    done = repair(tmp_path / "cache")
    assert done.parts == (other,)
    assert (done.left[0].file, "was made differently: weights" in done.left[0].reason) == (one, True)


def test_a_folder_in_the_place_of_a_part_is_left(folder: Path) -> None:
    name = part(folder, "features", 0)
    (folder / name).unlink()
    (folder / name).mkdir()
    done = repair(folder)
    assert done.parts == ()
    assert done.left[0].reason == "a folder lies in its place; move it away and repair again"


def test_targets_that_an_earlier_version_encoded_come_back(
    own: tuple[Path, Path], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Encoder.encode
    shifts: list[float] = []

    def other_bits(self: Encoder, prompts: list[str]) -> np.ndarray:
        """What the two ways differ in, made large enough for this small model."""
        shifts.append(0.25 if self.model._earlier else 0)
        return encode(self, prompts) + shifts[-1]

    monkeypatch.setattr(Encoder, "encode", other_bits)
    with monkeypatch.context() as then:
        then.setattr(Encoder, "encode", lambda self, prompts: other_bits(self.earlier(), prompts))
        tiny.extract(own[0], tmp_path / "earlier")
    assert {*shifts} == {0.25}
    folder = tmp_path / "earlier"
    before, name = parts_of(folder), part(folder, "targets", 1)
    (folder / name).unlink()
    assert repair(folder) == Repaired((name,), ())
    assert parts_of(folder) == before
    assert {*shifts} == {0, 0.25}


def test_targets_are_not_computed_from_damaged_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = part(folder, "targets", 0), part(folder, "targets", 1)
    flip(folder / first)
    (folder / last).unlink()
    compute = TargetWorker.compute

    def failing(self, rows, *arguments):
        if rows.number == 0:
            raise Img2PromptError("no")
        return compute(self, rows, *arguments)

    monkeypatch.setattr(TargetWorker, "compute", failing)
    left = {damage.file: damage.reason for damage in repair(folder).left}
    assert left[first] == "no"
    assert "00000.h5 is damaged: its bytes have changed" in left[last]


def test_a_manifest_from_a_copy_knows_its_parts_and_names_the_newer(
    own: tuple[Path, Path], tiny: Tiny
) -> None:
    source, folder = own
    old = (folder / "cache.json").read_bytes()
    (source / "img030.png").write_bytes(b"bad")
    tiny.extract(source, folder)
    tiny.extract(source, folder, backbones=(tiny.vit,))
    new, manifest = parts_of(folder), Cache(folder).manifest.columns
    (folder / "cache.json").write_bytes(old)
    opened = Cache(folder)
    assert opened.verify() == []
    assert opened.unrecorded() == sorted(
        new.keys() - {p.file for c in opened.manifest.columns for p in c.parts}
    )
    assert len(opened.unrecorded()) == 3 + 4
    assert repair(folder) == Repaired((), ())
    tiny.extract(source, folder)
    tiny.extract(source, folder, backbones=(tiny.vit,))
    assert Cache(folder).unrecorded() == []
    assert parts_of(folder) == new
    assert Cache(folder).manifest.columns == manifest


def test_a_manifest_older_than_a_retry_is_told(own: tuple[Path, Path], tiny: Tiny) -> None:
    source, folder = own
    (source / "img030.png").write_bytes(b"bad")
    tiny.extract(source, folder)
    old = (folder / "cache.json").read_bytes()
    paint(source / "img030.png", 30)
    tiny.extract(source, folder, retry_failed=True)
    (folder / "cache.json").write_bytes(old)
    opened = Cache(folder)
    assert [damage.file.rpartition("/")[2] for damage in opened.verify()] == ["00003.h5"] * 2
    assert [name.rpartition("/")[2] for name in opened.unrecorded()] == ["00003-r1.h5"] * 2
    done = repair(folder)
    assert (done.parts, len(done.left)) == ((), 2)


def test_files_of_strangers_are_named_and_never_touched(
    folder: Path, whole: Path, pairs: Path, tiny: Tiny
) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    strange = ["rows/00003.h5", "rows/notes.txt", "features/other/00000.h5", "trunk/x/00000.h5", "mine.h5"]
    for name in strange:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        foreign(folder / name)
    (folder / "targets" / "link").symlink_to(outside)
    opened = Cache(folder)
    assert opened.verify() == []
    assert opened.unrecorded() == sorted([*strange, "targets/link"])
    before = {name: (folder / name).read_bytes() for name in strange}
    repair(folder)
    tiny.extract(pairs, folder, backbones=())
    assert {name: (folder / name).read_bytes() for name in strange} == before
    assert Cache(whole).unrecorded() == []
