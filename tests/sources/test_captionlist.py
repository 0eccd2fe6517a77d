"""Lists of captions: COCO's JSON, Flickr8k's texts, commands to Midjourney."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.listing import list_pairs
from img2prompt_cache.sources import captionlist, open_source
from img2prompt_cache.sources.base import SourceOptions
from img2prompt_cache.sources.captionlist import read_list
from img2prompt_cache.sources.captions import prompt_of_command, prompt_of_record, prompt_of_text
from img2prompt_cache.sources.jsonfile import read_document


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def prompts_of(path: Path, **options: Any) -> tuple[dict[str, str | None], tuple[str, ...]]:
    listing = open_source(path, SourceOptions(**options)).list()
    found = zip(listing.table["imgId"].to_pylist(), listing.table["prompt"].to_pylist(), strict=True)
    return dict(found), listing.summary.notes


def coco(*captions: tuple[object, str]) -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": [
            {"id": 9, "file_name": "000000000009.jpg", "width": 4, "height": 4},
            {"id": 25, "file_name": "000000000025.jpg"},
        ],
        "annotations": [
            {"id": number, "image_id": image, "caption": text}
            for number, (image, text) in enumerate(captions)
        ],
    }


def test_coco_is_found_in_its_folder_of_annotations(tmp_path: Path) -> None:
    put(tmp_path, "val2017/000000000009.jpg", "val2017/000000000025.jpg")
    (tmp_path / "annotations").mkdir()
    made = coco((25, "a tram\n"), (9, "a quay"), (25, "a tram in fog"), (7, "nothing"))
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps(made))
    (tmp_path / "annotations" / "instances_val2017.json").write_text(
        json.dumps({**made, "annotations": [{"image_id": 9, "bbox": [1, 2, 3, 4]}]})
    )
    found, notes = prompts_of(tmp_path)
    assert found == {"val2017/000000000009": "a quay", "val2017/000000000025": "a tram"}
    assert "1 image has several prompts; the first counts where there can be only one" in notes
    named = prompts_of(tmp_path / "val2017", prompts=tmp_path / "annotations" / "captions_val2017.json")
    assert set(named[0].values()) == {"a quay", "a tram"}


@pytest.mark.parametrize(
    "value",
    [
        {"images": [], "annotations": []},
        {"images": [1, None], "annotations": [2, {"image_id": [], "caption": "x"}]},
        {"images": [{"id": {}, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "x"}]},
        {"images": [{"id": 1, "file_name": 3}], "annotations": [{"image_id": 1, "caption": 5}]},
    ],
)
def test_what_only_looks_like_coco_is_no_table(tmp_path: Path, value: dict[str, Any]) -> None:
    (tmp_path / "captions.json").write_text(json.dumps(value))
    with pytest.raises(UsageError, match="is no table of prompts"):
        read_document(tmp_path / "captions.json")


def test_two_files_of_captions_are_named_where_no_image_has_a_prompt(tmp_path: Path) -> None:
    put(tmp_path, "val2017/000000000009.jpg")
    (tmp_path / "annotations").mkdir()
    for name in ("train", "val"):
        path = tmp_path / "annotations" / f"captions_{name}2017.json"
        path.write_text(json.dumps(coco((9, "a quay"))))
    with pytest.raises(Img2PromptError, match=r"captions_train2017.json may be a list of captions"):
        list_pairs(open_source(tmp_path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "captions.txt",
            'image,caption\n1.jpg,A dog , running .\n1.jpg,Dogs\n2.jpg,"A ""red"" door, shut"\n',
        ),
        (
            "Flickr8k.token.txt",
            '1.jpg#0\tA dog , running .\r\n1.jpg#1\tDogs\r\n2.jpg#0\tA "red" door, shut\r\n',
        ),
        ("captions.txt", '1.jpg A dog , running .\n2.jpg  A "red" door, shut\n'),
        ("captions.txt", '\ufeff1.jpg: A dog , running .\n\n2.jpg | A "red" door, shut'),
    ],
)
@pytest.mark.parametrize("folder", ["", "Images/", "images/"])
def test_a_list_of_captions_is_read(tmp_path: Path, name: str, text: str, folder: str) -> None:
    put(tmp_path, f"{folder}1.jpg", f"{folder}2.jpg", f"{folder}3.jpg")
    (tmp_path / name).write_text(text, newline="")
    found, notes = prompts_of(tmp_path)
    prefix = "" if folder == "images/" else folder
    assert found == {
        f"{prefix}1": "A dog , running .",
        f"{prefix}2": 'A "red" door, shut',
        f"{prefix}3": None,
    }
    assert any("1 image has several prompts" in note for note in notes) == ("Dogs" in text)
    assert open_source(tmp_path).settings["format"] == "table"


def test_captions_alone_are_no_list_because_nothing_ties_them_to_images(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "captions.txt").write_text("A dog\nA door\n")
    with pytest.raises(Img2PromptError, match="make a list of prompts a CSV"):
        list_pairs(open_source(tmp_path))
    with pytest.raises(UsageError, match="line 2, does not begin with the name of an image"):
        read_list(tmp_path / "captions.txt")


def test_a_text_that_belongs_to_an_image_is_no_list(tmp_path: Path) -> None:
    put(tmp_path, "captions.png", "other.png")
    (tmp_path / "captions.txt").write_text("other.png is what I like")
    found, _ = prompts_of(tmp_path)
    assert found == {"captions": "other.png is what I like", "other": None}


@given(st.text(max_size=60))
def test_any_line_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, line: str) -> None:
    path = tmp_path_factory.mktemp("list") / "captions.txt"
    path.write_text(f"image,caption\n{line}\n", newline="", encoding="utf-8", errors="replace")
    try:
        found = read_list(path)
    except UsageError:
        return
    assert all(name and all(map(str.strip, texts)) for name, texts in found.items())


def test_large_and_hostile_lists_take_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "captions.txt"
    started = time.perf_counter()
    for line in (" " * 1_000_000 + "x", "a.jpg" * 200_000, "a.jpg" + " " * 1_000_000, ".jpg\t" * 200_000):
        path.write_text(f"image,caption\n{line}\n")
        try:
            read_list(path)
        except UsageError as error:
            assert "line 2" in str(error)  # noqa: PT017
    assert time.perf_counter() - started < 3
    monkeypatch.setattr(captionlist, "MAX_LIST_BYTES", 10)
    with pytest.raises(UsageError, match="write it as CSV"):
        read_list(path)


@pytest.mark.parametrize(
    ("command", "prompt"),
    [
        ("a red door, shut --ar 16:9 --v 5", "a red door, shut"),
        ("/imagine prompt: a red door", "a red door"),
        ("https://s.mj.run/abc <https://x.y/z.png> a red door --iw 2", "a red door"),
        ("a well-known -- door", "a well-known -- door"),
        ("--v 5", ""),
        ("https://s.mj.run/abc", "https://s.mj.run/abc"),
    ],
)
def test_a_command_to_midjourney_is_read(command: str, prompt: str) -> None:
    assert prompt_of_command(command) == prompt


def test_midjourney_json_with_nothing_but_the_command(tmp_path: Path) -> None:
    record = {"id": "0123", "full_command": "a red door --v 5", "width": 4, "event": {"type": "grid"}}
    found = prompt_of_record(record)
    assert found is not None
    assert (found.prompt, found.reader) == ("a red door", "midjourney")
    assert prompt_of_text(json.dumps(record)) == found
    named = prompt_of_record({"prompt": "a tram", **record})
    assert named is not None
    assert named.prompt == "a tram"
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "jobs.json").write_text(
        json.dumps([{"image": "a.png", **record}, {"image": "b.png", **record, "full_command": "a quay"}])
    )
    assert prompts_of(tmp_path)[0] == {"a": "a red door", "b": "a quay"}
    (tmp_path / "jobs.json").rename(tmp_path / "jobs.txt")
    put(tmp_path, "c.png")
    (tmp_path / "c.json").write_text(json.dumps(record))
    listing = open_source(tmp_path).list()
    assert listing.table["found_in"].to_pylist() == ["", "", "midjourney"]
