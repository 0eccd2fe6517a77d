from __future__ import annotations

import shutil

import pytest

from img2prompt_cache.cache.reader import Cache
from kit import parts_of
from synthetic import Cli


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def test_damage_is_repaired_and_what_cannot_be_is_named(cli, cache):
    before = parts_of(cache)
    rows, features, targets = (column.parts[1].file for column in Cache(cache).manifest.columns)
    whole = cli("repair", "--cache", cache, "--json")
    assert whole.json == {"ok": True, "repaired": [], "damaged": []}
    (cache / features).unlink()
    (cache / targets).write_bytes(b"")
    assert cli("verify", "--cache", cache).code == 1
    said = cli("repair", "--cache", cache)
    assert said.code == 0
    assert said.out.splitlines() == [
        f"{features}: repaired",
        f"{targets}: repaired",
        f"{cache}: 2 parts repaired, 0 left damaged",
    ]
    assert parts_of(cache) == before
    (cache / rows).unlink()
    (cache / rows).mkdir()
    (cache / features).unlink()
    said = cli("repair", "--cache", cache, "--json")
    assert (said.code, said.json["ok"], said.json["repaired"]) == (1, False, [])
    assert sorted(said.json["damaged"]) == sorted([rows, features])
    assert f"{rows}: a folder lies in its place" in said.err


def test_it_does_not_make_a_cache(cli, tmp_path):
    cli("repair", "--cache", tmp_path / "none").refused(2, "no cache in")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_device(cli, cache):
    shutil.rmtree(cache / "features")
    cli("repair", "--cache", cache, "--device", "gpu").refused(2, "gpu")
