from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from img2prompt_cache.environment import examine, library_versions


def test_a_machine_is_described_without_asking_anyone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = examine(online=False)
    assert list(found) == ["machine", "compute", "weights", "disk", "versions"]
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["compute"]["device"] in ("cpu", "cuda")
    assert isinstance(found["compute"]["bf16"], bool)
    assert set(found["weights"].values()) <= {"here", "to be fetched"}
    assert "packaged:all-MiniLM-L6-v2" in found["weights"]
    assert str(tmp_path) in found["disk"]
    assert all(free.endswith(" GB free") for free in found["disk"].values())
    assert json.loads(json.dumps(found)) == found


def test_online_it_says_who_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = "http://127.0.0.1:9"  # nothing listens there, so the answer is quick and known
    for name in ("PIP_INDEX_URL", "HF_ENDPOINT"):
        monkeypatch.setenv(name, closed)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", closed)
    weights = examine()["weights"]
    assert weights["package index"] == "does not answer"
    assert weights["preset auto"].startswith(("packaged: ", "standard: "))


def test_versions_are_those_that_are_installed() -> None:
    found = library_versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == version("torch")
    assert found["img2prompt-cache"] == version("img2prompt-cache")
