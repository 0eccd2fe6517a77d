"""Completion of commands and options by the shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("img2prompt-cache")
BASH = """
eval "$(img2prompt-cache --show-completion)"
for words in "img2prompt-cache fi" "img2prompt-cache fit --leak"; do
  COMP_WORDS=($words) COMP_CWORD=$(($(wc -w <<< "$words") - 1))
  _img2prompt_cache_completion img2prompt-cache
  echo "${COMPREPLY[@]}"
done
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with our program on the path."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_options(home: Path) -> None:
    done = subprocess.run(["bash", "-c", BASH], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["fit", "--leakage-gap"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_completion_is_installed_once_for_the_shell_that_asks(home: Path) -> None:
    for _ in range(2):
        subprocess.run(["bash", "-c", "img2prompt-cache --install-completion; true"], check=True)
    (written,) = (home / ".bash_completions").iterdir()
    assert "_img2prompt_cache_completion" in written.read_text()
    assert (home / ".bashrc").read_text().count(str(written)) == 1
