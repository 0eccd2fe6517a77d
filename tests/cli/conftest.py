"""What tests of the command line share: the command, an empty current folder, options for small models."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit import Tiny
from synthetic import Cli


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def models(tiny: Tiny) -> tuple[str, ...]:
    return ("--backbone", tiny.cnn, "--encoder", tiny.encoder, "--precision", "fp32")
