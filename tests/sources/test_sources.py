"""Telling the format, folders without a table, explicit paths, reading."""

import os
import pickle
import re
from pathlib import Path

import pytest

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources import (
    FORMATS,
    find_default,
    list_images,
    open_paths,
    open_source,
    reading,
    reopen_source,
)
from img2prompt_cache.sources import scan as scan_module
from img2prompt_cache.sources.base import SourceOptions
from img2prompt_cache.sources.scan import Walk


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_folder_of_images_alone(tmp_path: Path) -> None:
    put(tmp_path, "b.png", "a b/c.JPG", "a-b/c.webp", ".hidden/x.png", "._a.png", "notes.md")
    source = open_source(tmp_path)
    listing = source.list()
    assert source.settings == {"format": "folder"}
    assert listing.table["imgId"].to_pylist() == ["a b/c", "a-b/c", "b"]
    assert listing.table["prompt"].null_count == 3
    assert source.read("a b/c.JPG") == b"a b/c.JPG"


def test_same_stem_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a.jpg")
    with pytest.raises(UsageError, match=r"imgId 'a' is there twice \(a.jpg and a.png\)"):
        open_source(tmp_path).list()


def test_several_formats_are_noted(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.tar")
    (tmp_path / "prompts.csv").write_text("imgId,prompt\na,x\n")
    source = open_source(tmp_path)
    assert source.settings["format"] == "table"
    assert source.list().summary.notes[0] == "read as table; also looks like webdataset (`format` chooses)"
    assert open_source(tmp_path, SourceOptions(format="folder")).list().summary.notes == ()


def test_links_pipes_and_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    put(folder, "a.png", "sub/b.png")
    put(tmp_path, "secret.png")
    (folder / "inside.png").symlink_to(folder / "sub" / "b.png")
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "long.png").symlink_to("x" * 300)
    os.mkfifo(folder / "pipe.png")
    (folder / "bad\udcff.png").touch()
    source = open_source(folder)
    listing = source.list()
    assert listing.table["imgId"].to_pylist() == ["a", "inside", "out", "sub/b"]
    remedy = "skipped; name what a link leads to, or a copy made with `cp -rL`"
    assert listing.summary.notes == (
        f"2 links to folders, {remedy} (first: folder/)",
        f"3 links to nothing, or to a text outside, {remedy} (first: gone.png)",
        "1 name that cannot be read or is not UTF-8, skipped (first: bad\ufffd.png)",
    )
    assert source.read("inside.png") == b"sub/b.png"
    assert source.read("out.png") == b"secret.png"
    for uri in (
        "folder/secret.png",
        "loop.png",
        "gone.png",
        "pipe.png",
        "sub/up",
        "../secret.png",
        "/etc/passwd",
        "a\0.png",
    ):
        with pytest.raises(ImageError, match="cannot be read"):
            source.read(uri)


def test_a_snapshot_of_links_as_the_hub_dvc_and_annex_make_them(tmp_path: Path) -> None:
    put(tmp_path / "blobs", "1a", "2b", "3c")
    snapshot = tmp_path / "snapshots" / "main"
    (snapshot / "images").mkdir(parents=True)
    (snapshot / "images" / "a.png").symlink_to(Path("../../../blobs/1a"))
    (snapshot / "images" / "b.jpg").symlink_to(Path("../../../blobs/2b"))
    (snapshot / "images" / "not-fetched.png").symlink_to(Path("../../../blobs/9z"))
    (tmp_path / "blobs" / "table").write_text("imgId,prompt\na,x\nb,y\nnot-fetched,z\n")
    (snapshot / "prompts.csv").symlink_to(Path("../../blobs/table"))
    source = open_source(snapshot)
    listing = source.list()
    assert listing.table["prompt"].to_pylist() == ["x", "y"]
    assert listing.summary.without_image == 1
    assert [source.read(uri) for uri in listing.table["uri"].to_pylist()] == [b"1a", b"2b"]


def test_a_text_behind_a_link_out_of_the_folder_is_no_prompt(tmp_path: Path) -> None:
    put(tmp_path, "set/a.png", "set/b.png", "set/texts/b.txt", "key")
    (tmp_path / "set" / "a.txt").symlink_to(tmp_path / "key")
    (tmp_path / "set" / "b.txt").symlink_to(tmp_path / "set" / "texts" / "b.txt")
    listing = open_source(tmp_path / "set").list()
    assert listing.table["prompt"].to_pylist() == [None, "set/texts/b.txt"]
    assert any("to a text outside" in note and "(first: a.txt)" in note for note in listing.summary.notes)


