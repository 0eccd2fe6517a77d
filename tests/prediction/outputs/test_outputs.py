from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.prediction.outputs import WRITERS, open_writer
from img2prompt_cache.tables import bare_cell

DIM = 5
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
ROWS = st.integers(0, 9).flatmap(
    lambda n: st.tuples(
        st.lists(NAMES, min_size=n, max_size=n),
        hnp.arrays(np.float32, (n, DIM), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    )
)


def unit(n: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


EMBEDDINGS = [extension for extension in WRITERS if extension != ".prompts.csv"]
"""The formats that hold embeddings."""


def write(path: Path, ids: list[str], vectors: np.ndarray, prompts=None, batch: int = 4) -> None:
    with open_writer(path, DIM, overwrite=True) as writer:
        for start in range(0, len(ids), batch):
            rows = slice(start, start + batch)
            writer.write(ids[rows], vectors[rows], None if prompts is None else prompts[rows])


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Read a file back with other libraries than wrote it, as its users would."""
    if path.suffix == ".npy":
        with path.with_suffix(".ids.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["row"] for row in rows] == [str(i) for i in range(len(rows))]
        return [bare_cell(row["imgId"]) for row in rows], np.load(path, allow_pickle=False)
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        assert lines.pop(0) == ["imgId_eId", "val"]
        names, numbers = zip(*(line[0].rsplit("_", 1) for line in lines), strict=True) if lines else ((), ())
        assert list(numbers) == [str(i) for i in range(DIM)] * (len(lines) // DIM)
        values = np.array([np.float32(line[1]) for line in lines], np.float32)
        return [bare_cell(f"{name}_")[:-1] for name in names[::DIM]], values.reshape(-1, DIM)
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        values = np.array(table["embedding"].to_pylist(), np.float32)
        return table["imgId"].to_pylist(), values.reshape(-1, DIM)
    # Not splitlines, which also splits inside strings at U+2028 and its like.
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    values = np.array([record["embedding"] for record in records], np.float32)
    return [record["imgId"] for record in records], values.reshape(-1, DIM)


@pytest.mark.parametrize("extension", EMBEDDINGS)
@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_every_format_reads_back_exactly(
    extension: str, rows: tuple[list[str], np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("out") / f"x{extension}"
    write(path, *rows)
    ids, vectors = read(path)
    assert ids == rows[0]
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, rows[1])


def test_npy_is_what_numpy_itself_writes(tmp_path: Path) -> None:
    vectors = unit(11)
    write(tmp_path / "ours.npy", [f"img{i}" for i in range(11)], vectors)
    np.save(tmp_path / "theirs.npy", vectors)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    assert (tmp_path / "ours.ids.csv").read_text().splitlines()[:2] == ["row,imgId", "0,img0"]


def test_csv_is_kaggles_submission_line_for_line(tmp_path: Path) -> None:
    vectors = np.array([[0.5, -0.25, 1e-5, 0.1, 1]], np.float32)
    write(tmp_path / "x.csv", ["20057f34d"], vectors)
    assert (tmp_path / "x.csv").read_text() == (
        "imgId_eId,val\n20057f34d_0,0.5\n20057f34d_1,-0.25\n20057f34d_2,0.00001\n20057f34d_3,0.1\n20057f34d_4,1\n"
    )


@pytest.mark.parametrize("extension", [".jsonl", ".parquet"])
def test_nearest_prompts_are_kept_where_the_format_has_a_place(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{extension}"
    prompts = [[('a "red" boat', 0.75), ("zwei Boote, übermalt", 0.5)], [], [("sea", -0.25)]]
    write(path, ["a", "b", "c"], unit(3), prompts, batch=2)
    if extension == ".jsonl":
        found = [json.loads(line)["prompts"] for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        found = pq.read_table(path)["prompts"].to_pylist()
    assert found == [[{"prompt": p, "cosine": c} for p, c in row] for row in prompts]
    assert WRITERS[extension].keeps_prompts


COLUMNS = {"expected": np.array([0.5, -0.123456789], np.float32), "flagged": np.array([False, True])}


@pytest.mark.parametrize("extension", EMBEDDINGS)
def test_further_columns_are_kept_where_the_format_has_a_place(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{extension}"
    with open_writer(path, DIM) as writer:
        for row in range(2):
            columns = {name: values[row : row + 1] for name, values in COLUMNS.items()}
            writer.write(["ab"[row]], unit(2)[row : row + 1], [[("sea", 0.5)]], columns)
    assert read(path)[0] == ["a", "b"]
    if extension == ".parquet":
        table = pq.read_table(path)
        assert table.column_names == ["imgId", "embedding", "expected", "flagged", "prompts"]
        np.testing.assert_array_equal(table["expected"].to_numpy(), COLUMNS["expected"])
        assert table["flagged"].to_pylist() == [False, True]
    elif extension == ".jsonl":
        found = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(row["expected"], row["flagged"]) for row in found] == [(0.5, False), (-0.123457, True)]
    elif extension == ".npy":
        lines = path.with_suffix(".ids.csv").read_text().splitlines()
        assert lines == ["row,imgId,expected,flagged", "0,a,0.5,false", "1,b,-0.123457,true"]
    assert WRITERS[extension].keeps_columns == (extension != ".csv")
    write(path, ["c"], unit(1))  # it is known as an earlier output, and replaced
    assert read(path)[0] == ["c"]


def test_a_table_with_columns_of_its_own_is_no_earlier_output(tmp_path: Path) -> None:
    for name, header in (("x.ids.csv", "row,imgId,mine\n"), ("y.ids.csv", "row,imgId,expected,mine\n")):
        (tmp_path / name).write_text(header)
        assert not WRITERS[".npy"].is_ours(tmp_path / name)


def test_formats_without_prompts_say_so_and_pass_them_over(tmp_path: Path) -> None:
    for extension in (".npy", ".csv"):
        assert not WRITERS[extension].keeps_prompts
        write(tmp_path / f"x{extension}", ["a"], unit(1), [[("sea", 0.5)]])
        assert read(tmp_path / f"x{extension}")[0] == ["a"]


def test_a_parquet_file_opens_in_pandas_with_a_fixed_size_list_of_float32(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    vectors = unit(3)
    write(tmp_path / "x.parquet", ["a", "b", "c"], vectors)
    assert pq.read_schema(tmp_path / "x.parquet").field("embedding").type == pa.list_(pa.float32(), DIM)
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert frame["imgId"].tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(np.stack(frame["embedding"]), vectors)


def test_parquet_gathers_small_batches_into_large_row_groups(tmp_path: Path) -> None:
    n = 5000
    write(tmp_path / "x.parquet", [str(i) for i in range(n)], unit(n), batch=64)
    file = pq.ParquetFile(tmp_path / "x.parquet")
    assert file.metadata.num_rows == n
    assert file.metadata.num_row_groups == 2


@pytest.mark.parametrize("extension", EMBEDDINGS)
def test_an_error_leaves_what_was_there_and_nothing_else(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{extension}"
    write(path, ["old"], unit(1))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail() -> None:
        with open_writer(path, DIM, overwrite=True) as writer:
            for _ in range(3):
                writer.write([str(i) for i in range(2000)], unit(2000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("extension", EMBEDDINGS)
def test_predictions_that_are_not_finite_are_refused_by_name(extension: str, tmp_path: Path) -> None:
    vectors = unit(3)
    vectors[1, 2] = np.nan
    with (
        pytest.raises(Img2PromptError, match="prediction of b is not finite"),
        open_writer(tmp_path / f"x{extension}", DIM) as writer,
    ):
        writer.write(["a", "b", "c"], vectors)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_width_are_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fit"), open_writer(tmp_path / "x.npy", DIM + 1) as writer:
        writer.write(["a"], unit(1))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file size")
@pytest.mark.parametrize("extension", EMBEDDINGS)
def test_no_room_left_is_one_clear_error(extension: str, tmp_path: Path) -> None:
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(Img2PromptError, match=f"cannot write .*x{extension}: .*File too large"):
            write(tmp_path / f"x{extension}", [str(i) for i in range(20_000)], unit(20_000), batch=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_needs_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="overwrite=True"):
        open_writer(path, DIM)
    assert path.read_bytes() == b"mine"
    path.unlink()
    path.with_suffix(".ids.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"x\.ids\.csv exists"):
        open_writer(path, DIM)


@pytest.mark.parametrize("name", ["x.xlsx", "x", ".npy"])
def test_unknown_extensions_are_answered_with_the_valid_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must be one of \.npy, \.csv, \.parquet, \.jsonl"):
        open_writer(tmp_path / name, DIM)


def test_a_place_that_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_writer(tmp_path / "none" / "x.npy", DIM)
    with pytest.raises(UsageError, match="cannot be made"):
        open_writer(tmp_path / ("x" * 300 + ".csv"), DIM)
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        open_writer(tmp_path / "d.csv", DIM, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["d.csv"]


def test_a_folder_that_goes_away_is_an_error_with_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "soon-gone"
    folder.mkdir()
    writer = open_writer(folder / "x.npy", DIM)
    folder.rmdir()
    with pytest.raises(Img2PromptError, match="cannot write"), writer:
        pass


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    write(tmp_path / "x.npy", ["a"], unit(1))
    (tmp_path / "usual").touch()
    assert (tmp_path / "x.npy").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("name", ["-5", "+5", "-0.5", "-aB3_x-9", "5", "'quoted"])
def test_kaggle_ids_that_are_no_formula_stay_as_they_are(name: str, tmp_path: Path) -> None:
    with open_writer(tmp_path / "x.csv", DIM) as writer:
        writer.write([name], unit(1))
        assert writer.guarded == 0
    assert (tmp_path / "x.csv").read_text().splitlines()[1].startswith(f"{name}_0,")
    assert read(tmp_path / "x.csv")[0] == [name]


@pytest.mark.parametrize(
    "name", ["=1+1", "-1+1", "-cmd|' /C calc'!A0", "@SUM(A1)", "'-5", "-", "-A1*2", "\t=1"]
)
@pytest.mark.parametrize("extension", [".csv", ".npy"])
def test_ids_that_may_be_formulas_are_guarded_counted_and_come_back(
    extension: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x{extension}"
    with open_writer(path, DIM) as writer:
        writer.write([name, "plain"], unit(2))
        assert writer.guarded == 1
    assert read(path)[0] == [name, "plain"]
