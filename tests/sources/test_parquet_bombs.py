"""Parquet files of a few kilobytes that stand for gigabytes: they are refused in little memory and time."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources import open_source, parquet
from img2prompt_cache.sources.base import SourceOptions
from img2prompt_cache.sources.pages import total, unpacked_groups
from img2prompt_cache.sources.tablefile import read_table

MIB = 1 << 20
READ = """
import sys
from pathlib import Path
from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources import parquetfile
from img2prompt_cache.sources.tablefile import read_table

parquetfile.LEAST = 48 << 20  # a tenth, so that the test is quick

def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) >> 10

before = peak()
try:
    print("read", read_table(Path(sys.argv[1])).num_rows)
except UsageError as error:
    print(str(error))
print(peak() - before)
"""


def repeated(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), [text])


def write(path: Path, prompts: pa.Array, **options: object) -> Path:
    ids = pa.array(range(len(prompts)))
    pq.write_table(
        pa.table({"id": ids, "prompt": prompts}), path, compression="zstd", store_schema=False, **options
    )
    assert path.stat().st_size < 200_000
    return path


def dictionary(path: Path) -> Path:
    return write(path, repeated("x" * MIB, 5000))


def nested_dictionary(path: Path) -> Path:
    return write(path, pa.ListArray.from_arrays(pa.array(range(5001), pa.int32()), repeated("x" * MIB, 5000)))


def long_lists(path: Path) -> Path:
    lists = pa.ListArray.from_arrays(pa.array([0, 1_000_000], pa.int32()), pa.nulls(1_000_000, pa.string()))
    return write(path, lists)


def shared_prefixes(path: Path) -> Path:
    one = pa.array(["x" * MIB] * 60)
    return write(path, one, use_dictionary=False, column_encoding={"prompt": "DELTA_BYTE_ARRAY"})


def compressed_page(path: Path) -> Path:
    return write(path, pa.array(["x" * (60 * MIB)]), use_dictionary=False, write_statistics=False)


def many_groups(path: Path) -> Path:
    return write(path, repeated("x" * MIB, 60), row_group_size=10)


def many_rows(path: Path) -> Path:
    nothing = pa.nulls(1_000_000, pa.string())
    pq.write_table(pa.table({"id": nothing, "prompt": nothing}), path, compression="zstd")
    return path


BOMBS = [dictionary, nested_dictionary, long_lists, shared_prefixes, compressed_page, many_groups, many_rows]


@pytest.mark.parametrize("make", BOMBS, ids=lambda make: make.__name__)
def test_a_table_that_unpacks_to_gigabytes_is_refused_in_bounded_memory(make, tmp_path):
    path = make(tmp_path / "prompts.parquet")
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    message, grown = done.stdout.splitlines()
    assert "holds more than 50,331,648 bytes of text in" in message, done.stderr
    assert int(grown) < 250, f"{grown} MiB"


def test_a_group_of_images_that_are_one_image_is_read_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 4 * MIB)
    images = pa.StructArray.from_arrays(
        [repeated("i" * MIB, 50).cast(pa.binary()), repeated("p", 50)], ["bytes", "path"]
    )
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"image": images, "text": ["p"] * 50}), path, compression="zstd", store_schema=False
    )
    source = open_source(path)
    assert source.list().table.num_rows == 50
    assert source.read("x.parquet#49") == b"i" * MIB
    # Only one of them was ever unpacked.
    group = parquet._group(str(path), 0, "image")
    assert group.nbytes < 2 * MIB


def test_images_that_share_prefixes_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    images = pa.array([b"i" * MIB] * 50)
    options = {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY", "text": "PLAIN"}}
    pq.write_table(pa.table({"image": images, "text": ["p"] * 50}), path, compression="zstd", **options)
    assert open_source(path).read("x.parquet#49") == b"i" * MIB
    parquet._group.cache_clear()
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 4 * MIB)
    with pytest.raises(ImageError, match="a row group of more than 4194304 bytes"):
        open_source(path).read("x.parquet#49")


def test_what_repeats_a_lot_is_still_a_table(tmp_path):
    path = tmp_path / "prompts.parquet"
    texts = ["a red boat at night " * 20, None, "船"] * 100_000
    pq.write_table(pa.table({"id": [str(i) for i in range(300_000)], "prompt": texts}), path)
    table = read_table(path)
    assert table["prompt"].to_pylist() == texts
    assert table.schema.types == [pa.string(), pa.string()]


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.none() | st.text(max_size=20), min_size=1, max_size=50),
    options=st.fixed_dictionaries(
        {
            "use_dictionary": st.booleans(),
            "data_page_version": st.sampled_from(["1.0", "2.0"]),
            "compression": st.sampled_from(["none", "snappy", "gzip", "zstd"]),
            "row_group_size": st.integers(1, 60),
            "data_page_size": st.sampled_from([1, 100, 1 << 20]),
            "write_statistics": st.booleans(),
        }
    ),
)
def test_the_headers_of_pages_count_every_value(texts, options, tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "x.parquet"
    pq.write_table(pa.table({"prompt": pa.array(texts, pa.string())}), path, **options)
    metadata = pq.read_metadata(path)
    groups = range(metadata.num_row_groups)
    found = total(unpacked_groups(path, ["prompt"]))
    assert found.values == len(texts)
    # The footer counts the headers, too.
    claimed = sum(metadata.row_group(group).column(0).total_uncompressed_size for group in groups)
    assert 0 <= found.size < claimed
    assert read_table(path)["prompt"].to_pylist() == texts


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
def test_the_longest_value_of_a_dictionary_is_the_bound(compression, tmp_path):
    path = tmp_path / "x.parquet"
    texts = ["a", "bb" * 50, "c"] * 1000
    pq.write_table(pa.table({"prompt": texts, "id": range(3000)}), path, compression=compression)
    (found,) = unpacked_groups(path, ["prompt"])
    if compression != "lz4":  # of which parquet knows three kinds; the whole dictionary is the bound
        assert len(texts) * 100 <= found.expanded <= len(texts) * 120
    assert unpacked_groups(path, ["id"])[0].expanded <= 3000 * 12
    assert read_table(path)["prompt"].to_pylist() == texts


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_told_as_damage(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "x.parquet"
    pq.write_table(pa.table({"id": ["a", "b"] * 20, "prompt": ["p", "q"] * 20}), path)
    raw = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(4, len(raw) - 9), min_size=1, max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with suppress(UsageError):  # anything else is a fault
        read_table(path)


@pytest.mark.parametrize("damage", [b"im\xffge", b"te\xfft", b"wor\xff"])
def test_names_and_texts_that_are_not_utf8_are_told(damage, tmp_path):
    path = tmp_path / "x.parquet"
    images = [{"bytes": b"i", "path": "p"}] * 3
    pq.write_table(pa.table({"image": images, "text": ["words"] * 3}), path, compression="none")
    word = {b"im": b"image", b"te": b"text", b"wo": b"words"}[damage[:2]]
    data = path.read_bytes()
    assert word in data
    path.write_bytes(data.replace(word, damage.ljust(len(word), b"x")))
    with pytest.raises(UsageError):
        open_source(path, SourceOptions(format="parquet")).list()
