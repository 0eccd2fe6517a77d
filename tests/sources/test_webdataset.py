"""Tar shards: as webdataset and img2dataset write them, and as an attacker would."""

import io
import json
import pickle
import struct
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.base import SourceOptions
from img2prompt_cache.sources.tarindex import Member, TarDamage, members


def tar(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def index(data: bytes) -> list[Member]:
    return list(members(io.BytesIO(data)))


def test_shards_of_img2dataset(tmp_path: Path) -> None:
    for shard in ("00001", "00000"):
        files = {}
        for key in ("000", "001"):
            name = f"{shard}{key}"
            files[f"{name}.jpg"] = name.encode()
            files[f"{name}.json"] = json.dumps({"caption": "from json", "key": name}).encode()
            files[f"{name}.txt"] = f"text {name}\n".encode()
        (tmp_path / f"{shard}.tar").write_bytes(tar(files))
        (tmp_path / f"{shard}.parquet").write_bytes(b"a table without images")
        (tmp_path / f"{shard}_stats.json").write_text("{}")
    source = open_source(tmp_path)
    table = source.list().table
    assert source.settings == {"format": "webdataset"}
    assert table["imgId"].to_pylist() == [
        "00000/00000000",
        "00000/00000001",
        "00001/00001000",
        "00001/00001001",
    ]
    assert table["prompt"].to_pylist()[0] == "text 00000000"
    again = pickle.loads(pickle.dumps(source))
    assert [again.read(uri) for uri in table["uri"].to_pylist()][2] == b"00001000"
    single = open_source(tmp_path / "00001.tar")
    assert single.list().table["imgId"].to_pylist() == ["00001000", "00001001"]
    assert single.read(single.list().table["uri"][1].as_py()) == b"00001001"


def test_samples(tmp_path: Path) -> None:
    files = {
        "./a.PNG": b"1",
        "./a.json": b'{"prompt": "one", "caption": "other"}',
        "b.input.webp": b"2",
        "b.cls": b"3",
        "c.txt": b"no image",
        "d/e.v1.jpg": b"4",
        "d/e.txt": b"   ",
        "d/e.json": b'{"caption": 3, "text": "four"}',
        "f.jpg": b"5",
        "f.json": b"[" * 100_000,
        "g.jpg": b"6",
        "g.txt": b"x" * 2_000_000,
        ".hidden.jpg": b"",
        "README": b"",
        "h.jpg": b"7",
        "h.json": b'{"text": "\\ud800"}',
    }
    path = tmp_path / "s.tar"
    path.write_bytes(tar(files))
    source = open_source(path)
    listing = source.list()
    assert listing.table["imgId"].to_pylist() == ["a", "b", "d/e", "f", "g", "h"]
    assert listing.table["prompt"].to_pylist() == ["one", None, "four", None, None, "?"]
    assert listing.summary.without_image == 1
    assert [source.read(uri) for uri in listing.table["uri"].to_pylist()] == [
        b"1",
        b"2",
        b"4",
        b"5",
        b"6",
        b"7",
    ]


@pytest.mark.parametrize(
    ("ending", "text", "prompt"),
    [
        ("caption", "a tram\n", "a tram"),
        ("prompt", "a tram", "a tram"),
        ("txt", "a tram\nNegative prompt: blur\nSteps: 20, Sampler: Euler, Seed: 1", "a tram"),
        ("json", '{"meta": {"prompt": "a tram"}}', "a tram"),
        ("json", '{"caption": ["a tram", "more"]}', "a tram"),
        ("json", "a tram", None),
        ("cls", "a tram", "a tram"),
        ("cls", "17\n", None),
        ("seg", "a tram", None),
    ],
)
def test_where_a_sample_states_its_prompt(tmp_path: Path, ending: str, text: str, prompt: str | None) -> None:
    (tmp_path / "s.tar").write_bytes(tar({"a.png": b"1", f"a.{ending}": text.encode()}))
    assert open_source(tmp_path).list().table["prompt"].to_pylist() == [prompt]


def test_the_tables_of_img2dataset_are_passed_over(tmp_path: Path) -> None:
    columns = {"caption": ["a", "b"], "key": ["0", "1"], "status": ["success"] * 2, "error_message": ["", ""]}
    pq.write_table(pa.table(columns), tmp_path / "00000.parquet")
    (tmp_path / "00000.tar").write_bytes(tar({"0.jpg": b"1", "0.txt": b"a"}))
    (tmp_path / "more.tar").write_bytes(tar({"1.jpg": b"1", "1.txt": b"b"}))
    (tmp_path / "more.csv").write_text("key,caption\n1,b\n")
    source = open_source(tmp_path)
    assert source.settings == {"format": "webdataset"}
    assert source.list().table["prompt"].to_pylist() == ["a", "b"]


def test_one_key_twice(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    # `tarfile` pads to 10,240 bytes; cut back to the end of the two members.
    path.write_bytes(tar({"a.jpg": b"1", "b.jpg": b"2"})[: 4 * 512] + tar({"a.jpg": b"1"}))
    with pytest.raises(UsageError, match=r"imgId 'a' is there twice \(s.tar#512\+1 and s.tar#2560\+1\)"):
        open_source(path).list()


def test_links_devices_and_unsafe_names_are_passed_over(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", errors="surrogateescape", encoding="utf-8") as archive:
        for name in ("../up.jpg", "/abs.jpg", "a/../../b.jpg", "ok.jpg", "bad\udcff.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 2
            archive.addfile(info, io.BytesIO(b"xx"))
        for number, kind in enumerate(
            (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
        ):
            info = tarfile.TarInfo(f"special{number}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    path = tmp_path / "s.tar"
    path.write_bytes(file.getvalue())
    listing = open_source(path).list()
    assert listing.table["imgId"].to_pylist() == ["ok"]
    assert listing.summary.notes[0].startswith("4 members with unsafe names")


@pytest.mark.parametrize(
    "uri", ["../s.tar#0+5", "/etc/passwd#0+5", "s.tar", "s.tar#-1+5", "s.tar#0+x", "gone.tar#0+5"]
)
def test_read_refuses_other_places(tmp_path: Path, uri: str) -> None:
    (tmp_path / "set").mkdir()
    for folder in (tmp_path, tmp_path / "set"):
        (folder / "s.tar").write_bytes(tar({"a.jpg": b"1"}))
    with pytest.raises(ImageError, match="cannot be read"):
        open_source(tmp_path / "set").read(uri)


def test_read_limits(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(tar({"a.jpg": b"1"}))
    source = open_source(tmp_path)
    with pytest.raises(ImageError, match="ends before the image does"):
        source.read("s.tar#512+99999")
    with pytest.raises(ImageError, match="more than the"):
        source.read(f"s.tar#512+{1 << 40}")


def test_a_shard_cut_short_is_listed_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = tar({"a.jpg": b"1", "a.txt": b"one", "b.jpg": b"2" * 2000})
    (tmp_path / "s.tar").write_bytes(whole[: 512 * 6])
    listing = open_source(tmp_path).list()
    assert listing.table["prompt"].to_pylist() == ["one"]
    assert "cut short in the file at byte 2048" in listing.summary.notes[0]
    (tmp_path / "s.tar").write_bytes(whole[:700])
    assert open_source(tmp_path).list().table["imgId"].to_pylist() == ["s/a"]
    (tmp_path / "s.tar").write_bytes(whole[:500])
    with pytest.raises(UsageError, match="not an uncompressed tar file"):
        open_source(tmp_path).list()


def test_what_is_no_tar(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(UsageError, match=r"s.tar is not an uncompressed tar file.*Unpack .tar.gz"):
        open_source(path).list()
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="holds no images"):
        open_source(path).list()
    path.unlink()
    with pytest.raises(UsageError, match=r"holds no \.tar file"):
        open_source(tmp_path, SourceOptions(format="webdataset")).list()


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300).filter(
    lambda name: not name.endswith("/")
)


@given(
    st.dictionaries(NAMES, st.binary(max_size=1200), max_size=6),
    st.sampled_from((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)),
)
def test_the_index_agrees_with_tarfile(files: dict[str, bytes], form: int) -> None:
    data = tar(files, form)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        wanted = [Member(m.name, m.offset_data, m.size) for m in archive.getmembers()]
    # `tarfile` cuts slashes at the end of names; the filter leaves none there.
    assert index(data) == wanted
    assert [data[m.offset :][: m.size] for m in index(data)] == list(files.values())


def header(size: bytes, kind: bytes = b"0", name: bytes = b"a.jpg") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(b"77777777777"), "cut short"),
        (header(b"\x80" + b"\xff" * 11), "cut short"),
        (header(b"\xff" * 12), "no valid header"),
        (header(b"-0000000001"), "no valid header"),
        (header(b"zzz"), "no valid header"),
        (header(b"0")[:400], "no valid header"),
        (header(b"00010000000", b"x") + bytes(1 << 22), "a header of 2097152 bytes"),
        (header(b"0", b"S"), "sparse"),
        (b"\1" * 512, "no valid header"),
    ],
)
def test_damage_is_told(data: bytes, message: str) -> None:
    with pytest.raises(TarDamage, match=message):
        index(data)


def pax(*records: bytes) -> bytes:
    body = b"".join(records)
    return header(b"%011o" % len(body), b"x") + body.ljust(-(-len(body) // 512) * 512, b"\0")


@pytest.mark.parametrize("record", [b"22 GNU.sparse.major=1\n", b"24 GNU.sparse.map=0,1,9\n"])
def test_sparse_files_of_pax_are_not_read_as_if_they_were_whole(record: bytes) -> None:
    member = header(b"00000000003", name=b"b.jpg") + b"xyz".ljust(512, b"\0")
    assert int(record.split()[0]) == len(record)
    with pytest.raises(TarDamage, match="sparse"):
        index(pax(record) + member)


def test_a_header_of_a_megabyte_of_records_is_read_once() -> None:
    records = b"".join(b"10 a=%04d\n" % (number % 10_000) for number in range(100_000))
    member = header(b"00000000003", name=b"b.jpg") + b"xyz".ljust(512, b"\0")
    assert [m.name for m in index(pax(records) + member)] == ["b.jpg"]


def test_pax_records() -> None:
    follow = header(b"0") + header(b"00000000003", name=b"b.jpg") + b"xyz".ljust(512, b"\0")
    assert [m.name for m in index(pax(b"13 path=new\n\n") + follow)] == ["new\n", "b.jpg"]
    assert [m.name for m in index(pax(b"99 path=new\n") + follow)] == ["a.jpg", "b.jpg"]
    assert [m.name for m in index(pax(b"0 path=new\n") + follow)] == ["a.jpg", "b.jpg"]
    assert [m.size for m in index(pax(b"12 size=512\n") + header(b"0") + bytes(512) + follow)] == [512, 0, 3]
    assert [m.size for m in index(pax(b"11 size=-1\n") + follow)] == [0, 3]
    with pytest.raises(TarDamage, match="cut short"):
        index(pax(b"29 size=99999999999999999999\n") + follow)


PIECES = st.sampled_from(
    [
        *(tar({"a.jpg": b"1", "a.txt": b"2", "l" * 200 + ".jpg": b"3"}, form) for form in (0, 1, 2) if form),
        header(b"00000001000"),
        header(b"\x80" + struct.pack(">11B", *range(11)), b"L"),
        pax(b"20 size=99999999999\n"),
        bytes(512),
    ]
)


@given(
    st.lists(PIECES | st.binary(max_size=600), max_size=5),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=8)), max_size=4),
)
def test_any_bytes_are_a_listing_or_an_error(pieces: list[bytes], patches: list[tuple[int, bytes]]) -> None:
    data = bytearray(b"".join(pieces))
    for at, patch in patches:
        data[at : at + len(patch)] = patch
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s.tar")
        path.write_bytes(data)
        source = open_source(path)
        try:
            uris = source.list().table["uri"].to_pylist()
        except UsageError:
            return
        for uri in uris:
            source.read(uri)
