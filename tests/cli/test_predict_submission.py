"""Kaggle submissions: no row is missing."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.sample import read_sample
from img2prompt_cache.runs.run import Run
from kit import paint
from synthetic import Cli

DIM = 16


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def fitted(made, tmp_path_factory):
    folder = shutil.copytree(made, tmp_path_factory.mktemp("fitted") / "cache")
    ipc.fit(folder, head="ridge", settings={"alpha": 1.0}, split="random", run=folder / "runs" / "ridge")
    return folder


@pytest.fixture
def here(fitted, tmp_path, monkeypatch):
    shutil.copytree(fitted, tmp_path / "cache" / "default")
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("new/b.PNG", "new/sub/v1.5.final.png", "new/a.jpeg", "new/extra.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        paint(tmp_path / name, 100 + number)
    return tmp_path


def write_sample(path, *ids, dim=DIM):
    path.write_text("imgId_eId,val\n" + "".join(f"{name}_{i},0\n" for name in ids for i in range(dim)))
    return path


def read(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["imgId_eId"] for row in rows], np.array([row["val"] for row in rows], float).reshape(-1, DIM)


def test_a_sample_fixes_the_rows_and_their_order(cli, here):
    sample = write_sample(here / "sample_submission.csv", "sub/v1.5.final", "a", "b")
    said = cli("predict", "new", "--run", "ridge", "--out", "x.csv", "--like", sample)
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == "x.csv: 3 predictions"
    assert "1 image is not in sample_submission.csv and left out" in said.err
    names, values = read(here / "x.csv")
    assert names == read(sample)[0]
    plain = ipc.predict("ridge", ["new"], top_k=0)
    wanted = [plain.vectors[plain.ids.index(name)] for name in ("sub/v1.5.final", "a", "b")]
    np.testing.assert_allclose(values, wanted, atol=1e-3)


def test_ids_of_images_in_folders_with_dots_and_suffixes_in_capitals(cli, here):
    for number, name in enumerate(("x/0001.v2.PNG", "y/0002.JPG", "y/0003.Png")):
        (here / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        paint((here / "test" / name).with_suffix(".png"), number).rename(here / "test" / name)
    sample = write_sample(here / "sample.csv", "0003", "0001.v2", "0002")
    said = cli("predict", "test", "--run", "ridge", "--out", "x.csv", "--like", sample)
    assert said.code == 0, said.err
    assert "ids are matched by the ends of their paths: " in said.err
    names, values = read(here / "x.csv")
    assert names == read(sample)[0]
    plain = ipc.predict("ridge", ["test"], top_k=0)
    wanted = [plain.vectors[plain.ids.index(name)] for name in ("y/0003", "x/0001.v2", "y/0002")]
    np.testing.assert_allclose(values, wanted, atol=1e-3)
    paint(here / "test" / "x" / "0002.png", 9)
    said = cli("predict", "test", "--run", "ridge", "--out", "y.csv", "--like", sample)
    said.refused(2, "the id '0002' may be")


def test_images_that_are_missing_or_bad_get_the_mean_and_exit_code_1(cli, here):
    (here / "new" / "b.PNG").write_bytes(b"no image")
    sample = write_sample(here / "sample.csv", "gone", "b.PNG", "a", "last")
    said = cli("predict", "new", "--run", "ridge", "--out", "x.csv", "--like", sample)
    assert said.code == 1
    assert "b.PNG: not an image" in said.err
    assert "x.csv is complete, but 3 images have the mean in place of a prediction" in said.err
    assert "gone, b.PNG, last" in said.err
    assert "accept it: --allow-missing" in said.err
    names, values = read(here / "x.csv")
    assert names == read(sample)[0]
    mean = unit(Run.load("cache/default/runs/ridge").mean_prediction[None])[0]
    np.testing.assert_allclose(values[[0, 1, 3]], [mean] * 3, atol=1e-6)
    assert not np.allclose(values[2], mean)
    more = ("--allow-missing", "--overwrite", "--json")
    said = cli("predict", "new", "--run", "ridge", "--out", "x.csv", "--like", sample, *more)
    assert (said.code, said.json["rows"]) == (0, 1)
    assert "3 images have the mean" in said.err
    np.testing.assert_array_equal(read(here / "x.csv")[1], values)
    with pytest.raises(Img2PromptError, match="`allow_missing=True`"):
        ipc.predict("ridge", "new", out="y.csv", like=sample)
    assert read(here / "y.csv")[0] == names


def test_a_submission_without_a_sample_has_a_row_for_every_image(cli, here):
    (here / "new" / "b.PNG").write_bytes(b"no image")
    said = cli("predict", "new", "--run", "ridge", "--out", "x.csv")
    assert said.code == 1
    assert "1 image has the mean in place of a prediction, which scores low: b" in said.err
    assert [name.rpartition("_")[0] for name in read(here / "x.csv")[0][::DIM]] == [
        "a",
        "b",
        "extra",
        "sub/v1.5.final",
    ]
    assert cli("predict", "new", "--run", "ridge", "--out", "x.npy").code == 0
    said = cli("predict", "cache/default", "--run", "ridge", "--out", "c.csv", "--allow-missing")
    assert said.code == 0
    assert len(read(here / "c.csv")[1]) == 23
    assert "3 images have the mean" in said.err


def test_rows_of_a_cache_in_the_order_of_a_sample(cli, here):
    sample = write_sample(here / "sample.csv", "img005", "img001")
    said = cli("predict", "cache/default", "--run", "ridge", "--out", "x.csv", "--like", sample)
    assert said.code == 0, said.err
    found = ipc.predict("ridge", "cache/default", top_k=0)
    wanted = [found.vectors[found.ids.index(name)] for name in ("img005", "img001")]
    np.testing.assert_allclose(read(here / "x.csv")[1], wanted, atol=1e-6)


def test_ids_of_a_sample_stay_as_they_are(cli, here):
    paint(here / "new" / "=1+1.png", 7)
    sample = write_sample(here / "sample.csv", "=1+1")
    said = cli("predict", "new", "--run", "ridge", "--out", "x.csv", "--like", sample)
    assert (said.code, "apostrophe" in said.err) == (0, False)
    assert read(here / "x.csv")[0] == [f"=1+1_{i}" for i in range(DIM)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("imgId,val\na,1\n", "cannot be read"),
        ("imgId_eId,val\nax,1\n", "row 1: 'ax' is not an imgId with _ and a number"),
        ("imgId_eId,val\n" + "".join(f"a_{i},0\n" for i in range(5)), "it has 5 rows, and each image has 16"),
        ("imgId_eId,val\na_0,0\nb_0,0\n", "row 2: 'b_0', where _1 of an image was expected"),
        ("imgId_eId,val\na_0,0\nb_1,0\n", "row 2: 'b_1', where _1 of an image was expected"),
        ("imgId_eId,val\n" + "".join(f"a_{i % 16},0\n" for i in range(32)), "names an image twice"),
        ("imgId_eId,val\n" + "".join(f"nobody_{i},0\n" for i in range(16)), "its one image is not among"),
    ],
)
def test_wrong_samples_are_refused_before_the_work(cli, here, text, words):
    (here / "sample.csv").write_text(text)
    said = cli("predict", "new", "--run", "ridge", "--out", "x.csv", "--like", "sample.csv")
    assert said.code == 2
    assert words in said.err
    assert not (here / "x.csv").exists()


def test_a_sample_goes_with_a_submission(cli, here):
    sample = write_sample(here / "sample.csv", "a")
    for out in ((), ("--out", "x.npy")):
        cli("predict", "new", "--run", "ridge", *out, "--like", sample).refused(2, "--like goes with images")
    said = cli("predict", "new", "--run", "ridge", "--out", sample, "--like", sample, "--overwrite")
    assert said.code == 2
    with pytest.raises(UsageError, match="goes with images"):
        ipc.predict("ridge", np.zeros((2, 3)), out="x.csv", like=sample)


def test_a_sample_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("img2prompt_cache.prediction.sample._BLOCK", 100)
    sample = write_sample(tmp_path / "sample.csv", *(f"img_{n}" for n in range(50)), dim=3)
    assert read_sample(sample, 3).ids.to_pylist() == [f"img_{n}" for n in range(50)]
