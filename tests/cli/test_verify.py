from __future__ import annotations

import pytest

from img2prompt_cache.cache.writer import writing
from synthetic import Cli, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def test_a_whole_cache(cli, tmp_path):
    folder = make_cache(tmp_path / "cache", 20)
    said = cli("verify", "--cache", folder, "--json")
    assert (said.code, said.err) == (0, "")
    assert said.json == {"ok": True, "damaged": [], "unknown": [], "crowded": [], "writer": None}
    assert cli("verify", "--cache", folder).out == f"{folder}: 8 parts, all whole\n"


def test_every_damaged_part_is_named_and_left_alone(cli, tmp_path):
    folder = make_cache(tmp_path / "cache", 20)
    changed, cut, gone = sorted(folder.glob("*/**/*.h5"))[:3]
    data = changed.read_bytes()
    changed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    names = {str(path.relative_to(folder)) for path in (changed, cut, gone)}
    said = cli("verify", "--cache", folder, "--json")
    assert said.code == 1
    assert list(said.json) == ["ok", "damaged", "unknown", "crowded", "writer"]
    assert said.json["ok"] is False
    assert {*said.json["damaged"]} == names
    assert {line.partition(":")[0] for line in said.err.splitlines()} == names
    told = cli("verify", "--cache", folder)
    assert (told.code, told.err) == (1, "")
    lines = told.out.splitlines()
    assert lines[-1] == f"{folder}: 3 of 8 parts damaged; `img2prompt-cache repair` computes them again"
    assert {line.partition(": ")[2] for line in lines[:-1]} >= {"its bytes have changed", "it is missing"}
    assert changed.exists()


def test_what_the_cache_does_not_know_is_named_and_no_damage(cli, tmp_path):
    folder = make_cache(tmp_path / "cache", 20)
    (folder / "rows" / "00002.h5").write_bytes(b"a stranger's")
    said = cli("verify", "--cache", folder, "--json")
    assert (said.code, said.json["ok"], said.json["unknown"]) == (0, True, ["rows/00002.h5"])
    told = cli("verify", "--cache", folder)
    assert told.out.splitlines() == [
        "rows/00002.h5: not recorded in the manifest, so it is never read",
        f"{folder}: 8 parts, all whole",
    ]


def test_columns_of_more_parts_than_readers_can_open_are_warned_of(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("img2prompt_cache.cache.reader.MANY_PARTS", 2)
    folder = make_cache(tmp_path / "cache", 20, part_rows=8)
    columns = ["rows", "features/timm-one", "features/timm-other", "targets/st-some-all-MiniLM-L6-v2"]
    said = cli("verify", "--cache", folder, "--json")
    assert (said.code, said.json["crowded"]) == (0, columns)
    for command in ("verify", "info"):
        said = cli(command, "--cache", folder)
        warnings = [line for line in said.out.splitlines() if "has more parts than" in line]
        assert [line.partition(" ")[0] for line in warnings] == columns
        assert "` merges parts of one source" in warnings[0]


def test_what_a_running_writer_has_not_recorded_yet_is_not_taken_for_a_strangers(cli, tmp_path):
    folder = make_cache(tmp_path / "cache", 20)
    (folder / "rows" / "00002.h5").write_bytes(b"a part to be recorded")
    with writing(folder):
        said = cli("verify", "--cache", folder, "--json")
    assert (said.code, said.json["unknown"]) == (0, [])
    assert said.json["writer"].startswith("process ")
    assert "is writing this cache: what it has not recorded yet was not looked at" in said.err
