from __future__ import annotations

import h5py
import pytest

from synthetic import Cli, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def test_a_cache_becomes_one_file(cli, tmp_path):
    folder, out = make_cache(tmp_path / "cache", 20), tmp_path / "all.h5"
    said = cli("pack", out, "--cache", folder, "--json")
    assert said.code == 0
    assert said.json == {"out": str(out), "rows": 20, "bytes": out.stat().st_size}
    with h5py.File(out) as file:
        assert len(file["rows/imgId"]) == 20
    cli("pack", out, "--cache", folder).refused(2, "exists", "--overwrite")
    again = cli("pack", out, "--cache", folder, "--overwrite")
    assert again.out == f"{out}: 20 rows, {out.stat().st_size / 1e6:,.1f} MB\n"
    cli("pack", tmp_path / "b.h5", "--cache", tmp_path / "none").refused(2, "no cache in")
    cli("pack").refused(2, "OUT.h5")
