from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.errors import UsageError
from img2prompt_cache.prediction.outputs import open_writer
from img2prompt_cache.prediction.outputs.captions import CaptionWriter, caption_name, one_line
from img2prompt_cache.prediction.predictions import Predictions
from synthetic import make_cache

DIM = 4


def write(folder: Path, captions: dict[str, str], *, composed: list[str] | None = None, **options) -> None:
    vectors = np.eye(len(captions), DIM, dtype=np.float32)
    columns = {} if composed is None else {"composed": composed}
    with open_writer(f"{folder}/", DIM, **options) as writer:
        for at, (name, prompt) in enumerate(captions.items()):
            one = {key: values[at : at + 1] for key, values in columns.items()}
            writer.write([name], vectors[at : at + 1], [[(prompt, 0.5), ("other", 0.1)]], one)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_each_image_has_a_file_with_its_nearest_or_composed_prompt(tmp_path: Path) -> None:
    write(tmp_path / "new", {"a/b.png": "a red boat", "c": "zwei Boote, übermalt", "v1.5": "sea"})
    assert contents(tmp_path) == {
        "new/a/b.txt": "a red boat\n",
        "new/c.txt": "zwei Boote, übermalt\n",
        "new/v1.5.txt": "sea\n",
    }
    write(tmp_path / "other", {"a": "sea"}, composed=["a boat on the sea"])
    assert contents(tmp_path / "other") == {"a.txt": "a boat on the sea\n"}


def test_captions_join_the_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").write_bytes(b"png")
    with open_writer(tmp_path, DIM, inputs=[tmp_path]) as writer:  # a folder that is there needs no slash
        writer.write(["a/b", "c/d"], np.eye(2, DIM, dtype=np.float32), [[("boat", 1.0)], [("sea", 1.0)]])
    assert contents(tmp_path) == {"a/b.png": "png", "a/b.txt": "boat\n", "c/d.txt": "sea\n"}
    assert not [*tmp_path.rglob("*.tmp")]


@given(st.text(max_size=12) | st.text("./\\~a\n\0:", max_size=12))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    parts = caption_name(name).split("/")
    assert parts[-1].endswith(".txt")
    assert not {"", ".", ".."} & {*parts}
    assert all("\0" not in part and "\n" not in part for part in parts)
    caption_name(name).encode()
    assert not any(part.startswith(".") and part.endswith(".tmp") for part in parts)


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/../../x", "..", "", "\ud800"])
def test_hostile_names_are_written_below_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "new", {name: "sea"})
    assert [*contents(tmp_path).values()] == ["sea\n"]
    assert all(path.startswith("in/new/") for path in contents(tmp_path))


@given(prompt=st.text())
def test_a_prompt_is_one_printable_line_and_known_again(
    prompt: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "one-caption.txt"
    line = one_line(prompt)
    path.write_text(f"{line}\n", encoding="utf-8", newline="\n")
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1
    assert CaptionWriter.is_ours(path)


def test_a_hostile_prompt_becomes_one_line(tmp_path: Path) -> None:
    write(tmp_path / "new", {"a": " a\r\nboat\u2028\x1b[31m \u202ered\ud800\0"})
    assert contents(tmp_path / "new") == {"a.txt": "a boat \\x1b[31m \\u202ered\\ud800\\x00\n"}


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("x/../a", "x/a"), ("a.txt/b", "a")])
def test_two_images_that_would_write_one_file_are_refused_by_name(
    names: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"two images would write .*\.txt, the second one is {names[1]};"):
        write(tmp_path / "new", dict.fromkeys(names, "sea"))
    if "a" not in names:  # a file that has the name of a folder is found when it is written
        with pytest.raises(UsageError, match="two images would write"):
            open_writer(f"{tmp_path}/new/", DIM).expect(names)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("content", [b"two\nlines\n", b"no line break", b"\xff\xfe\n", b"a \x1b[0m\n"])
def test_only_captions_are_replaced(content: bytes, tmp_path: Path) -> None:
    write(tmp_path, {"a": "sea", "b": "sea"})
    with pytest.raises(UsageError, match=r"a\.txt exists; give `overwrite=True`"):
        write(tmp_path, {"a": "boat"})
    (tmp_path / "b.txt").write_bytes(content)
    with pytest.raises(UsageError, match=r"b\.txt is no caption"):
        write(tmp_path, {"a": "boat", "b": "boat"}, overwrite=True)
    assert (tmp_path / "a.txt").read_text() == "sea\n"
    assert (tmp_path / "b.txt").read_bytes() == content
    (tmp_path / "b.txt").write_bytes(b"")
    write(tmp_path, {"a": "boat", "b": "boat"}, overwrite=True)
    assert contents(tmp_path) == {"a.txt": "boat\n", "b.txt": "boat\n"}


def test_no_link_is_followed_and_no_input_replaced(tmp_path: Path) -> None:
    folder, apart = tmp_path / "new", tmp_path / "apart"
    folder.mkdir()
    apart.mkdir()
    (apart / "mine.txt").write_text("mine\n")
    (folder / "a.txt").symlink_to(apart / "mine.txt")
    (folder / "b").symlink_to(apart)
    os.link(apart / "mine.txt", folder / "c.txt")
    for name, why in (("a", "no caption"), ("b/x", "no folder, or a link"), ("c", "is a file that is read")):
        with pytest.raises(UsageError, match=why):
            write(folder, {name: "sea"}, overwrite=True, inputs=[apart / "mine.txt"])
    assert contents(apart) == {"mine.txt": "mine\n"}


def test_no_caption_lies_among_the_files_of_a_cache(tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", 20)
    before = {*cache.rglob("*")}
    for folder, name in (
        (cache, "a"),
        (cache / "features", "a"),
        (cache / "new", "a"),
        (tmp_path, "cache/a"),
    ):
        with pytest.raises(UsageError, match="lies among the files of the cache"):
            write(folder, {name: "sea"}, overwrite=True)
    assert {*cache.rglob("*")} == before


def test_what_is_no_place_for_captions_is_known_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no folder"):
        open_writer(f"{tmp_path}/file/", DIM)
    with pytest.raises(UsageError, match="does not exist"):
        open_writer(f"{tmp_path}/none/new/", DIM)
    for name in ("", "new"):
        with pytest.raises(UsageError, match="ends with / is a folder of captions"):
            open_writer(name, DIM)


def test_predictions_without_prompts_are_no_captions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="captions are prompts"):
        Predictions(["a"], np.eye(1, DIM, dtype=np.float32)).save(f"{tmp_path}/new/")
    assert [*tmp_path.iterdir()] == []
