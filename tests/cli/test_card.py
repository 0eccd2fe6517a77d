"""``card``."""

from __future__ import annotations

import pytest

import img2prompt_cache as ipc
from synthetic import Cli


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def test_the_command_prints_it(run, cli, monkeypatch):
    monkeypatch.chdir(run.parent.parent.parent)
    said = cli("card", run.name, "--cache", "cache", "--license", "mit")
    assert said.code == 0
    assert said.out == ipc.card(run, license="mit")
    assert cli("card", run, "--json").json == {"card": ipc.card(run)}
    cli("card", "nothing", "--cache", "cache").refused(2, "nothing")
