"""One part's worth of work, with real models."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from img2prompt_cache.cache.manifest import Column, Part, column_folder
from img2prompt_cache.extraction.compute import Worker
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.files import hash_file
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.base import Source
from kit import Tiny, make_source

ROWS = Column("rows", "", "rows", (), "text", {})


@pytest.fixture(scope="module")
def backbones(tiny: Tiny) -> dict[str, Backbone]:
    return {spec: load_backbone(spec) for spec in (tiny.cnn, tiny.vit)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = make_source(tmp_path_factory.mktemp("source") / "images", 7)
    (folder / "img002.png").write_bytes(b"bad")
    return open_source(folder)


def column(backbone: Backbone) -> Column:
    folder = column_folder("features", backbone.spec)
    return Column("features", backbone.spec, folder, (backbone.dim,), "float16", {})


def slice_of(source: Source, number: int = 4, start: int = 40) -> Slice:
    table = source.list().table
    return Slice(number, start, {name: table[name].to_pylist() for name in ("imgId", "uri", "prompt")})


def compute(
    folder: Path, source: Source, backbones: dict[str, Backbone], batch_size: int = 3, lanes: int = 2
) -> list[tuple[Column, Part]]:
    advanced: list[int] = []
    worker = Worker(lambda column: backbones[column.spec], batch_size, lanes, advanced.append)
    columns = [ROWS, *map(column, backbones.values())]
    parts = worker.compute(slice_of(source), columns, source, folder)
    assert sum(advanced) == 7
    assert max(advanced) <= batch_size
    return parts


def test_a_slice_becomes_a_part_of_every_column(
    tmp_path: Path, source: Source, backbones: dict[str, Backbone]
) -> None:
    parts = compute(tmp_path, source, backbones)
    assert [part.file for _, part in parts] == [f"{c.folder}/00004.h5" for c, _ in parts]
    for _, part in parts:
        path = tmp_path / part.file
        assert (part.start, part.stop, part.missing) == (40, 47, ())
        assert (part.bytes, part.sha256) == (path.stat().st_size, hash_file(path))
    assert len(list(tmp_path.rglob("*.*"))) >= 3
    with h5py.File(tmp_path / "rows" / "00004.h5") as file:
        assert file["status"].asstr()[()].tolist() == ["failed" if n == 2 else "ok" for n in range(7)]
    for found, part in parts[1:]:
        with h5py.File(tmp_path / part.file) as file:
            values = file["values"][()]
        assert (values.shape, values.dtype) == ((7, *found.shape), np.float16)
        assert np.flatnonzero(np.isnan(values).any(1)).tolist() == [2]


def test_the_bytes_do_not_depend_on_lanes_or_on_other_columns(
    tmp_path: Path, source: Source, backbones: dict[str, Backbone], tiny: Tiny
) -> None:
    both = compute(tmp_path / "a", source, backbones, lanes=1)
    again = compute(tmp_path / "b", source, backbones, lanes=4)
    assert both == again
    alone = compute(tmp_path / "c", source, {tiny.vit: backbones[tiny.vit]})
    assert alone[1] == both[2]


def test_after_an_error_nothing_has_its_name(
    tmp_path: Path, source: Source, backbones: dict[str, Backbone]
) -> None:
    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    columns = [ROWS, *map(column, backbones.values())]
    worker = Worker(lambda column: backbones[column.spec], 3, on_batch=stop)
    with pytest.raises(KeyboardInterrupt):
        worker.compute(slice_of(source), columns, source, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
