from __future__ import annotations

import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.writer import writing
from synthetic import ENCODER, ONE, OTHER, Cli, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture
def folder(tmp_path):
    return make_cache(tmp_path / "cache", 20, failed=[3, 4])


def test_json_is_what_scripts_rely_on(cli, folder):
    said = cli("info", "--cache", folder, "--json")
    assert (said.code, said.err) == (0, "")
    assert list(said.json) == [
        "rows",
        "ok",
        "failed",
        "removed",
        "several_prompts",
        "columns",
        "damaged",
        "crowded",
        "writer",
    ]
    assert [said.json[name] for name in ("rows", "ok", "failed")] == [20, 18, 2]
    columns = said.json["columns"]
    assert all(list(column) == ["name", "kind", "shape", "dtype", "bytes"] for column in columns)
    assert [list(column.values())[:4] for column in columns] == [
        ["rows", "rows", [20], "text"],
        [ONE, "features", [20, 24], "float16"],
        [OTHER, "features", [20, 8], "float16"],
        [ENCODER, "targets", [20, 384], "float32"],
    ]
    on_disk = sum(path.stat().st_size for path in folder.glob("*/**/*.h5"))
    assert sum(column["bytes"] for column in columns) == on_disk


def test_people_see_a_table(cli, folder):
    lines = cli("info", "--cache", folder).out.splitlines()
    assert lines[0] == f"{folder}: 20 rows, 18 ok, 2 failed"
    assert lines[1] == f"source: {folder / 'images'} (table)"
    assert lines[2].split() == ["kind", "name", "shape", "dtype", "bytes"]
    assert lines[4].split()[:5] == ["features", ONE, "20", "×", "24"]


@pytest.mark.parametrize(("spoil", "reason"), [(None, "it is missing"), (b"cut", "3 bytes instead of ")])
def test_parts_that_other_readers_would_see_as_empty_are_named(cli, folder, spoil, reason):
    assert cli("info", "--cache", folder, "--json").json["damaged"] == []
    parts = [part for column in Cache(folder).manifest.of_kind("features") for part in column.parts]
    for number, part in enumerate(parts[:2], 1):
        (folder / part.file).unlink()
        if spoil is not None:
            (folder / part.file).write_bytes(spoil)
        said = cli("info", "--cache", folder)
        assert said.code == 0
        (line,) = (line for line in said.out.splitlines() if "img2prompt-cache repair" in line)
        assert line.startswith(f"{parts[0].file}: {reason}")
        assert ("and 1 more part" in line) == (number == 2)
        assert cli("info", "--cache", folder, "--json").json["damaged"] == [p.file for p in parts[:number]]


def test_rows_that_are_not_there(cli, folder):
    (folder / "rows" / "00001.h5").unlink()
    cli("info", "--cache", folder).refused(1, "rows/00001.h5")


def test_a_running_writer_is_named(cli, folder):
    with writing(folder):
        said = cli("info", "--cache", folder)
        assert "is writing this cache" in said.err
        assert cli("info", "--cache", folder, "--json").json["writer"].startswith("process ")
