"""Telling the format, folders without a table, explicit paths, reading."""

import os
import pickle
from pathlib import Path

import pytest

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources import FORMATS, files, find_default, open_paths, open_source, reopen_source
from img2prompt_cache.sources.base import SourceOptions


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


def test_sidecar(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "sub/b.png", "c.png", "d.png", "e.png", "lost.txt")
    (tmp_path / "a.txt").write_bytes("\ufeff  two\nlines \r\n\n".encode())
    (tmp_path / "sub" / "b.txt").write_text("猫")
    (tmp_path / "c.txt").write_text(" \n")
    (tmp_path / "d.txt").write_bytes(b"\xff")
    source = open_source(tmp_path)
    listing = source.list()
    assert source.settings == {"format": "sidecar"}
    assert listing.table["imgId"].to_pylist() == ["a", "c", "d", "e", "sub/b"]
    assert listing.table["prompt"].to_pylist() == ["  two\nlines ", None, None, None, "猫"]
    assert (listing.summary.pairs, listing.summary.without_image) == (2, 1)
    assert "1 text files that cannot be read or are not UTF-8 (first: d.txt)" in listing.summary.notes


def test_same_stem_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a.jpg")
    with pytest.raises(UsageError, match=r"imgId 'a' is there twice \(a.jpg and a.png\)"):
        open_source(tmp_path).list()


def test_several_formats_are_noted(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.tar")
    (tmp_path / "prompts.csv").write_text("imgId,prompt\na,x\n")
    source = open_source(tmp_path)
    assert source.settings["format"] == "table"
    assert source.list().summary.notes[0] == "read as table; also looks like webdataset (--format chooses)"
    assert open_source(tmp_path, SourceOptions(format="folder")).list().summary.notes == ()


def test_links_pipes_and_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    put(folder, "a.png", "sub/b.png")
    put(tmp_path, "secret.png")
    (folder / "inside.png").symlink_to(folder / "sub" / "b.png")
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "sub" / "up").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "bad\udcff.png").touch()
    source = open_source(folder)
    listing = source.list()
    assert listing.table["imgId"].to_pylist() == ["a", "inside", "sub/b"]
    assert [note.split()[0] for note in listing.summary.notes] == ["4", "1"]
    assert source.read("inside.png") == b"sub/b.png"
    for uri in (
        "out.png",
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


def test_a_folder_that_is_a_link_is_followed(tmp_path: Path) -> None:
    put(tmp_path / "real", "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    source = open_source(tmp_path / "link")
    assert source.root == tmp_path / "link"
    assert source.read(source.list().table["uri"][0].as_py()) == b"a.png"


def test_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(files.MAX_IMAGE_BYTES + 1)
    with pytest.raises(ImageError, match="more than the 268435456 allowed"):
        open_source(tmp_path).read("a.png")


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("gone", {}, "no file or folder"),
        ("a.png", {}, "is not a source"),
        ("empty", {}, "holds no images"),
        (".", {"format": "tabel"}, "unknown --format 'tabel'; did you mean table"),
        (".", {"format": "folder", "id_column": "x"}, "--id-column means nothing to --format folder"),
        (
            ".",
            {"format": "webdataset", "prompts": Path("x.csv")},
            "--prompts means nothing to --format webdataset",
        ),
        ("empty", {"prompt_column": "x"}, "is not a source"),
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
    assert [name for name, source in FORMATS.items() if source.detects(tmp_path)] == ["folder"]
    assert not any(source.detects(tmp_path / "a.png") for source in FORMATS.values())


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


def test_wrong_paths(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    with pytest.raises(UsageError, match="no images were named"):
        open_paths([])
    with pytest.raises(UsageError, match=r"no file or folder .*b.png"):
        open_paths([tmp_path / "a.png", tmp_path / "b.png"])
    with pytest.raises(UsageError, match="twice"):
        open_paths([tmp_path / "a.png", tmp_path / "a.png"]).list()


def test_images_behind_a_link_are_told(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "a.png")
    put(tmp_path / "set", "b.md")
    (tmp_path / "set" / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "prompts.csv").write_text("imgId,prompt\na,x\n")
    with pytest.raises(UsageError, match=r"holds no images; 1 links .* passed over \(first: images/\)"):
        open_source(tmp_path / "set").list()
    assert open_source(tmp_path / "set" / "images").list().table["prompt"].to_pylist() == ["x"]
