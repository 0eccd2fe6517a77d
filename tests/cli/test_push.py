"""``push`` and ``--run hf://``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from kit import Tiny
from model_hub import ModelHub
from synthetic import Cli

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
ADDRESS = "hf://me/head"


def test_a_dry_run_is_a_table(cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(run.parent.parent.parent)
    said = cli("push", run.name, "me/head", "--cache", "cache", "--dry-run")
    assert (said.code, said.err) == (0, "")
    head, *lines = said.out.splitlines()
    assert head.split() == ["file", "bytes", "holds"]
    names = [line.split()[0] for line in lines]
    assert names[:2] == ["README.md", "bundle.json"]
    listed = cli("push", run, "me/head", "--dry-run", "--json").json
    assert [each["name"] for each in listed["files"]] == names
    assert (listed["commit"], listed["run"]) == (None, ADDRESS)
    assert listed["bytes"] == sum(each["bytes"] for each in listed["files"])


def test_without_a_token_or_with_a_wrong_name(cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    cli("push", run, "me/head").refused(2, "HF_TOKEN is not set", "no token that is stored on this machine")
    cli("push", run, "head", "--dry-run").refused(2, "OWNER/NAME: 'head' is no owner/name")
    cli("push", "absent", "me/head", "--dry-run").refused(2, "no run 'absent'")


def test_every_command_that_reads_a_run_takes_one_on_the_hub(
    cli: Cli, hub: ModelHub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = run.parent.parent
    said = cli("push", run, "me/head", "--license", "mit", "--json")
    address = said.json["run"]
    assert address == f"{ADDRESS}@{hub.repositories['me/head'].branches['main']}"
    assert "uploading 6 files" in said.err
    cli("push", run, "me/head").refused(2, "me/head holds a run; --overwrite puts this run in its place")
    done = cli("push", run, "me/head", "--overwrite")
    assert done.out.rpartition(" ")[2].strip() == done.out.partition(": ")[0]
    found = cli("predict", cache, "--run", ADDRESS, "--cache", cache, "--json")
    assert found.code == 0
    assert "run hf://me/head@" in found.err
    assert found.json["run"].startswith(f"{ADDRESS}@")
    here = cli("predict", cache, "--run", run, "--cache", cache, "--json")
    assert found.json["predictions"] == here.json["predictions"]
    assert cli("card", ADDRESS).out.startswith("---\n")
    assert (
        cli("top", "--run", ADDRESS, "--cache", cache).out == cli("top", "--run", run, "--cache", cache).out
    )
    said = cli("push", ADDRESS, "me/copy", "--with-prompts", "--dry-run")
    assert said.code == 2
    assert "the run came without prompts; name prompts with --bank, or --top-k 0" in said.err
    monkeypatch.chdir(tmp_path)
    for command in (("fit", "--head", "mean"), ("tune", "--head", "knn", "--trials", "1")):
        cli(*command, "--cache", cache, "--run", ADDRESS).refused(2, "--run", "cannot be a URL")
    cli("predict", cache, "--run", "s3://me/head").refused(2, "--run", "cannot be a URL")
    assert cli("compare", ADDRESS, "--cache", cache).code == 0
    said = cli("compare", "--against", ADDRESS, "--cache", cache)
    assert said.code == 1
    assert "was shared without its held-out rows" in said.err


@pytest.mark.slow
def test_a_run_predicts_from_the_hub_in_a_fresh_home(
    cli: Cli, hub: ModelHub, made: Path, tiny: Tiny, pairs: Path, tmp_path: Path
) -> None:
    run = fit_head(Cache(made), FitConfig("ridge", {"alpha": 0.1}, split="random"), tmp_path / "ridge")
    pushed = cli("push", run.folder, "me/head", "--cache", made)
    weights = Path(tiny.cnn.partition("local-dir:")[2])
    assert f"the weights {weights.name} are not shared" in pushed.err
    record = hub.repositories["me/head"].files["run/run.json"].decode()
    assert f'"timm:local-dir:{weights.name}"' in record
    assert str(weights.parent) not in record
    images = [pairs / "img004.png", pairs / "img007.png"]
    assert cli("predict", *images, "--run", run.folder, "--out", tmp_path / "here.npy").code == 0
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "IMG2PROMPT"))}
    elsewhere = {**kept, "HOME": str(home), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "img2prompt_cache.cli", "predict", *map(str, images)),
            *("--run", ADDRESS, "--weights", str(weights.parent), "--out", "there.npy"),
        ],
        env=elsewhere,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "run hf://me/head@" in done.stderr
    assert (home / "there.npy").read_bytes() == (tmp_path / "here.npy").read_bytes()
    assert not [path for path in home.rglob("*") if path.name == "token"]
