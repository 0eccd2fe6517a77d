from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from img2prompt_cache.errors import UsageError
from img2prompt_cache.prediction.outputs.sidecars import Sidecars
from img2prompt_cache.sources import SourceOptions, list_images, open_source
from kit import paint


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "pictures"
    (home / "sub").mkdir(parents=True)
    for number, name in enumerate(("one.png", "two.v1.PNG", "sub/one.png", "same.png", "same.jpg")):
        paint(home / name, number)
    return home


def write(folder, kind, *, overwrite=False, columns=None):
    sidecars = Sidecars(kind, overwrite=overwrite)
    source, listing = list_images([folder])
    sidecars.expect(source, listing)
    ids = listing.table["imgId"].to_pylist()
    prompts = [[(f"a prompt\nof {name}", 0.5), ("another", 0.25)] for name in ids]
    sidecars.write(ids, prompts, columns or {})
    return sidecars


def files(folder, kind):
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob(f"*.{kind}")
    }


@pytest.mark.parametrize("kind", ["txt", "caption"])
def test_the_nearest_prompt_lies_beside_each_image_as_one_line(folder, kind):
    sidecars = write(folder, kind)
    found = files(folder, kind)
    names = ["one", "same.jpg", "same.png", "sub/one", "two.v1"]
    assert sorted(found) == [f"{name}.{kind}" for name in names]
    assert found[f"sub/one.{kind}"] == "a prompt of sub/one\n"
    assert sidecars.summary() == f"5 sidecars (.{kind}) written beside the images"
    (folder / "same.jpg").unlink()
    listed = open_source(folder, SourceOptions(format="sidecar")).list()
    assert listed.summary.pairs == 4


def test_a_composed_prompt_comes_before_the_nearest(folder):
    columns = {"composed": ["made"] * 5, "composed_cosine": [0.75] * 5}
    write(folder, "txt", columns=columns)
    assert set(files(folder, "txt").values()) == {"made\n"}


def test_json_says_more_and_is_no_prompt_to_any_reader(folder):
    write(folder, "json", columns={"expected": [0.125] * 5})
    found = json.loads((folder / "one.json").read_text())
    nearest = [{"prompt": "a prompt\nof one", "cosine": 0.5}, {"prompt": "another", "cosine": 0.25}]
    assert found == {"predicted": {**nearest[0], "expected": 0.125, "prompts": nearest}}
    (folder / "same.jpg").unlink()
    listed = open_source(folder, SourceOptions(format="sidecar")).list()
    assert listed.summary.pairs == 0


def test_what_is_there_stays_unless_it_may_be_replaced_and_looks_like_ours(folder):
    own = "an old caption\n", "two\nlines\n"
    for name, text in zip(("one.txt", "two.v1.txt"), own, strict=True):
        (folder / name).write_text(text)
    (folder / "same.png.txt").symlink_to(folder / "one.txt")
    sidecars = write(folder, "txt")
    assert (sidecars.written, sidecars.kept, sidecars.foreign) == (2, 3, 0)
    assert "3 files that were there stay: `overwrite=True`" in sidecars.summary()
    sidecars.kept = sidecars.foreign = 1
    assert "1 file that was there stays: `overwrite=True`" in sidecars.summary()
    assert "1 file that `predict()` did not write stays" in sidecars.summary()
    assert [(folder / name).read_text() for name in ("one.txt", "two.v1.txt")] == list(own)
    again = write(folder, "txt", overwrite=True)
    assert (again.written, again.kept, again.foreign) == (3, 0, 2)
    assert (folder / "one.txt").read_text() == "a prompt of one\n"
    assert (folder / "two.v1.txt").read_text() == own[1]
    assert (folder / "same.png.txt").is_symlink()


def test_only_json_of_predictions_is_replaced(folder):
    (folder / "one.json").write_text('{"prompt": "mine"}')
    (folder / "two.v1.json").write_text("[" * 5000)
    assert write(folder, "json", overwrite=True).foreign == 2
    again = write(folder, "json", overwrite=True)
    assert (again.written, again.foreign) == (3, 2)
    assert json.loads((folder / "one.json").read_text()) == {"prompt": "mine"}


def test_nothing_is_written_among_the_files_of_a_cache(made, tmp_path):
    cache = Path(shutil.copytree(made, tmp_path / "cache"))
    paint(cache / "rows" / "x.png", 1)
    sidecars = Sidecars("txt")
    with pytest.raises(UsageError, match="lies among the files of the cache") as caught:
        sidecars.expect(*list_images([cache / "rows" / "x.png"]))
    assert caught.value.parameter == "sidecar"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_found_out_first(folder):
    (folder / "sub").chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written to"):
        Sidecars("txt").expect(*list_images([folder]))


def test_a_wrong_kind_is_named():
    with pytest.raises(UsageError, match="unknown `sidecar` 'text'; did you mean txt"):
        Sidecars("text")
