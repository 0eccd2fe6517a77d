"""Bundles: a run with its weights and prompts predicts anywhere; one that was tampered with is refused."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.app.engine import Engine, Prediction
from img2prompt_cache.app.settings import Settings
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.runs import bundled
from img2prompt_cache.runs.bundle import _require_free as require_free_bundle
from img2prompt_cache.runs.run import load_run
from kit import Log, Tiny, save_backbone, save_clip, save_encoder
from synthetic import Cli

CLASSES = ("two red boats", "a calm sea", "night at sea")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture(scope="module")
def here(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two backbones, one of them a pickle, one with class names; the bundle; what it predicted."""
    home = tmp_path_factory.mktemp("here")
    models = home / "models"
    models.mkdir()
    cnn = save_backbone(models / "cnn", classes=CLASSES)
    (cnn / "LICENSE").write_text("Do what you like.\n")
    config = json.loads((cnn / "config.json").read_text())
    config["pretrained_cfg"]["license"] = "apache-2.0"
    (cnn / "config.json").write_text(json.dumps(config))
    clip = save_clip(models / "clip")
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(clip / "open_clip_model.safetensors"), clip / "open_clip_pytorch_model.bin")
    (clip / "open_clip_model.safetensors").unlink()
    (clip / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    tiny = Tiny(
        cnn=f"timm:local-dir:{cnn}",
        vit=f"open_clip:local-dir:{clip}",
        encoder=f"st:local-dir:{save_encoder(models / 'encoder')}",
    )
    tiny.extract(pairs, home / "cache", backbones=(tiny.cnn, tiny.vit), taps=choose_taps(names=True))
    run = fit_head(Cache(home / "cache"), FitConfig("ridge", {"alpha": 0.1}, split="random"))
    ipc.bundle(run.folder, home / "run.zip")
    ipc.bundle(run.folder, home / "folder")
    seen = run.predict([pairs / "img004.png", pairs / "img007.png"], top_k=3)
    np.save(home / "seen.npy", seen.vectors)
    (home / "seen.json").write_text(json.dumps([seen.prompts, np.asarray(seen.scores).tolist()]))
    models.rename(home / "gone")
    (home / "cache").rename(home / "gone-cache")
    return home


def same(here: Path, run: Path, pairs: Path) -> None:
    seen = ipc.predict(run, [pairs / "img004.png", pairs / "img007.png"], top_k=3)
    np.testing.assert_array_equal(seen.vectors, np.load(here / "seen.npy"))
    prompts, scores = json.loads((here / "seen.json").read_text())
    assert seen.prompts == prompts
    np.testing.assert_array_equal(np.asarray(seen.scores).tolist(), scores)


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_without_prompts_is_bundled_again(here: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(here / "folder", tmp_path / "bare")
    shutil.rmtree(bare / "bank")
    info = json.loads((bare / "bundle.json").read_text())
    info["files"] = {name: each for name, each in info["files"].items() if not name.startswith("bank/")}
    (bare / "bundle.json").write_text(json.dumps(info))
    log = Log()
    ipc.bundle(bare, tmp_path / "again.zip", progress=log)
    assert any(note.endswith("so the bundle has no prompts to show") for note in log.notes)
    assert not [name for name in entries(tmp_path / "again.zip") if name.startswith("bank/")]


@pytest.mark.parametrize("name", ["run.zip", "folder"])
def test_a_bundle_predicts_what_the_run_did_without_its_cache_and_weights(
    here: Path, pairs: Path, tmp_path: Path, name: str
) -> None:
    copy = shutil.copytree if name == "folder" else shutil.copy
    copy(here / name, tmp_path / name)
    same(here, tmp_path / name, pairs)


def test_a_bundle_composes_and_encodes_other_prompts(here: Path, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "bank.txt").write_text("two red boats\na calm sea\n")
    seen = ipc.predict(here / "folder", pairs / "img004.png", bank=tmp_path / "bank.txt", compose=True)
    assert {*seen.prompts[0]} == {"two red boats", "a calm sea"}
    assert seen.composed is not None


def test_the_app_serves_a_bundle(here: Path, pairs: Path) -> None:
    engine = Engine(Settings(run=str(here / "run.zip")))
    (seen,) = engine.predict(engine.default, [(pairs / "img004.png").read_bytes()])
    assert isinstance(seen, Prediction)
    np.testing.assert_allclose(seen.vector, np.load(here / "seen.npy")[0], atol=1e-6)
    bank = json.loads((here / "folder" / "bank" / "prompts.json").read_text())
    assert {prompt for prompt, _ in seen.prompts} <= {*bank}  # the order of prompts so alike is a last bit's


def test_both_forms_hold_the_same_files_and_no_pickle(here: Path) -> None:
    zipped = entries(here / "run.zip")
    folder = here / "folder"
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert zipped == files
    assert next(iter(zipped)) == "bundle.json"
    kinds = {Path(name).suffix for name in files}
    assert kinds <= {"", ".csv", ".json", ".md", ".npy", ".safetensors", ".txt"}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    usual = here / "usual"
    usual.touch()
    assert modes == {stat.S_IMODE(usual.stat().st_mode)}


def test_licences_travel(here: Path) -> None:
    said = json.loads((here / "folder" / "bundle.json").read_text())["weights"]
    declared = {Path(each["folder"]).name[3:]: each["license"] for each in said}
    assert declared == {"cnn": "apache-2.0", "clip": "mit", "encoder": ""}
    (cnn,) = (here / "folder" / "weights").glob("*-cnn")
    assert (cnn / "LICENSE").read_text() == "Do what you like.\n"


def test_the_same_run_gives_the_same_bytes(here: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        ipc.bundle(here / "folder", tmp_path / name)  # a bundle of a bundle
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"a.zip", "b.zip"}
    assert entries(tmp_path / "a.zip").keys() == entries(here / "run.zip").keys()


def test_the_temporary_folder_of_a_zip_file_goes(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = load_run(here / "run.zip")
    assert len([*tmp_path.iterdir()]) == 1
    assert run.name == load_run(here / "folder").name
    del run
    assert [*tmp_path.iterdir()] == []


def rewritten(source: Path, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Copy a bundle with other entries."""
    files = entries(source)
    change(files)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def listing(files: dict[str, bytes], name: str, **values: object) -> None:
    """Change what `bundle.json` says of a file."""
    said = json.loads(files["bundle.json"])
    said["files"].setdefault(name, {"bytes": len(files.get(name, b"")), "sha256": ""}).update(values)
    files["bundle.json"] = json.dumps(said).encode()


def test_a_bundle_that_was_compressed_again_is_as_good(here: Path, tmp_path: Path) -> None:
    path = rewritten(here / "run.zip", tmp_path / "again.zip", lambda files: None)
    assert load_run(path).head == "ridge"


def add(name: str, data: bytes = b"x") -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[name] = data
        listing(files, name)

    return change


def head_changed(files: dict[str, bytes]) -> None:
    files["run/head.safetensors"] = b"?" + files["run/head.safetensors"][1:]


def head_shortened(files: dict[str, bytes]) -> None:
    files["run/head.safetensors"] = files["run/head.safetensors"][:-1]


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "a path out of it": (add("../evil.txt"), r"'../evil.txt' is no name"),
    "a path out of it from inside": (add("weights/../../evil.txt"), r"is no name of a file in a bundle"),
    "an absolute path": (add("/tmp/evil.txt"), r"'/tmp/evil.txt' is no name"),
    "a backslash": (add("weights\\..\\evil.txt"), r"is no name of a file in a bundle"),
    "a hidden file": (add("weights/.evil.txt"), r"is no name of a file in a bundle"),
    "a pickle": (add("weights/00-cnn/pytorch_model.bin"), r"pytorch_model.bin is of a kind that bundles do"),
    "code": (add("weights/00-cnn/model.py"), r"model.py is of a kind that bundles do not hold"),
    "a file that is not listed": (
        lambda files: files.update({"weights/00-cnn/more.json": b"{}"}),
        r"'weights/00-cnn/more.json' is not listed",
    ),
    "a file that is missing": (lambda files: files.pop("run/history.csv"), r"run/history.csv is missing"),
    "another head": (head_changed, r"run/head.safetensors is not the file that was put there"),
    "a shorter head": (head_shortened, r"run/head.safetensors has \d+ bytes, not \d+"),
    "another size": (lambda files: listing(files, "run/run.json", bytes=5), r"run/run.json has \d+ bytes, n"),
    "an absurd size": (lambda files: listing(files, "run/run.json", bytes=1 << 50), r"cannot have"),
    "a negative size": (lambda files: listing(files, "run/run.json", bytes=-1), r"cannot have -1 bytes"),
    "no list": (lambda files: files.pop("bundle.json"), r"it has no bundle.json"),
    "another list": (
        lambda files: files.update({"bundle.json": b"[1]"}),
        r"is not an object|no bundle|schema",
    ),
    "a newer list": (
        lambda files: files.update({"bundle.json": b'{"schema": 99}'}),
        r"has schema 99; this version reads up to 1",
    ),
    "an endless list": (
        lambda files: files.update({"bundle.json": b" " * (bundled.MOST_INFO + 1)}),
        r"bundle.json has more than",
    ),
    "a bomb": (
        add("weights/00-cnn/bomb.txt", bytes(1 << 25)),
        r"it would unpack to \d+ MB, more than 4 times",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_zip_file_is_refused_by_name(
    here: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "UNPACKED", 1 << 20)
    monkeypatch.setattr(bundled, "RATIO", 4)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    change, words = HOSTILE[kind]
    path = rewritten(here / "run.zip", tmp_path / "bad.zip", change)
    with pytest.raises(Img2PromptError, match=words):
        load_run(path)
    assert [*(tmp_path / "temporary").iterdir()] == []
    assert {each.name for each in tmp_path.iterdir()} == {"bad.zip", "temporary"}


def test_a_zip_file_that_lies_about_a_size_is_refused(here: Path, tmp_path: Path) -> None:
    path = rewritten(here / "run.zip", tmp_path / "bad.zip", lambda files: None)
    data = bytearray(path.read_bytes())
    name = b"run/history.csv"
    at = data.rindex(name)  # in the list at the end: the size stands 22 bytes before the name
    size = int.from_bytes(data[at - 22 : at - 18], "little")
    data[at - 22 : at - 18] = (size - 1).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(Img2PromptError, match=r"run/history.csv has \d+ bytes, not \d+"):
        load_run(path)


def test_a_link_an_entry_twice_and_a_long_list_are_refused(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = entries(here / "run.zip")
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("weights/00-cnn/link.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bundle.json", files["bundle.json"])
    with pytest.raises(Img2PromptError, match=r"link.txt' is a link"):
        load_run(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", files["bundle.json"])
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("bundle.json", files["bundle.json"])
    with pytest.raises(Img2PromptError, match=r"'bundle.json' is there twice"):
        load_run(path)
    monkeypatch.setattr(bundled, "MOST_FILES", 3)
    with pytest.raises(Img2PromptError, match="it lists too many files"):
        load_run(here / "run.zip")
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(Img2PromptError, match="it is no zip file"):
        load_run(path)


def link_in(folder: Path) -> None:
    (folder / "weights" / "link").symlink_to("/etc")


def link_for(folder: Path) -> None:
    path = folder / "run" / "head.safetensors"
    path.rename(folder.parent / "head")
    path.symlink_to(folder.parent / "head")


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link to a folder": (link_in, "weights/link is a link"),
    "a link to a file": (link_for, "run/head.safetensors is a link"),
    "a pipe": (lambda folder: os.mkfifo(folder / "bank" / "pipe.txt"), "bank/pipe.txt is not listed"),
    "a pickle": (
        lambda folder: (folder / "weights" / "pytorch_model.bin").write_bytes(b""),
        "weights/pytorch_model.bin is not listed",
    ),
    "nothing of a file": (
        lambda folder: (folder / "bank" / "vectors.npy").unlink(),
        "vectors.npy is missing",
    ),
    "other prompts": (
        lambda folder: (folder / "bank" / "prompts.json").write_text("[]"),
        r"bank/prompts.json has 2 bytes",
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_hostile_folder_is_refused_by_name(here: Path, tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(here / "folder", tmp_path / "bad")
    change, words = FOLDERS[kind]
    change(folder)
    with pytest.raises(Img2PromptError, match=words):
        load_run(folder)


def test_what_others_put_beside_it_is_passed_over(here: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(here / "folder", tmp_path / "run")
    (folder / "dataset-metadata.json").write_text("{}")
    assert load_run(folder).head == "ridge"


def test_only_an_earlier_bundle_is_replaced(cli: Cli, here: Path, tmp_path: Path) -> None:
    mine, folder = tmp_path / "mine.zip", tmp_path / "mine"
    mine.write_bytes(b"PK\x03\x04 of my own")
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for out in (mine, folder):
        said = cli("bundle", here / "folder", "--out", out, "--overwrite")
        said.refused(2, "--out", str(out))
    assert mine.read_bytes() == b"PK\x03\x04 of my own"
    for out in (tmp_path / "a.zip", tmp_path / "a"):
        assert cli("bundle", here / "folder", "--out", out).code == 0
        cli("bundle", here / "folder", "--out", out).refused(2, "--out", "exists; --overwrite replaces it")
        assert cli("bundle", here / "folder", "--out", out, "--overwrite").code == 0
    cli("bundle", here / "folder", "--out", tmp_path / "no" / "a.zip").refused(2, "there is no folder")
    cli("bundle", here / "folder", "--out", tmp_path / "a" / "run").refused(
        2, "lies among the files of the b"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"mine.zip", "mine", "a.zip", "a"}


def test_weights_that_cannot_be_found_leave_nothing(here: Path, pairs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(here / "folder" / "run", tmp_path / "run")
    with pytest.raises(UsageError, match=r"cannot read .*config.json"):
        ipc.bundle(folder, tmp_path / "out.zip")
    with pytest.raises(UsageError, match="`bank`"):
        ipc.bundle(folder, tmp_path / "out.zip", bank=tmp_path / "no.txt", weights=here / "gone")
    assert [*tmp_path.iterdir()] == [folder]
    ipc.bundle(folder, tmp_path / "out.zip", weights=here / "gone")
    with pytest.raises(UsageError, match="name prompts with `bank`"):
        ipc.predict(tmp_path / "out.zip", pairs / "img004.png", top_k=3)


def test_a_bundle_whose_zip_header_has_the_byte_of_a_line_feed_is_known_as_one(tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    path.write_bytes(b"PK\x03\x04" + b"\n" * 26 + b"bundle.json")
    require_free_bundle(path, overwrite=True, inputs=[])
