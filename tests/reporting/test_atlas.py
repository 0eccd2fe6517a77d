"""The map as a table for embedding-atlas."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import img2prompt_cache as ipc
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.reporting.atlas import NEIGHBOURS, neighbours
from synthetic import Cli, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@settings(deadline=None)
@given(n=st.integers(2, 40), seed=st.integers(0, 9))
def test_neighbours_are_the_nearest_other_rows(n, seed):
    vectors = unit(np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32))
    ids, distances = neighbours(vectors)
    assert ids.shape == distances.shape == (n, min(NEIGHBOURS, n - 1))
    all_distances = 1 - vectors @ vectors.T
    np.fill_diagonal(all_distances, np.inf)
    nearest = np.sort(all_distances, axis=1)[:, : ids.shape[1]]
    assert np.allclose(distances, nearest, atol=1e-5)
    assert np.allclose(np.take_along_axis(all_distances, ids, axis=1), distances, atol=1e-5)


def test_the_table_holds_the_points_of_the_map(made, tmp_path):
    path = tmp_path / "map.parquet"
    report = ipc.report(made, atlas=path)
    section = report.sections["map"]
    table = pq.read_table(path)
    assert table["imgId"].to_pylist() == section.ids
    assert table["prompt"].to_pylist() == [report.material.rows.prompts[row] for row in section.rows]
    for name, values in (("projection_x", section.views[0].x), ("image_y", section.views[1].y)):
        assert np.allclose(table[name].to_numpy(), values)
    vectors = np.stack(table["embedding"].to_numpy())
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    found = table["neighbors"].to_pylist()
    assert {*found[0]} == {"ids", "distances"}
    for row, each in enumerate(found):
        assert row not in each["ids"]
        assert each["distances"] == sorted(each["distances"])
        assert np.allclose(1 - vectors[each["ids"]] @ vectors[row], each["distances"], atol=1e-5)
    assert table["cluster"].to_pylist() == [section.clusters[each].name for each in section.cluster]
    assert all(image["bytes"].startswith(b"RIFF") for image in table["image"].to_pylist())


def test_what_is_not_known_is_null(tmp_path):
    path = tmp_path / "map.parquet"
    ipc.report(make_cache(tmp_path / "cache"), atlas=path)  # without a run, a program or an image
    table = pq.read_table(path)
    for name in ("cosine", "program", "image"):
        assert table[name].null_count == len(table) > 0


def test_the_command_writes_it(cli, tmp_path):
    cache, path = make_cache(tmp_path / "cache"), tmp_path / "map.parquet"
    said = cli("report", "--cache", cache, "--json", "--atlas", path)
    assert said.code == 0, said.err
    assert said.json["atlas"] == str(path)
    cli("report", "--cache", cache, "--json", "--atlas", path).refused(2, "--atlas", "--overwrite")
    assert cli("report", "--cache", cache, "--json", "--atlas", path, "--overwrite").code == 0


def test_wrong_places_and_caches_without_a_map_are_told(tmp_path):
    cache = make_cache(tmp_path / "cache", without_prompt=range(60))
    with pytest.raises(Img2PromptError, match="takes a map"):
        ipc.report(cache, atlas=tmp_path / "map.parquet")
    assert not (tmp_path / "map.parquet").exists()
    (tmp_path / "folder.parquet").mkdir()
    mine = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"imgId": ["a"]}), mine)
    for path, words in (
        (tmp_path / "map.csv", "extension"),
        (tmp_path / "none" / "map.parquet", "does not exist"),
        (tmp_path / "folder.parquet", "is a folder"),
        (cache / "map.parquet", "lies among"),
        (mine, "was not made by"),
    ):
        with pytest.raises(UsageError, match=words):
            ipc.report(cache, atlas=path, overwrite=True)