def test_a_folder_that_is_a_link_is_followed(tmp_path: Path) -> None:
    put(tmp_path / "real", "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    source = open_source(tmp_path / "link")
    assert source.root == tmp_path / "link"
    assert source.read(source.list().table["uri"][0].as_py()) == b"a.png"


def test_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(reading.MAX_IMAGE_BYTES + 1)
    with pytest.raises(ImageError, match="more than the 268435456 allowed"):
        open_source(tmp_path).read("a.png")


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("gone", {}, "no file or folder"),
        ("a.png", {}, "is not a source"),
        ("empty", {}, "holds no images"),
        (".", {"format": "tabel"}, "unknown `format` 'tabel'; did you mean table"),
        (".", {"format": "folder", "id_column": "x"}, '`id_column` means nothing to `format="folder"`'),
        (
            ".",
            {"format": "webdataset", "prompts": Path("x.csv")},
            '`prompts` means nothing to `format="webdataset"`',
        ),
        ("empty", {"prompt_column": "x"}, "`prompt_column` goes with a table, and .*empty holds none"),
        (".", {"id_column": "x"}, "`id_column` goes with a table"),
    ],
)
def test_wrong_use_is_told(tmp_path: Path, path: str, options: dict[str, str], message: str) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        open_source(tmp_path / path, SourceOptions(**options)).list()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{}, {"format": "folder"}, {"id_column": "b", "prompt_column": "c"}, {"prompts": Path("x.csv")}],
)
def test_a_source_is_made_again_from_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "prompts.csv").write_text("imgId,prompt,b,c\na,x,a,z\n")
    (tmp_path / "x.csv").write_text("imgId,prompt\na,other\n")
    monkeypatch.chdir(tmp_path)
    source = open_source(Path(), SourceOptions(**options))  # type: ignore[arg-type]
    wanted = source.list()
    monkeypatch.chdir("/")
    again = reopen_source({"root": str(source.root), **source.settings})
    assert again.list().table.equals(wanted.table)
    assert again.settings == source.settings
    assert again.root == tmp_path
    assert pickle.loads(pickle.dumps(source)).read("a.png") == b"a.png"


def test_every_format_says_its_name_and_detects_itself(tmp_path: Path) -> None:
    assert list(FORMATS) == ["imagefolder", "table", "webdataset", "parquet", "sidecar", "metadata", "folder"]
    put(tmp_path, "a.png")
    assert [name for name, source in FORMATS.items() if source.recognise(Walk(tmp_path))] == ["folder"]
    assert not any(source.recognise(Walk(tmp_path / "a.png")) for source in FORMATS.values())


