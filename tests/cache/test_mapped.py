"""Mapped columns against plain arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from columns import PART, write
from img2prompt_cache.cache import mapped
from img2prompt_cache.cache.mapped import MappedColumn, MappedViews
from img2prompt_cache.cache.quantise import quantise, restore
from img2prompt_cache.errors import Img2PromptError

ROWS = 23
RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(ROWS, 4, 3, 5)).astype(np.float16)
VIEWS = RNG.normal(size=(ROWS, 2, 6, 5)).astype(np.float16)
PLAIN = RNG.normal(size=(ROWS, 7)).astype(np.float16)


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MappedColumn]:
    folder = tmp_path_factory.mktemp("mapped")
    made = [
        write(folder, "trunk", "maps", MAPS),
        write(folder, "trunk", "coded", MAPS, "int8"),
        write(folder, "views", "views", VIEWS, "int8"),
        write(folder, "features", "plain", PLAIN),
    ]
    return {column.spec: MappedColumn(folder, column) for column in made}


EXPECTED = {
    "maps": MAPS.astype(np.float32),
    "coded": restore(*quantise(MAPS)),
    "views": restore(*quantise(VIEWS, 2)),
    "plain": PLAIN.astype(np.float32),
}


@given(rows=st.lists(st.integers(0, ROWS - 1), max_size=60), name=st.sampled_from(sorted(EXPECTED)))
def test_any_rows_in_any_order(columns: dict[str, MappedColumn], rows: list[int], name: str) -> None:
    wanted = np.array(rows, np.int64)
    found = columns[name][wanted]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, EXPECTED[name][wanted])


@pytest.mark.parametrize("name", EXPECTED)
def test_a_whole_column(columns: dict[str, MappedColumn], name: str) -> None:
    column = columns[name]
    assert (len(column), column.shape) == (ROWS, EXPECTED[name].shape)
    np.testing.assert_array_equal(column[np.arange(ROWS)], EXPECTED[name])
    np.testing.assert_array_equal(column.load(), EXPECTED[name])


@given(numbers=st.lists(st.integers(0, 2 * ROWS - 1), max_size=60))
def test_views_as_rows_of_their_own(columns: dict[str, MappedColumn], numbers: list[int]) -> None:
    views = MappedViews(columns["views"].folder, columns["views"].column)
    assert (len(views), views.shape, views.views) == (2 * ROWS, (2 * ROWS, 6, 5), 2)
    flat = EXPECTED["views"].reshape(2 * ROWS, 6, 5)
    np.testing.assert_array_equal(views[np.array(numbers, np.int64)], flat[numbers])
    np.testing.assert_array_equal(views.load(), flat)


@pytest.mark.parametrize("width", [5, 700])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_rows_scattered_over_many_parts(dtype: str, width: int, tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(size=(300, 7, width)).astype(np.float16)
    column = write(tmp_path, "trunk", "many", values, dtype, part=2)
    rows = np.random.default_rng(3).integers(0, 300, 40)
    found = MappedColumn(tmp_path, column, "float16")
    expected = values if dtype == "float16" else restore(*quantise(values)).astype(np.float16)
    assert (7 * width > mapped.SMALL) == (width == 700)
    scattered = found[rows]
    np.testing.assert_array_equal(scattered, expected[rows])
    assert scattered.flags.writeable
    np.testing.assert_array_equal(found.load(), expected)


@pytest.mark.parametrize("name", EXPECTED)
def test_half_precision_where_it_is_asked_for(columns: dict[str, MappedColumn], name: str) -> None:
    column = MappedColumn(columns[name].folder, columns[name].column, "float16")
    found = column[np.arange(ROWS)[::-1]]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, EXPECTED[name][::-1].astype(np.float16))


@pytest.mark.parametrize("row", [-1, ROWS])
def test_a_row_that_is_not_there(columns: dict[str, MappedColumn], row: int) -> None:
    with pytest.raises(IndexError, match=f"of {ROWS}"):
        columns["maps"][np.array([0, row])]


def test_few_maps_stay_open(columns: dict[str, MappedColumn], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MOST_PARTS", 1)
    column = MappedColumn(columns["coded"].folder, columns["coded"].column)
    rows = np.random.default_rng(1).integers(0, ROWS, 50)
    for _ in range(2):
        np.testing.assert_array_equal(column[rows], EXPECTED["coded"][rows])
        assert list(column._maps) == [0]


def test_several_columns_of_many_parts_leave_files_to_others(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    values = np.zeros((200, 2, 2), np.float16)
    columns = [write(tmp_path, "trunk", f"many{i}", values, "int8", part=5) for i in range(10)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = sum(1 for _ in Path("/proc/self/fd").iterdir()) if Path("/proc/self/fd").is_dir() else 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 80, limits[1]))
    try:
        mapped_columns = [MappedColumn(tmp_path, column) for column in columns]
        for column in mapped_columns:
            assert not column[np.arange(0, 200, 2)].any()
        with (tmp_path / "another").open("w"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_part_that_is_gone_once_it_was_read_is_told(
    columns: dict[str, MappedColumn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "MOST_PARTS", 1)
    column = write(tmp_path, "trunk", "maps", MAPS)
    found = MappedColumn(tmp_path, column)
    np.testing.assert_array_equal(found[np.arange(ROWS)], EXPECTED["maps"])
    path = tmp_path / column.parts[1].file
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(Img2PromptError, match="00001"):
        found[np.array([PART])]
    path.unlink()
    with pytest.raises(Img2PromptError, match=r"00001\.h5 is missing"):
        found[np.array([PART])]
    path.write_bytes(data)
    np.testing.assert_array_equal(found[np.array([PART])], EXPECTED["maps"][[PART]])


def test_a_part_that_is_not_what_it_should_be(tmp_path: Path) -> None:
    column = write(tmp_path, "trunk", "maps", MAPS)
    (tmp_path / column.parts[1].file).write_bytes(b"no part")
    found = MappedColumn(tmp_path, column)
    np.testing.assert_array_equal(found[np.arange(PART)], EXPECTED["maps"][:PART])
    with pytest.raises(Img2PromptError, match="00001"):
        found[np.array([PART])]


def test_maps_take_a_small_share_of_the_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for limit, most in ((1024, 128), (10, 1), (1 << 20, 256), (resource.RLIM_INFINITY, 256)):
        monkeypatch.setattr(resource, "getrlimit", lambda which, limit=limit: (limit, limit))
        assert mapped._most_parts(1) == most
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 1024))
    assert mapped._most_parts(2) == 64


@given(numbers=st.lists(st.integers(0, ROWS - 1), max_size=60), sparse=st.sampled_from([0, 1, 4]))
def test_reading_gives_the_rows_that_indexing_gives(
    columns: dict[str, MappedColumn], numbers: list[int], sparse: int
) -> None:
    rows = np.array(numbers, np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "SPARSE", sparse)
        for name in EXPECTED:
            found = columns[name].read(rows)
            np.testing.assert_array_equal(found, columns[name][rows])
            assert found.dtype == columns[name].dtype


@pytest.mark.parametrize("row", [-1, ROWS])
def test_reading_a_row_that_is_not_there(columns: dict[str, MappedColumn], row: int) -> None:
    with pytest.raises(IndexError, match=f"of {ROWS}"):
        columns["maps"].read(np.array(sorted([0, row])))


@pytest.mark.parametrize("rows", [np.arange(20, 40), np.array([39, 20])])
@pytest.mark.parametrize("how", ["cut short", "replaced"])
def test_a_part_that_changes_while_it_is_read_is_named(how: str, rows: np.ndarray, tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(size=(40, 6)).astype(np.float16)
    column = write(tmp_path, "features", "one", values, part=20)
    found = MappedColumn(tmp_path, column)
    np.testing.assert_array_equal(found.read(rows), values[rows])
    path = tmp_path / column.parts[1].file
    data = path.read_bytes()
    if how == "replaced":
        path.unlink()
        path.write_bytes(data)
    else:
        with path.open("r+b") as file:
            file.truncate(len(data) - 8)
    with pytest.raises(Img2PromptError, match=f"{path.name} was changed by another process"):
        found.read(rows)
    np.testing.assert_array_equal(found.read(np.arange(20)), values[:20])
