"""A run that travels, by the command line alone: cache and weights move, and a bundle predicts elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kit import save_backbone, save_encoder
from synthetic import Cli


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def elsewhere(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder, with an empty home and no network."""
    home = folder / "home"
    home.mkdir()
    ours = ("IMG2PROMPT", "HF_", "XDG")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    environment |= {"HOME": str(home), "HF_HUB_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, "-m", "img2prompt_cache.cli", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_run_travels(cli: Cli, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    save_backbone(here / "models" / "cnn")
    save_encoder(here / "models" / "words")
    models = ("--backbone", "cnn=timm:local-dir:models/cnn", "--encoder", "st:local-dir:models/words")
    image = shutil.copy(pairs / "img004.png", tmp_path / "picture.png")
    assert cli("extract", pairs, *models, "--precision", "fp32").code == 0
    fitted = cli("fit", "--head", "ridge", "--alpha", "0.1", "--split", "random", "--json")
    assert fitted.code == 0, fitted.err
    options = ("predict", image, "--top-k", "3", "--json")
    before = cli(*options)
    assert before.code == 0, before.err

    # Cache and weights move; the cache has its name and runs with it, the weights are named.
    there = tmp_path / "there"
    there.mkdir()
    (here / "cache").rename(there / "cache")
    (here / "models").rename(tmp_path / "input")
    monkeypatch.chdir(there)
    assert cli(*options).code == 2
    moved = cli(*options, "--weights", tmp_path / "input")
    assert moved.json["predictions"] == before.json["predictions"]
    made = cli("bundle", "--weights", tmp_path / "input", "--out", "run.zip")
    assert made.code == 0, made.err

    # Named once to `extract`, the new place is known, to older runs as well.
    again = ("--backbone", f"timm:local-dir:{tmp_path}/input/cnn")
    again += ("--encoder", f"st:local-dir:{tmp_path}/input/words")
    said = cli("extract", pairs, *again)
    assert (said.code, " 0 new" in said.out) == (0, True), said.err
    assert cli(*options).json["predictions"] == before.json["predictions"]

    # The bundle alone, on another machine.
    machine = tmp_path / "machine"
    machine.mkdir()
    shutil.move(there / "run.zip", machine / "run.zip")
    shutil.rmtree(there / "cache")
    shutil.rmtree(tmp_path / "input")
    done = elsewhere(machine, *map(str, options), "--run", "run.zip")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["predictions"]
    kept = ("imgId", "expected", "prompts")
    assert [[one[name] for name in kept] for one in found] == [
        [one[name] for name in kept] for one in before.json["predictions"]
    ]
