"""Prompts in files beside images."""

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.base import Listing, SourceOptions


def put(folder: Path, **files: str) -> Path:
    """Write texts; a name is a path with ``__`` for ``/`` and ``_`` for the dot before its ending."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path = path.with_name(".".join(path.name.split("_")))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def listed(folder: Path, format: str = "sidecar") -> Listing:
    source = open_source(folder)
    assert source.settings == {"format": format}
    return source.list()


def prompts(folder: Path) -> dict[str, str | None]:
    table = listed(folder).table
    return dict(zip(table["imgId"].to_pylist(), table["prompt"].to_pylist(), strict=True))


def test_texts(tmp_path: Path) -> None:
    put(tmp_path, a_png="", sub__b_png="猫", sub__b_txt="猫", c_png="", c_txt=" \n", d_png="", e_png="")
    (tmp_path / "a.txt").write_bytes("\ufeff  two\nlines \r\n\n".encode())
    (tmp_path / "d.txt").write_bytes(b"\xff")
    (tmp_path / "lost.txt").write_text("lost")
    listing = listed(tmp_path)
    assert prompts(tmp_path) == {"a": "  two\nlines ", "c": None, "d": None, "e": None, "sub/b": "猫"}
    assert (listing.summary.pairs, listing.summary.without_image) == (2, 1)
    assert "1 text file that cannot be read or is not UTF-8 (first: d.txt)" in listing.summary.notes


def test_infotexts_beside_images(tmp_path: Path) -> None:
    text = "a tram\nNegative prompt: blur\nSteps: 22, Sampler: Euler, CFG scale: 6, Seed: 1, Size: 64x64"
    put(tmp_path, a_png="", a_txt=text, b_png="", b_txt=text.partition("\n")[2])
    assert prompts(tmp_path) == {"a": "a tram", "b": None}


@pytest.mark.parametrize("ending", ["caption", "prompt", "TXT", "png.txt", "png.caption"])
def test_other_endings(tmp_path: Path, ending: str) -> None:
    put(tmp_path, a_png="")
    (tmp_path / f"a.{ending}").write_text("a tram")
    assert prompts(tmp_path) == {"a": "a tram"}


@pytest.mark.parametrize("ending", ["json", "png.json", "swarm.json", "civitai.info"])
def test_records(tmp_path: Path, ending: str) -> None:
    put(tmp_path, a_png="", b_png="", c_png="")
    (tmp_path / f"a.{ending}").write_text('{"seed": 3}')
    record = {"sui_image_params": {"prompt": "a tram", "negativeprompt": "blur"}}
    (tmp_path / f"b.{ending}").write_text(json.dumps(record))
    (tmp_path / "c.json").write_bytes(b"\xff")
    assert prompts(tmp_path) == {"a": None, "b": "a tram", "c": None}
    notes = listed(tmp_path).summary.notes
    assert f"1 JSON file beside an image that states no prompt (first: a.{ending})" in notes


def test_records_without_prompts_are_no_source_of_them(tmp_path: Path) -> None:
    put(tmp_path, a_png="", a_json='{"seed": 3}', b_json='{"prompt": "of no image"}')
    assert listed(tmp_path, "folder").summary.pairs == 0


def test_the_text_goes_before_the_record(tmp_path: Path) -> None:
    put(tmp_path, a_png="", a_txt="a tram", a_json='{"caption": "other"}', b_png="", b_json='{"prompt": "b"}')
    put(tmp_path, c_png="", c_txt="", c_json='{"prompt": "c"}')
    assert prompts(tmp_path) == {"a": "a tram", "b": "b", "c": "c"}


def test_two_texts_that_differ_are_told(tmp_path: Path) -> None:
    put(tmp_path, a_png="", a_txt="1girl, tram", a_caption="a girl in a tram")
    put(tmp_path, b_png="", b_txt="same", b_caption="same\n")
    assert prompts(tmp_path) == {"a": "1girl, tram", "b": "same"}
    (note,) = listed(tmp_path).summary.notes
    assert note.startswith("1 image with two texts that differ")
    assert note.endswith("(first: a.caption)")


def test_as_img2dataset_writes_files(tmp_path: Path) -> None:
    record = json.dumps({"caption": "a tram", "url": "http://x/0.jpg", "key": "000000000"})
    put(tmp_path, **{"00000__000000000_jpg": "", "00000__000000000_json": record})
    put(tmp_path, **{"00000__000000000_txt": "a tram"})
    assert prompts(tmp_path) == {"00000/000000000": "a tram"}


def test_texts_in_a_folder_of_their_own(tmp_path: Path) -> None:
    put(tmp_path, images__a_png="", images__s__b_png="", captions__a_txt="a", captions__s__b_txt="b")
    put(tmp_path, captions__c_txt="of no image", control__a_png="")
    assert prompts(tmp_path) == {"control/a": None, "images/a": "a", "images/s/b": "b"}
    assert listed(tmp_path).summary.without_image == 1


def test_texts_in_a_folder_below_the_images(tmp_path: Path) -> None:
    put(tmp_path, train__a_png="", train__captions__a_txt="a", val__img__b_png="", val__texts__b_txt="b")
    assert prompts(tmp_path) == {"train/a": "a", "val/img/b": "b"}


def test_two_readings_are_refused(tmp_path: Path) -> None:
    put(tmp_path, x__a_png="", y__a_png="", captions__a_txt="a")
    with pytest.raises(UsageError, match=r"captions/a.txt may belong to x/a.png or to y/a.png"):
        listed(tmp_path)
    (tmp_path / "y" / "a.png").unlink()
    put(tmp_path, texts__a_txt="b")
    with pytest.raises(UsageError, match=r"x/a.png may have the prompt of captions/a.txt or of texts/a.txt"):
        listed(tmp_path)


def test_labels_of_detectors_are_no_prompts(tmp_path: Path) -> None:
    put(tmp_path, images__a_png="", labels__a_txt="0 0.5 0.5 0.1 0.1", b_png="", b_txt="0 0.5 0.5 0.1 0.1")
    assert prompts(tmp_path) == {"b": None, "images/a": None}


def test_what_found_each_prompt_is_listed(tmp_path: Path) -> None:
    put(tmp_path, a_png="", a_txt="a tram", b_png="", b_json='{"prompt": "b"}', c_png="")
    put(tmp_path, d_png="", d_txt="a quay\nSteps: 20, Sampler: Euler, Seed: 3")
    assert listed(tmp_path).table["found_in"].to_pylist() == ["text", "json", "", "a1111"]
    assert "found_in" not in open_source(tmp_path, SourceOptions(format="folder")).list().table.column_names


def test_prompts_inside_images_without_a_text_are_told(tmp_path: Path) -> None:
    put(tmp_path, a_png="", a_txt="a tram")
    inside = PngInfo()
    inside.add_text("parameters", "a quay\nSteps: 20, Sampler: Euler, Seed: 3")
    for name in "bc":
        Image.new("RGB", (2, 2)).save(tmp_path / f"{name}.png", pnginfo=inside)
    (note,) = listed(tmp_path).summary.notes
    assert note.startswith("2 of the first 2 of 2 images without a prompt beside them carry one inside")
