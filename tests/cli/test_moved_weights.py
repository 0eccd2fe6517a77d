"""A run whose weights have moved: found again by what they are, and by nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.runs.run import load_run
from kit import Tiny, save_backbone, save_clip, save_encoder
from synthetic import Cli

CLASSES = ("two red boats", "a calm sea", "night at sea")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture(scope="module")
def here(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two backbones, one with class names, and what it predicted; its weights are in `models`."""
    home = tmp_path_factory.mktemp("here")
    models = home / "models"
    models.mkdir()
    tiny = Tiny(
        cnn=f"timm:local-dir:{save_backbone(models / 'cnn', classes=CLASSES)}",
        vit=f"open_clip:local-dir:{save_clip(models / 'clip')}",
        encoder=f"st:local-dir:{save_encoder(models / 'encoder')}",
    )
    tiny.extract(pairs, home / "cache", backbones=(tiny.cnn, tiny.vit), taps=choose_taps(names=True))
    run = fit_head(Cache(home / "cache"), FitConfig("ridge", {"alpha": 0.1}, split="random")).folder
    shutil.copytree(run, home / "run")
    seen = load_run(home / "run").predict(pairs / "img004.png", top_k=0)
    np.save(home / "seen.npy", seen.vectors)
    return home


@pytest.fixture
def moved(here: Path, tmp_path: Path) -> Path:
    """The run and the weights in other places, other weights beside them; what was there is gone."""
    shutil.copytree(here / "run", tmp_path / "run")
    shutil.copytree(here / "models", tmp_path / "input" / "deep" / "weights")
    for name, architecture in (("a", "test_resnet"), ("b", "test_vit")):
        save_backbone(tmp_path / "input" / name, architecture, seed=7, classes=CLASSES)
    save_encoder(tmp_path / "input" / "c", seed=7)
    (here / "models").rename(here / "gone")
    try:
        yield tmp_path
    finally:
        (here / "gone").rename(here / "models")


def predicted(moved: Path) -> np.ndarray:
    return np.load(moved / "out.npy")


def asked(moved: Path, pairs: Path) -> list[object]:
    return ["predict", pairs / "img004.png", "--run", moved / "run", "--out", moved / "out.npy"]


def test_without_a_place_to_look_the_message_says_how_to_name_one(
    cli: Cli, moved: Path, here: Path, pairs: Path
) -> None:
    cli(*asked(moved, pairs)).refused(
        2, f"cannot read {here / 'models'}", "--weights", "IMG2PROMPT_WEIGHTS", "--replace"
    )


@pytest.mark.parametrize("how", ["weights", "environment", "replace"])
def test_weights_that_have_moved_are_found(
    cli: Cli, moved: Path, here: Path, pairs: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[object] = []
    if how == "weights":
        options = ["--weights", moved / "input"]
    elif how == "replace":
        options = ["--replace", f"{here / 'models'}={moved / 'input' / 'deep' / 'weights'}"]
    else:
        monkeypatch.setenv("IMG2PROMPT_WEIGHTS", str(moved / "input"))
    said = cli(*asked(moved, pairs), *options)
    assert said.code == 0, said.err
    np.testing.assert_array_equal(predicted(moved), np.load(here / "seen.npy"))


def test_a_bank_is_encoded_by_the_encoder_where_it_lies_now(cli: Cli, moved: Path, pairs: Path) -> None:
    (moved / "bank.txt").write_text("two red boats\na calm sea\n")
    said = cli(
        *("predict", pairs / "img004.png", "--run", moved / "run", "--weights", moved / "input"),
        *("--bank", moved / "bank.txt", "--top-k", "1"),
    )
    assert said.code == 0, said.err
    assert said.out.endswith(("two red boats\n", "a calm sea\n"))


def test_watch_finds_weights_that_have_moved(cli: Cli, moved: Path, here: Path, pairs: Path) -> None:
    (moved / "inbox").mkdir()
    shutil.copy(pairs / "img004.png", moved / "inbox")
    (moved / "bank.txt").write_text("two red boats\na calm sea\n")
    watch = (
        *("watch", moved / "inbox", "--run", moved / "run", "--bank", moved / "bank.txt"),
        *("--once", "--interval", "0.01"),
    )
    cli(*watch).refused(2, "cannot read", "--weights", "--replace")
    for options in (
        ("--weights", moved / "input"),
        ("--replace", f"{here / 'models'}={moved / 'input' / 'deep' / 'weights'}"),
    ):
        said = cli(*watch, *options)
        assert said.code == 0, said.err
        assert said.out.startswith("img004.png  ")
    cli(*watch, "--weights", moved / "no").refused(2, "--weights", "there is no such folder")
    cli(*watch, "--replace", "no").refused(2, "--replace 'no': write OLD=NEW")


@pytest.mark.parametrize("command", ["predict", "watch"])
def test_without_a_run_weights_that_have_moved_are_found(
    cli: Cli, moved: Path, here: Path, pairs: Path, command: str
) -> None:
    shutil.copytree(here / "cache", moved / "cache")
    (moved / "inbox").mkdir()
    shutil.copy(pairs / "img004.png", moved / "inbox")
    (moved / "bank.txt").write_text("two red boats\na calm sea\n")
    once = ("--once", "--interval", "0.01") if command == "watch" else ()
    asked = (
        *(command, moved / "inbox", "--zero-shot", "--cache", moved / "cache", "--bank", moved / "bank.txt"),
        *once,
    )
    assert cli(*asked).code != 0
    for options in (
        ("--weights", moved / "input"),
        ("--replace", f"{here / 'models'}={moved / 'input' / 'deep' / 'weights'}"),
    ):
        said = cli(*asked, *options)
        assert said.code == 0, said.err
        assert said.out.startswith("img004")


def test_other_weights_of_the_same_architecture_are_not_taken(cli: Cli, moved: Path, pairs: Path) -> None:
    path = moved / "input" / "deep" / "weights" / "cnn" / "model.safetensors"
    state = load_file(path)
    next(tensor for name, tensor in state.items() if name.startswith("conv1")).add_(1)
    save_file(state, path)
    cli(*asked(moved, pairs), "--weights", moved / "input").refused(
        2, "none of the 2 folders with weights in", "has those (sha256:"
    )
    assert not (moved / "out.npy").exists()


def test_a_place_that_is_not_there_or_replaces_nothing_is_refused(cli: Cli, moved: Path, pairs: Path) -> None:
    cli(*asked(moved, pairs), "--weights", moved / "no").refused(2, "--weights", "there is no such folder")
    cli(*asked(moved, pairs), "--replace", "no").refused(2, "--replace 'no': write OLD=NEW")
    cli(*asked(moved, pairs), "--replace", f"{moved}/mod=x").refused(2, "--replace", "begins with")


def test_from_python(moved: Path, here: Path, pairs: Path) -> None:
    run = load_run(moved / "run")
    with pytest.raises(UsageError, match="cannot read"):
        run.predict(pairs / "img004.png", top_k=0)
    seen = run.predict(pairs / "img004.png", top_k=0, weights=moved / "input")
    np.testing.assert_array_equal(seen.vectors, np.load(here / "seen.npy"))
    replaced = {str(here / "models"): str(moved / "input" / "deep" / "weights")}
    seen = run.predict(pairs / "img004.png", top_k=0, replace=replaced)
    np.testing.assert_array_equal(seen.vectors, np.load(here / "seen.npy"))
