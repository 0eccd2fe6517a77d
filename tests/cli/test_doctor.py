from __future__ import annotations

import platform

import pytest
import torch

from synthetic import Cli


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def test_what_this_machine_can_do(cli):
    said = cli("doctor", "--offline", "--json")
    assert (said.code, said.err) == (0, "")
    assert list(said.json) == ["machine", "compute", "weights", "disk", "versions"]
    assert said.json["versions"]["python"] == platform.python_version()
    assert torch.__version__.startswith(said.json["versions"]["torch"])
    assert said.json["compute"]["device"] in ("cpu", "cuda")
    assert type(said.json["compute"]["bf16"]) is bool
    assert "package index" not in said.json["weights"]


def test_people_see_sections(cli):
    lines = cli("doctor", "--offline").out.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [
        *("machine:", "compute:", "weights:", "disk:", "versions:")
    ]
    assert f"  torch: {torch.__version__.partition(chr(43))[0]}" in lines
