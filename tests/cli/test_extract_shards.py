"""``extract --shard``, ``--finish`` and ``--engine``."""

from __future__ import annotations

import pytest

from kit import parts_of
from synthetic import Cli


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def test_shards_and_finish(cli, made, pairs, tiny, tmp_path):
    folder = tmp_path / "cache"
    command = ["extract", pairs, "--cache", folder, "--backbone", tiny.cnn, "--encoder", tiny.encoder]
    command += ["--precision", "fp32", "--part-rows", "8", "--batch-size", "4"]
    said = cli(*command, "--shard", "1/2", "--json")
    assert {key: said.json[key] for key in ("shard", "parts", "rows", "left")} == {
        "shard": "1/2",
        "parts": 2,
        "rows": 15,
        "left": 1,
    }
    cli("extract", "--cache", folder, "--finish").refused(1, "1 part is not computed yet")
    said = cli(*command, "--shard", "2/2")
    assert "1 part, 8 rows" in said.out
    assert "all are there: run --finish" in said.out
    said = cli("extract", "--cache", folder, "--finish", "--json")
    assert (said.json["rows"], said.json["failed"]) == (23, 3)
    assert parts_of(folder) == parts_of(made)
    cli("extract", "--cache", folder, "--finish").refused(2, "no shards to finish")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shard", "3/2"], ["write i/n"]),
        (["--shard", "1/2", "--finish"], ["cannot be combined"]),
        (["--shard", "1/2", "--workers", "2"], ["cannot be combined"]),
        (["--finish", "--engine", "ray"], ["cannot be combined"]),
        (["--engine", "rai"], ["ray"]),
        (["--ray-address", "auto"], ["add --engine ray"]),
    ],
)
def test_wrong_choices(cli, pairs, tmp_path, options, words):
    cli("extract", pairs, "--cache", tmp_path / "cache", *options).refused(2, *words)
    assert not (tmp_path / "cache").exists()
