"""Parquet files that hold images."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources import open_source, parquet
from img2prompt_cache.sources.base import SourceOptions


def structs(count: int, start: int = 0) -> list[dict[str, object]]:
    return [{"bytes": f"image {i}".encode(), "path": f"{i}.png"} for i in range(start, start + count)]


def test_shards_as_hugging_face_writes_them(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for shard in (1, 0):
        table = {
            "image": structs(10, shard * 10),
            "text": [f"p{i}" for i in range(9)] + [" "],
            "label": range(10),
        }
        pq.write_table(pa.table(table), folder / f"train-0000{shard}-of-00002.parquet", row_group_size=3)
    source = open_source(tmp_path)
    listing = source.list()
    assert source.settings == {"format": "parquet"}
    assert listing.table["imgId"].to_pylist()[9:11] == [
        "data/train-00000-of-00002/9",
        "data/train-00001-of-00002/0",
    ]
    assert listing.table["label"].to_pylist()[10:12] == ["0", "1"]
    assert (listing.summary.pairs, listing.summary.without_prompt) == (18, 2)
    uris = listing.table["uri"].to_pylist()
    again = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(again.read, uris)) == [f"image {i}".encode() for i in range(20)]


def test_plain_bytes_with_ids(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"jpg": [b"1", b"2"], "caption": ["a", None], "key": [7, 8]}), path)
    source = open_source(path)
    table = source.list().table
    assert table.to_pydict() == {
        "imgId": ["7", "8"],
        "uri": ["x.parquet#0", "x.parquet#1"],
        "prompt": ["a", None],
    }
    assert source.read("x.parquet#1") == b"2"


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"A")
    pq.write_table(
        pa.table({"image": ["a.png", "../a.png", None], "text": ["x", "y", "z"]}), tmp_path / "x.parquet"
    )
    source = open_source(tmp_path, SourceOptions(format="parquet"))
    uris = source.list().table["uri"].to_pylist()
    assert source.read(uris[0]) == b"A"
    with pytest.raises(ImageError, match="leaves the source"):
        source.read(uris[1])
    with pytest.raises(ImageError, match="holds no image"):
        source.read(uris[2])


def test_a_struct_may_hold_a_path_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"A")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    image = pa.array([{"bytes": None, "path": "a.png"}, None, {"bytes": b"B", "path": "/no"}], kind)
    pq.write_table(pa.table({"image": image, "text": ["x", "y", "z"]}), tmp_path / "x.parquet")
    source = open_source(tmp_path)
    assert source.read("x.parquet#0") == b"A"
    assert source.read("x.parquet#2") == b"B"
    with pytest.raises(ImageError, match="holds no image"):
        source.read("x.parquet#1")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("caption", [["one", "1"], [" "]]),
        ("Text", [{"short": "no", "prompt": "one"}, None]),
        ("json", [{"prompt": "one", "seed": 3}, {"prompt": None, "seed": 4}]),
        ("json", ['{"caption": "one"}', "{}"]),
        ("prompt", ['{"prompt": "one"}', ""]),
    ],
)
def test_captions_as_lists_records_and_json(tmp_path: Path, column: str, values: list[object]) -> None:
    pq.write_table(pa.table({"image": structs(2), column: values}), tmp_path / "x.parquet")
    assert open_source(tmp_path).list().table["prompt"].to_pylist() == ["one", None]


def test_as_img2dataset_writes_parquet(tmp_path: Path) -> None:
    columns = {
        "caption": ["one", "gone", "three"],
        "key": ["000000000", "000000001", "000000002"],
        "status": ["success", "failed_to_download", "success"],
        "error_message": [None, "HTTP Error 404", None],
        "jpg": [b"1", None, b"3"],
    }
    pq.write_table(pa.table(columns), tmp_path / "00000.parquet")
    source = open_source(tmp_path)
    listing = source.list()
    assert listing.table.select(["imgId", "uri", "prompt"]).to_pydict() == {
        "imgId": ["000000000", "000000002"],
        "uri": ["00000.parquet#0", "00000.parquet#2"],
        "prompt": ["one", "three"],
    }
    assert listing.summary.without_image == 1
    assert source.read("00000.parquet#2") == b"3"


def test_keys_of_webdatasets_are_ids(tmp_path: Path) -> None:
    columns = {"__key__": ["a", "b"], "jpg": [b"1", b"2"], "json": [{"prompt": "x"}, {"prompt": "y"}]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert open_source(tmp_path).list().table["imgId"].to_pylist() == ["a", "b"]


@pytest.mark.parametrize(
    "uri", ["x.parquet#9", "x.parquet", "../x.parquet#0", "gone.parquet#0", "junk.parquet#0"]
)
def test_read_refuses_what_is_not_there(tmp_path: Path, uri: str) -> None:
    pq.write_table(pa.table({"image": structs(1), "text": ["x"]}), tmp_path / "x.parquet")
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(ImageError, match="cannot be read"):
        open_source(tmp_path, SourceOptions(format="parquet")).read(uri)


def test_wrong_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = SourceOptions(format="parquet")
    with pytest.raises(UsageError, match=r"holds no \.parquet file"):
        open_source(tmp_path, options).list()
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    with pytest.raises(UsageError, match="cannot be read as parquet"):
        open_source(tmp_path, options).list()
    pq.write_table(pa.table({"n": [1], "text": ["x"]}), path)
    with pytest.raises(UsageError, match="no column named image"):
        open_source(tmp_path, options).list()
    pq.write_table(pa.table({"image": structs(1), "n": [1]}), path)
    with pytest.raises(UsageError, match="no column named prompt"):
        open_source(tmp_path, options).list()
    pq.write_table(pa.table({"image": structs(2), "text": ["x", "y"], "id": ["a", "a"]}), path)
    with pytest.raises(UsageError, match="'a' is there twice"):
        open_source(tmp_path, options).list()
    pq.write_table(pa.table({"image": structs(2), "text": ["x", "y"], "id": ["a", None]}), path)
    with pytest.raises(UsageError, match="a row without 'id'"):
        open_source(tmp_path, options).list()
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 10)
    with pytest.raises(UsageError, match="smaller row groups"):
        open_source(tmp_path, options).list()


def test_columns_may_be_named(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image": structs(1), "a": ["i"], "b": ["p"], "text": ["t"]}), tmp_path / "x.parquet"
    )
    source = open_source(tmp_path, SourceOptions(id_column="a", prompt_column="b"))
    table = source.list().table
    assert table.to_pydict() == {"imgId": ["i"], "uri": ["x.parquet#0"], "prompt": ["p"], "text": ["t"]}


def test_images_with_several_captions_are_counted_over_all_files(tmp_path: Path) -> None:
    for number, captions in enumerate(([["a", "b"], ["c"]], [["d", "e", "f"], []])):
        table = pa.table({"image": [b"x", b"y"], "caption": captions})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    listing = open_source(tmp_path).list()
    assert listing.table["prompt"].to_pylist() == ["a", "c", "d", None]
    assert listing.table["more_prompts"].to_pylist() == ['["b"]', "", '["e", "f"]', ""]
    assert listing.summary.notes == (
        "2 images have several prompts; the first counts where there can be only one",
    )
