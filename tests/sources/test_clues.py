"""What is told where no image has a prompt."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.listing import list_pairs
from img2prompt_cache.sources import open_paths, open_source, reopen_source
from img2prompt_cache.sources.base import SourceOptions


def told(folder: Path, format: str = "auto") -> str:
    with pytest.raises(Img2PromptError) as error:
        list_pairs(open_source(folder, SourceOptions(format=format)))
    assert not isinstance(error.value, UsageError)
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "up" / "set"
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    return folder


def test_nothing_beside_the_images(folder: Path) -> None:
    assert told(folder) == (
        f"the one image of {folder} has no prompt, and no format with prompts fits: nothing beside "
        'them looks like captions. To cache images without prompts, give `format="folder"`'
    )


def test_images_alone_are_fine_where_they_were_asked_for(folder: Path) -> None:
    source = open_source(folder, SourceOptions(format="folder"))
    assert len(list_pairs(source)[1].table) == 1
    assert len(list_pairs(reopen_source({"root": str(folder), **source.settings}))[1].table) == 1
    assert len(list_pairs(open_paths([folder / "a.png"]))[1].table) == 1


def test_one_prompt_is_enough(folder: Path) -> None:
    (folder / "b.png").touch()
    (folder / "b.txt").write_text("a tram")
    assert list_pairs(open_source(folder))[1].summary.pairs == 1


@pytest.mark.parametrize(
    ("name", "text", "clue"),
    [
        (
            "words.csv",
            "nr;words\na;x\n",
            "words.csv has the columns nr, words: name it with `prompts`, and its columns with `id_column`",
        ),
        ("sub/words.tsv", "nr\twords\n", "sub/words.tsv has the columns nr, words"),
        ("../words.jsonl", '{"nr": "a", "words": "x"}', "words.jsonl has the columns nr, words"),
        ("b.txt", "a tram", "b.txt: give a text the name of its image"),
        ("words.xlsx", "", "words.xlsx: save it as CSV in UTF-8, and name it with `prompts`"),
        ("words.zip", "", "words.zip: unpack it"),
        ("sub/x/a.tar", "", 'sub/x/a.tar: `format="webdataset"` reads it'),
        ("a.json", '{"seed": 3}', "1 JSON files (first: a.json) state no prompt under a usual name"),
    ],
)
def test_what_lies_beside_them(folder: Path, name: str, text: str, clue: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert clue in told(folder)


def test_what_is_told_helps(folder: Path) -> None:
    (folder / "words.csv").write_text("nr;words\na;a tram, in fog\n")
    assert "nr, words" in told(folder)
    options = SourceOptions(prompts=folder / "words.csv", id_column="nr", prompt_column="words")
    assert list_pairs(open_source(folder, options))[1].table["prompt"].to_pylist() == ["a tram, in fog"]


def test_a_table_without_a_prompt(folder: Path) -> None:
    (folder / "prompts.csv").write_text("imgId,prompt,caption\na, ,x\n")
    assert "prompts.csv has the columns imgId, prompt, caption" in told(folder)


def test_parquet_with_images_below(folder: Path) -> None:
    (folder / "x" / "y").mkdir(parents=True)
    pq.write_table(pa.table({"image": [b"1"], "text": ["x"]}), folder / "x" / "y" / "t.parquet")
    assert "t.parquet holds images: name it as the source" in told(folder)


def test_a_damaged_table_is_told(folder: Path) -> None:
    (folder / "words.parquet").write_bytes(b"junk")
    assert "words.parquet cannot be read as a table" in told(folder)


def test_explicit_formats_without_prompts(folder: Path) -> None:
    assert 'read as `format="metadata"`' in told(folder, "metadata")


def test_a_blank_column_is_told(folder: Path) -> None:
    (folder / "caps.csv").write_text("imgId,prompt\na,\n")
    text = told(folder)
    assert "its column prompt is blank in all rows" in text
    assert "name it with" not in text


def test_a_named_column_that_is_blank_is_told(folder: Path) -> None:
    (folder / "caps.csv").write_text("imgId,words,prompt\na, ,x\n")
    with pytest.raises(Img2PromptError, match="its column words is blank in all rows"):
        list_pairs(open_source(folder, SourceOptions(prompt_column="words")))


@pytest.mark.parametrize("name", ["annotations", "annotation"])
def test_captions_in_annotations_next_door(folder: Path, name: str) -> None:
    (folder.parent / name).mkdir()
    for split in ("rest", "set"):
        (folder.parent / name / f"captions_{split}.json").write_text("{}")
    captions = folder.parent / name / "captions_set.json"
    assert f"{captions} may be a list of captions of these images: name it with `prompts`" in told(folder)
    images = [{"id": 1, "file_name": "a.png"}]
    captions.write_text(json.dumps({"images": images, "annotations": [{"image_id": 1, "caption": "a tram"}]}))
    assert list_pairs(open_source(folder, SourceOptions(prompts=captions)))[1].summary.pairs == 1


@pytest.mark.parametrize("name", ["a.txt", "a.png.txt", "a.caption"])
def test_empty_texts_are_told(folder: Path, name: str) -> None:
    (folder / name).write_text(" \n")
    assert f"1 text is empty (first: {name})" in told(folder)
    (folder / name).write_text("0 0.5 0.5 0.1 0.1")
    assert "empty (first" not in told(folder)


def test_what_the_listing_found_out_is_told(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"x" * (1 << 20) + b"x")
    text = told(folder)
    assert "1 file beside an image is larger than 1 MiB, and was not read (first: a.txt)" in text
    assert "UTF-8" not in text
    (folder / "a.txt").write_bytes(b"\xff\xfe\xff")
    assert "1 text file that cannot be read or is not UTF-8 (first: a.txt)" in told(folder)
