"""Tables that lie beside images with prompts of their own."""

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.listing import list_pairs
from img2prompt_cache.sources import open_source, reopen_source
from img2prompt_cache.sources.base import SourceOptions


def paint(folder: Path, name: str, prompt: str = "") -> None:
    inside = PngInfo()
    if prompt:
        inside.add_text("parameters", f"{prompt}\nSteps: 20, Sampler: Euler, Seed: 3")
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (2, 2)).save(folder / f"{name}.png", pnginfo=inside)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in "abcd":
        paint(tmp_path / "set", name, f"true {name}")
    return tmp_path / "set"


def notes(folder: Path, **options: str | Path) -> tuple[str, ...]:
    return open_source(folder, SourceOptions(**options)).list().summary.notes  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["notes.csv", "metadata.csv"])
def test_prompts_inside_images_that_a_table_hides_are_told(images: Path, name: str) -> None:
    (images / name).write_text("file_name,text\na.png,hello world\n")
    source, listing = list_pairs(open_source(images))
    assert listing.table["prompt"].to_pylist() == ["hello world", None, None, None]
    assert (
        f"3 of the first 3 images without a prompt in {name} have a prompt inside them: "
        f'`format="metadata"` reads it, and not {name} (first: b.png)'
    ) in listing.summary.notes
    again = reopen_source({"root": str(images), **source.settings}).list()
    assert not any("first 3 images" in note for note in again.summary.notes)


def test_prompts_that_a_whole_table_hides_are_told(images: Path) -> None:
    (images / "notes.csv").write_text("file_name,text\n" + "".join(f"{n}.png,x\n" for n in "abcd"))
    (note,) = notes(images)
    assert note.startswith("4 of the first 4 images have a prompt inside them")


def test_texts_beside_images_that_a_table_hides_are_told(tmp_path: Path) -> None:
    for name in "abc":
        paint(tmp_path, name)
    (tmp_path / "notes.csv").write_text("file_name,text\na.png,x\n")
    assert notes(tmp_path) == ()
    (tmp_path / "b.txt").write_text("a tram")
    (tmp_path / "c.txt").write_text("0 0.5 0.5 0.1 0.1")
    (note,) = notes(tmp_path)
    assert note.startswith("1 of the first 2 images without a prompt in notes.csv has a prompt beside them")
    assert '`format="sidecar"` reads it' in note


def test_nothing_is_told_of_a_table_that_the_user_named(images: Path) -> None:
    (images / "notes.csv").write_text("file_name,text\na.png,x\n")
    assert notes(images, prompts=images / "notes.csv") == ()
    assert notes(images, format="table") == ()


@pytest.mark.parametrize("name", ["notes.csv", "metadata.csv", "prompts.csv"])
def test_a_table_that_names_no_image_gives_way(images: Path, name: str) -> None:
    (images / name).write_text("file_name,text\nzz.png,hello world\n")
    source, listing = list_pairs(open_source(images))
    assert source.settings == {"format": "metadata"}
    assert listing.table["prompt"].to_pylist() == [f"true {n}" for n in "abcd"]
    (note,) = listing.summary.notes
    assert note.startswith(f"no row of {images / name} names an image of {images}: the first id is 'zz.png'")


def test_a_table_that_names_no_image_gives_way_to_one_that_does(images: Path) -> None:
    (images / "first.csv").write_text("id,text\n7,hello world\n")
    (images / "second.csv").write_text("id,text\nb,mine\n")
    source, listing = list_pairs(open_source(images))
    assert source.settings == {"format": "table"}
    assert [prompt for prompt in listing.table["prompt"].to_pylist() if prompt] == ["mine"]
    assert "1 other table skipped for second.csv (first: first.csv)" in listing.summary.notes


@pytest.mark.parametrize("name", ["notes.csv", "metadata.csv"])
def test_where_nothing_else_has_prompts_the_table_is_told(tmp_path: Path, name: str) -> None:
    paint(tmp_path, "a")
    (tmp_path / name).write_text("file_name,text\nzz.png,hello world\n")
    with pytest.raises(Img2PromptError, match="the one image of") as error:
        list_pairs(open_source(tmp_path))
    assert not isinstance(error.value, UsageError)
    assert str(error.value).count(f"no row of {tmp_path / name} names an image") == 1
    assert "has the columns" not in str(error.value)


def test_a_table_that_was_asked_for_does_not_give_way(images: Path) -> None:
    (images / "notes.csv").write_text("file_name,text\nzz.png,hello world\n")
    for options in (
        SourceOptions(format="table"),
        SourceOptions(prompts=images / "notes.csv"),
        SourceOptions(id_column="file_name"),
    ):
        with pytest.raises(UsageError, match=r"no row of .*notes.csv names an image"):
            list_pairs(open_source(images, options))
    with pytest.raises(UsageError, match=r"no row of .*notes.csv names an image"):
        list_pairs(open_source(images / "notes.csv"))