def test_find_default(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no images/ with prompts.csv beside it"):
        find_default(tmp_path)
    put(tmp_path, "a.png")
    with pytest.raises(UsageError, match="nothing to extract"):
        find_default(tmp_path)
    (tmp_path / "prompts.csv").write_text("imgId,prompt\na,x\n")
    assert find_default(tmp_path) == tmp_path
    put(tmp_path, "images/a.png", "cache/other.png")
    assert find_default(tmp_path) == tmp_path / "images"
    assert open_source(find_default(tmp_path)).list().table["prompt"].to_pylist() == ["x"]


def test_a_name_too_long_does_not_spoil_the_others(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    source, listing = list_images([tmp_path / ("x" * 300), tmp_path / "a.png"])
    first, second = listing.table["uri"].to_pylist()
    with pytest.raises(ImageError, match="too long"):
        source.read(first)
    assert source.read(second) == b"a.png"
    with pytest.raises(UsageError, match="there is no file or folder"):
        list_images([tmp_path / ("x" * 300 + ".png")])


def test_paths(tmp_path: Path) -> None:
    put(tmp_path, "x/a.png", "y/a.jpg", "y/b.png", "c.unknown")
    (tmp_path / "x" / "link.png").symlink_to(tmp_path / "y" / "b.png")
    source = open_paths(
        [tmp_path / "y", tmp_path / "x" / "a.png", tmp_path / "c.unknown", tmp_path / "x" / "link.png"]
    )
    table = source.list().table
    assert table["imgId"].to_pylist() == ["y/a", "b", "x/a", "c.unknown", "link"]
    assert table["prompt"].null_count == 5
    assert [source.read(uri) for uri in table["uri"].to_pylist()][2:] == [
        b"x/a.png",
        b"c.unknown",
        b"y/b.png",
    ]
    assert source.settings == {"format": "paths"}


def test_one_path(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png")
    (tmp_path / "prompts.csv").write_text("imgId,prompt\na,x\n")
    single = open_paths([tmp_path / "images" / "a.png"])
    assert single.list().table.to_pylist() == [{"imgId": "a", "uri": "a.png", "prompt": None}]
    assert open_paths([tmp_path]).list().table["prompt"].to_pylist() == ["x"]


def test_no_path_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no images were named"):
        open_paths([])
    with pytest.raises(UsageError, match=r"no file or folder .*b\.png$"):
        open_paths([tmp_path / "b.png"])
    with pytest.raises(UsageError, match=r"no file or folder .*b\.png, nor any of the 2 others"):
        open_paths([tmp_path / "b.png", tmp_path / "c.png", tmp_path / "d"])


def test_one_bad_path_does_not_spoil_the_others(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "odd\udcff.png").touch()
    (tmp_path / "none").mkdir()
    source, listing = list_images(
        [tmp_path / name for name in ("a.png", "gone.png", "none", "gone/b.png", "odd\udcff.png")]
    )
    uris = listing.table["uri"].to_pylist()
    assert uris == ["a.png", "gone.png", "gone/b.png"]
    assert source.read("a.png") == b"a.png"
    for uri in uris[1:]:
        with pytest.raises(ImageError, match="No such file or directory"):
            source.read(uri)
    holds_none, odd = listing.summary.notes
    assert holds_none == f"{tmp_path / 'none'} holds no images"
    assert odd.startswith("1 name that is not UTF-8, skipped")


def test_an_image_named_twice_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "x/a.png", "x/b.png")
    monkeypatch.chdir(tmp_path)
    _, listing = list_images([Path("x/b.png"), Path("x"), tmp_path / "x" / "b.png", Path("x/../x/a.png")])
    assert listing.table["imgId"].to_pylist() == ["b", "a"]
    assert listing.summary.notes == ("2 images named twice, taken once (first: a.png)",)


@pytest.mark.parametrize("whole_folder", [True, False])
def test_ids_keep_the_suffix_where_nothing_else_differs(tmp_path: Path, whole_folder: bool) -> None:
    # The stem of the third is what the first is called with its suffix.
    names = ["a.jpg", "a.png", "a.jpg.png", "b.png"]
    put(tmp_path, *names)
    paths = [tmp_path] if whole_folder else [tmp_path / name for name in names]
    rows = list_images(paths)[1].table.to_pylist()
    assert {row["uri"]: row["imgId"] for row in rows} == {
        "a.jpg": "a.jpg",
        "a.png": "a.png",
        "a.jpg.png": "a.jpg.png",
        "b.png": "b",
    }


def test_prediction_needs_no_prompts(tmp_path: Path) -> None:
    put(tmp_path, "b/a.png", "c.png")
    (tmp_path / "c.txt").write_text("a prompt")
    wanted = [
        {"imgId": "b/a", "uri": "b/a.png", "prompt": None},
        {"imgId": "c", "uri": "c.png", "prompt": None},
    ]
    source, listing = list_images([tmp_path])
    assert source.settings == {"format": "paths"}
    assert listing.table.to_pylist() == wanted
    for table, why in (
        ("imgId,prompt\nother,x\n", "no row of .*prompts.csv names an image"),
        ("imgId,prompt\nc,x\n,y\n", "the id '' has no id"),
        ("imgId,prompt\n../c,x\n", "names a file outside the source"),
        ("picture,words\nc,x\n", "prompts.csv"),
    ):
        (tmp_path / "prompts.csv").write_text(table)
        with pytest.raises(UsageError, match=why):
            open_source(tmp_path).list()
        _, listing = list_images([tmp_path])
        assert listing.table.to_pylist() == wanted
        assert re.match(f"the images are taken without their table: .*{why}", listing.summary.notes[0])
    (tmp_path / "prompts.csv").write_text("imgId,prompt\nc,x\n")
    assert list_images([tmp_path])[1].table["prompt"].to_pylist() == ["x", None]


def test_what_was_wrong_first_is_told_where_there_are_no_images_either(tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("picture\nc\n")
    for path in (tmp_path, tmp_path / "prompts.csv"):
        with pytest.raises(UsageError, match=r"prompts\.csv"):
            list_images([path])


def test_images_behind_a_link_are_told(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "a.png")
    put(tmp_path / "set", "b.md")
    (tmp_path / "set" / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "prompts.csv").write_text("imgId,prompt\na,x\n")
    with pytest.raises(UsageError, match=r"holds no images; 1 link to a folder, .* \(first: images/\)"):
        open_source(tmp_path / "set").list()
    assert open_source(tmp_path / "set" / "images").list().table["prompt"].to_pylist() == ["x"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,prompt\nimages/x/b.png,p\n"),
        ("prompts.csv", "imgId,prompt\ndeep/er/c,p\n"),
        ("a.txt", "p"),
        ("notes.md", ""),
    ],
)
def test_a_folder_is_walked_once_to_be_recognised_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    put(tmp_path, "a.png", "images/x/b.png", "deep/er/c.png")
    (tmp_path / name).write_text(text)
    visited: list[str] = []
    real = os.scandir

    def scandir(path: str) -> object:
        visited.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(scan_module.os, "scandir", scandir)
    source = open_source(tmp_path)
    assert source.list().table.num_rows == 3
    assert visited.count("er") == 1
    put(tmp_path, "later.png")
    assert "later" in source.list().table["imgId"].to_pylist()
    assert visited.count("er") == 2


def test_a_table_beside_a_folder_of_images_does_not_walk_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "images/a.png", "deep/er/c.png")
    (tmp_path / "prompts.csv").write_text("imgId,prompt\na,p\n")
    visited: list[str] = []
    real = os.scandir
    monkeypatch.setattr(scan_module.os, "scandir", lambda path: visited.append(str(path)) or real(path))
    assert open_source(tmp_path, SourceOptions(format="table")).list().summary.pairs == 1
    assert not any(path.endswith("er") for path in visited)


@pytest.mark.parametrize("below", ["", "sub/"])
@pytest.mark.parametrize("suffixes", [(".png",), (".png", ".txt"), (".json",)])
def test_a_walk_finds_what_a_scan_finds(tmp_path: Path, below: str, suffixes: tuple[str, ...]) -> None:
    folder = tmp_path / "set"
    put(folder, "a.png", "a.txt", "sub/b.PNG", "sub/b.json", "sub/deeper/c.txt", ".hidden/x.png")
    put(tmp_path, "out.png", "out.txt")
    for at in (folder, folder / "sub"):
        (at / "link.png").symlink_to(tmp_path / "out.png")
        (at / "link.txt").symlink_to(tmp_path / "out.txt")
        (at / "gone.png").symlink_to(tmp_path / "nothing")
        (at / "folder").symlink_to(tmp_path)
        (at / os.fsdecode(b"\xff.png")).touch()
    walk = Walk(folder)
    expected = scan_module.scan(folder / below, suffixes)
    for _ in range(2):
        found = walk.scan(suffixes, below)
        assert found.files == expected.files
        assert sorted(found.links) == sorted(expected.links)
        assert sorted(found.unreadable) == sorted(expected.unreadable)
    assert pickle.loads(pickle.dumps(walk)).scan(suffixes, below).files == expected.files


@pytest.mark.parametrize("table", [False, True])
def test_an_image_that_cannot_be_decoded_is_listed_unless_a_copy_lies_beside_it(
    tmp_path: Path, table: bool
) -> None:
    put(tmp_path, "a.heic", "a.jpg", "b.JXL", "c.avif", "sub/a.HEIF")
    if table:
        (tmp_path / "prompts.csv").write_text("imgId,prompt\na,x\nb,y\n")
    listing = open_source(tmp_path).list()
    assert sorted(listing.table["uri"].to_pylist()) == ["a.jpg", "b.JXL", "c.avif", "sub/a.HEIF"]
    assert listing.summary.notes == (
        "1 image that cannot be decoded left out beside a copy of the same name (first: a.heic)",
    )
