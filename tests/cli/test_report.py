from __future__ import annotations

import pytest

from synthetic import Cli, make_cache

pytest.importorskip("matplotlib")
pytest.importorskip("wordcloud")


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def test_a_page_lies_in_the_cache_unless_it_is_named(cli, tmp_path):
    folder = make_cache(tmp_path / "cache")
    said = cli("report", "--cache", folder)
    assert said.code == 0, said.err
    assert said.out.startswith(f"{folder / 'report.html'}: ")
    assert (folder / "report.html").is_file()
    cli("report", "--cache", folder).refused(2, "--out", "--overwrite")
    assert cli("report", "--cache", folder, "--overwrite").code == 0


def test_json_is_the_data_and_writes_no_page(cli, tmp_path):
    folder = make_cache(tmp_path / "cache", failed=[3])
    said = cli("report", "--cache", folder, "--json")
    assert said.code == 0, said.err
    assert said.json["data"]["counts"]["failed"] == 1
    assert said.json["out"] is None
    assert not (folder / "report.html").exists()
    out = tmp_path / "x.html"
    assert cli("report", "--cache", folder, "--json", "--out", out).json["out"] == str(out)
    assert out.is_file()


def test_no_cache_is_told(cli, tmp_path):
    cli("report", "--cache", tmp_path / "none").refused(2, "none")
