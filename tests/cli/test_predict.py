from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.files import hash_file
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.prediction.predictions import Predictions
from img2prompt_cache.sources.owntables import is_own_table
from kit import paint, prompt_of
from synthetic import ENCODER, Cli, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def fitted(tiny, pairs, tmp_path_factory):
    """A cache of real images and models with two runs; to be read only."""
    folder = tmp_path_factory.mktemp("predict") / "cache"
    tiny.extract(pairs, folder)
    for head in ("mean", "ridge"):
        fit_head(Cache(folder), FitConfig(head, {"alpha": 0.1} if head == "ridge" else {}, split="random"))
    return folder


@pytest.fixture
def here(fitted, tmp_path, monkeypatch):
    """A folder with a copy of that cache in its default place, to be the current one."""
    shutil.copytree(fitted, tmp_path / "cache" / "default")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_in(here):
    (run,) = (here / "cache" / "default" / "runs").glob("ridge-*")
    return run


def ids_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [row["imgId"] for row in csv.DictReader(file)]


def test_bare_predict_is_the_newest_run_on_the_rows_without_prompt(cli, here):
    said = cli("predict")
    assert said.code == 0
    assert said.err == f"run {run_in(here).name}\n"
    lines = said.out.splitlines()
    assert re.fullmatch(r"img019  \(expected cosine -?[01]\.\d{3}\)", lines[0])
    assert len(lines) == 4
    prompts = {prompt_of(number) for number in range(19)}
    assert all(-1 <= float(line.split()[0]) <= 1 for line in lines[1:])
    assert {line[2:].partition("  ")[2] for line in lines[1:]} <= prompts | {"bad"}


def test_without_the_correction_for_hubs_cosines_descend(cli, here, pairs):
    image = pairs / "img004.png"
    lines = cli("predict", image, "--no-hub-correction", "--top-k", "9").out.splitlines()
    cosines = [float(line.split()[0]) for line in lines[2:]]
    assert cosines == sorted(cosines, reverse=True)
    assert cli("predict", image, "--top-k", "9").out.splitlines() != lines


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_nearest_prompts_of_a_batch_are_laid_out_once(cli, fitted, monkeypatch, options):
    asked = []

    def counting(batch, lay_out=Predictions.nearest.fget):
        asked.append(len(batch))
        return lay_out(batch)

    monkeypatch.setattr(Predictions, "nearest", property(counting))
    assert cli("predict", fitted, *options, "--cache", fitted).code == 0
    assert asked == [20]


def test_npy_is_float32_of_unit_norm_in_input_order_without_the_bad_ones(cli, here, pairs):
    images = [pairs / f"{name}.png" for name in ("img004", "words", "img000", "empty", "img002")]
    said = cli("predict", *images, "--out", "x.npy")
    assert said.code == 0
    assert said.out == "x.npy: 3 predictions\n"
    vectors = np.load("x.npy", allow_pickle=False)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert ids_of(here / "x.ids.csv") == ["img004", "img000", "img002"]
    assert "words: not an image\n" in said.err
    assert "empty: empty\n" in said.err
    assert "2 images could not be used and were left out" in said.err
    alone = cli("predict", images[2], "--out", "alone.npy")
    assert alone.code == 0
    np.testing.assert_allclose(np.load("alone.npy")[0], vectors[1], atol=1e-3)


def test_json_holds_everything_or_there_is_none(cli, here, pairs):
    said = cli("predict", pairs / "img004.png", pairs / "cut.png", "--top-k", "2", "--json")
    assert said.code == 0
    assert list(said.json) == ["run", "head", "rows", "bad", "out", "predictions"]
    assert said.json["run"] == str(run_in(here).relative_to(here))
    assert said.json["rows"] == 1
    assert list(said.json["bad"]) == ["cut"]
    (found,) = said.json["predictions"]
    assert found["imgId"] == "img004"
    assert found["own_prompt"] == prompt_of(4)
    assert len(found["prompts"]) == 2
    assert set(found["prompts"][0]) == {"prompt", "cosine"}


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet", "jsonl"])
def test_prompts_are_printed_where_the_file_does_not_keep_them(cli, here, pairs, suffix):
    said = cli("predict", pairs / "img004.png", "--out", f"x.{suffix}", "--top-k", "2")
    assert said.code == 0
    lines = said.out.splitlines()
    if suffix in ("npy", "csv"):
        assert lines[0].startswith("img004  (expected cosine ")
        assert lines[1] == f"  this picture is in the cache; its own prompt is: {prompt_of(4)}"
        assert len(lines) == 5
    assert lines[-1] == f"x.{suffix}: 1 prediction"
    if suffix == "parquet":
        assert len(lines) == 1
        (row,) = pq.read_table("x.parquet").to_pylist()
        assert len(row["prompts"]) == 2
    if suffix == "jsonl":
        assert len(lines) == 1
        assert len(json.loads((here / "x.jsonl").read_text())["prompts"]) == 2
    if suffix == "csv":
        rows = (here / "x.csv").read_text().splitlines()
        assert rows[0] == "imgId_eId,val"
        assert [row.partition(",")[0] for row in rows[1:]] == [f"img004_{i}" for i in range(16)]
    again = cli("predict", pairs / "img004.png", "--out", f"y.{suffix}")
    assert again.out == f"y.{suffix}: 1 prediction\n"


def test_captions_are_a_text_file_for_each_image(cli, here, pairs):
    images = [pairs / f"{name}.png" for name in ("img004", "words", "img002")]
    said = cli("predict", *images, "--out", "captions/")
    assert (said.code, said.out) == (0, "captions: 2 predictions\n")
    assert sorted(path.name for path in (here / "captions").iterdir()) == ["img002.txt", "img004.txt"]
    nearest = cli("predict", images[0], "--top-k", "1", "--json").json["predictions"][0]["prompts"][0]
    assert (here / "captions" / "img004.txt").read_text() == f"{nearest['prompt']}\n"
    again = cli("predict", images[0], "--out", "captions")  # refused before the first image
    again.refused(2, "--out captions: captions/img004.txt exists; give --overwrite to replace it")
    cli("predict", images[0], "--out", "captions/", "--top-k", "0").refused(2, "--top-k", "--compose")
    composed = cli("predict", images[0], "--compose", "--json").json["predictions"][0]["composed"]
    assert cli("predict", images[0], "--compose", "--out", "captions", "--overwrite").code == 0
    assert (here / "captions" / "img004.txt").read_text() == f"{composed}\n"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A cache of made-up features and a run with enough held-out rows; three rows have no prompt."""
    folder = make_cache(tmp_path_factory.mktemp("told") / "cache", 150, groups=50, without_prompt=[1, 5, 9])
    return fit_head(Cache(folder), FitConfig("ridge", {"alpha": 1.0}, folds=3, leakage_gap=False))


@pytest.fixture
def threshold(told):
    """A cosine that one or two of the three rows are expected to reach."""
    return float(np.sort(told.predict(top_k=0).expected)[1])


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet", "jsonl"])
def test_what_to_expect_stands_in_every_file_that_has_a_place(cli, told, tmp_path, suffix, threshold):
    out = tmp_path / f"x.{suffix}"
    arguments = ("predict", "--run", told.folder, "--out", out, "--min-expected", threshold)
    said = cli(*arguments, "--json")
    assert said.code == 0
    expected = told.predict(top_k=0).expected
    wanted = [(round(float(each), 6), bool(each < threshold)) for each in expected]
    if suffix == "npy":
        assert len(np.load(out)) == 3
        with out.with_suffix(".ids.csv").open(newline="") as file:
            found = [(float(row["expected"]), row["flagged"] == "true") for row in csv.DictReader(file)]
    elif suffix == "parquet":
        found = [(round(row["expected"], 6), row["flagged"]) for row in pq.read_table(out).to_pylist()]
    elif suffix == "jsonl":
        found = [(row["expected"], row["flagged"]) for row in map(json.loads, out.read_text().splitlines())]
    else:  # a submission: every row of it is there, and nothing else
        assert len(out.read_text().splitlines()) == 1 + 3 * 384
        found = [(row["expected"], row["flagged"]) for row in said.json["predictions"]]
    assert [flagged for _, flagged in found] == [flagged for _, flagged in wanted]
    assert [each for each, _ in found] == pytest.approx([each for each, _ in wanted], abs=1e-6)
    assert (said.json["predictions"] == []) == (suffix in ("parquet", "jsonl"))
    place = ", which the output has no place to show" if suffix == "csv" else ""
    assert said.err.splitlines()[-1] == (
        f"expected to have a cosine below {threshold:g}: 1 of 3 predictions{place}; none is left out"
    )


def test_what_to_expect_is_shown_with_the_nearest_prompts(cli, told, threshold):
    found = told.predict()
    said = cli("predict", "--run", told.folder, "--min-expected", threshold)
    names = [line for line in said.out.splitlines() if not line.startswith("  ")]
    assert names == [
        f"{name}  (expected cosine {each:.3f}{', flagged' if each < threshold else ''})"
        for name, each in zip(found.ids, found.expected, strict=True)
    ]
    said = cli("predict", "--run", told.folder, "--json")
    assert [list(row) for row in said.json["predictions"]] == [["imgId", "expected", "prompts"]] * 3


def test_a_threshold_must_be_a_cosine(cli, told):
    assert cli("predict", "--run", told.folder, "--min-expected", "1.5").code == 2
    assert cli("predict", "--run", told.folder, "--min-expected", "nan").code == 2


def test_a_cache_a_folder_and_stdin_give_the_same(cli, here, fitted, pairs, monkeypatch):
    assert cli("predict", fitted, "--out", "cache.npy").code == 0
    assert cli("predict", pairs, "--out", "folder.npy").code == 0
    images = "".join(f"{path}\r\n\n" for path in sorted(pairs.glob("*.png")))
    monkeypatch.setattr(sys, "stdin", io.StringIO(images))
    assert cli("predict", "-", "--out", "stdin.npy").code == 0
    rows = {
        name: dict(zip(ids_of(here / f"{name}.ids.csv"), np.load(f"{name}.npy"), strict=True))
        for name in ("cache", "folder", "stdin")
    }
    assert list(rows["cache"]) == list(rows["folder"])
    assert len(rows["cache"]) == 20
    for other in ("folder", "stdin"):
        for name, vector in rows["cache"].items():
            np.testing.assert_allclose(rows[other][name], vector, atol=1e-4)


def test_a_list_with_bad_entries(cli, here, pairs, monkeypatch):
    names = [f"{pairs}/{name}" for name in ("img004.png", "gone.png", "img002.png", "img004.png")]
    odd = io.TextIOWrapper(io.BytesIO("\n".join(names).encode() + b"\n/odd\xff.png\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", odd)
    said = cli("predict", "-", "--out", "x.npy")
    assert said.code == 0
    assert ids_of(here / "x.ids.csv") == ["img004", "img002"]
    assert "gone: cannot be read: No such file or directory\n" in said.err
    assert "1 image named twice, taken once (first: " in said.err
    assert "1 name that is not UTF-8, skipped" in said.err


def test_a_folder_with_a_table_of_other_images(cli, here, pairs):
    (here / "set").mkdir()
    for name in ("img004", "img002"):
        shutil.copy(pairs / f"{name}.png", here / "set")
    (here / "set" / "prompts.csv").write_text("imgId,prompt\nother,x\n")
    said = cli("predict", "set", "--out", "x.npy")
    assert said.code == 0
    assert ids_of(here / "x.ids.csv") == ["img002", "img004"]
    assert "taken without their table: no row of" in said.err


def test_ids_that_get_an_apostrophe_are_counted(cli, here, pairs):
    (here / "odd").mkdir()
    for name in ("=1+1", "-5", "plain"):
        shutil.copy(pairs / "img001.png", here / "odd" / f"{name}.png")
    said = cli("predict", "odd", "--out", "x.csv")
    assert "ids that begin like a formula, and have an apostrophe before them in the CSV file: 1;" in said.err
    names = [line.rpartition("_")[0] for line in (here / "x.csv").read_text().splitlines()[1::16]]
    assert sorted(names) == ["'=1+1", "-5", "plain"]
    assert "apostrophe" not in cli("predict", "odd", "--out", "x.jsonl").err


def test_a_bank_of_the_users_own(cli, here, pairs, monkeypatch):
    monkeypatch.setenv("IMG2PROMPT_HOME", str(here / "home"))
    (here / "bank.txt").write_text("a calm sea\n\ntwo red boats\x1b[31m\na calm sea\n")
    said = cli("predict", pairs / "img001.png", "--bank", "bank.txt", "--out", "x.npy")
    assert said.code == 0
    found = [line.partition("  ")[2].partition("  ")[2] for line in said.out.splitlines()[2:4]]
    assert sorted(found) == ["a calm sea", "two red boats\\x1b[31m"]
    cli("predict", pairs / "img001.png", "--bank", "none.txt", "--out", "y.npy").refused(2, "--bank none.txt")
    assert not (here / "y.npy").exists()


def test_a_run_whose_cache_is_gone(cli, here, pairs, monkeypatch):
    run = shutil.move(run_in(here), here / "run")
    data = json.loads((here / "run" / "run.json").read_text())
    (here / "run" / "run.json").write_text(json.dumps({**data, "cache": str(here / "gone")}))
    shutil.rmtree(here / "cache")
    image = pairs / "img001.png"
    cli("predict", image, "--run", run).refused(2, "is gone", "--bank")
    cli("predict", "--run", run).refused(2, "is gone", "name images")
    (here / "bank.txt").write_text("a calm sea\ntwo red boats\n")
    monkeypatch.setenv("IMG2PROMPT_HOME", str(here / "home"))
    assert cli("predict", image, "--run", run, "--bank", "bank.txt").code == 0
    assert cli("predict", image, "--run", run, "--out", "x.npy").code == 0


def test_a_cache_that_is_named_is_taken(cli, here, fitted, tiny):
    other = shutil.copytree(fitted, here / "other")
    run = run_in(here)
    said = cli("predict", "--run", run, "--cache", other, "--json")
    assert [row["imgId"] for row in said.json["predictions"]] == ["img019"]
    text = (other / "cache.json").read_text()
    (other / "cache.json").write_text(text.replace('"clean": "none"', '"clean": "seed"'))
    cli("predict", "--run", run, "--cache", other).refused(1, "clean was none, is now seed")
    (other / "cache.json").write_text(text.replace('"precision": "fp32"', '"precision": "bf16"'))
    cli("predict", other, "--run", run).refused(1, "precision was fp32, is now bf16")
    assert tiny.cnn in text


def test_nothing_to_predict_for(cli, here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n"))
    cli("predict", "-").refused(2, "no images were named")
    cli("predict", "none.png").refused(2, "there is no file or folder none.png")
    (here / "empty").mkdir()
    cli("predict", "empty").refused(2, "empty")
    cli("predict", "--top-k", "0").refused(2, "--top-k 0", "--out")
    folder = make_cache(here / "full", 20)
    assert cli("fit", "--head", "mean", "--cache", folder).code == 0
    cli("predict", "--cache", folder).refused(2, "no usable image without a prompt", "name images")


def test_bad_images_alone(cli, here, pairs):
    said = cli("predict", pairs / "words.png", pairs / "cut.png", "--out", "x.npy", "--json")
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[-1] == "error: none of the 2 images could be used"
    assert "words: not an image" in said.err
    assert sorted(path.name for path in here.iterdir()) == ["cache"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--run", "rigde-cnn-01"], ("unknown run", "ridge-cnn-01")),
        (["--device", "gpu"], ("unknown device 'gpu'", "cpu")),
        (["--out", "x.txt"], ("--out x.txt", ".npy", ".csv", ".parquet", ".jsonl")),
        (["--out", "none/x.npy"], ("none does not exist",)),
        (["--out", "cache/default/cache.json/x.npy"], ("--out",)),
        (["--out", "there.npy"], ("there.npy exists", "--overwrite")),
        (["--out", "named.npy"], ("named.ids.csv exists", "--overwrite")),
        (["--cache", "none"], ("there is no cache in none", "fit --cache none")),
    ],
)
def test_wrong_choices(cli, here, pairs, options, words):
    (here / "there.npy").write_text("mine")
    (here / "named.ids.csv").write_text("mine")
    cli("predict", pairs / "img001.png", *options).refused(2, *words)
    assert (here / "there.npy").read_text() == (here / "named.ids.csv").read_text() == "mine"
    assert sorted(path.name for path in here.iterdir()) == ["cache", "named.ids.csv", "there.npy"]


def test_an_output_is_replaced_when_asked_and_only_by_a_whole_one(cli, here, pairs):
    assert cli("predict", pairs / "img001.png", pairs / "img002.png", "--out", "x.npy").code == 0
    before = (here / "x.npy").read_bytes()
    said = cli("predict", pairs / "words.png", "--out", "x.npy", "--overwrite")
    assert said.code == 1
    assert (here / "x.npy").read_bytes() == before
    assert cli("predict", pairs / "img001.png", "--out", "x.npy", "--overwrite").code == 0
    assert np.load("x.npy").shape == (1, 16)


def test_the_prompts_of_the_source_are_not_replaced(cli, here, pairs):
    images = shutil.copytree(pairs, here / "images")
    before = {path: path.read_bytes() for path in images.rglob("*") if path.is_file()}
    table = next(path for path in before if path.suffix == ".csv")
    image = shutil.copy(pairs / "img001.png", images / "odd.csv.npy")
    for out in (table, image):
        said = cli("predict", images, "--out", out, "--overwrite")
        said.refused(2, f"{out} is there and was not made by `img2prompt-cache predict`")
    assert before == {path: path.read_bytes() for path in before}


def test_a_run_that_was_tampered_with(cli, here, pairs):
    run = run_in(here)
    image = pairs / "img001.png"
    whole = (run / "run.json").read_text()
    data = json.loads(whole)

    def refused(code, *words, **changes):
        (run / "run.json").write_text(json.dumps({**data, **changes}))
        cli("predict", image, "--run", run).refused(code, *words)
        (run / "run.json").write_text(whole)

    refused(1, "schema 2", "Upgrade", schema=2)
    refused(1, "does not describe a run", metrics={})
    refused(1, "unknown head 'nought'", head="nought")
    refused(1, "lacks", head="mlp", settings={})
    refused(1, "values", target={**data["target"], "width": 17, "shape": [17]})
    (use,) = data["features"]
    others = {**use, "fingerprint": {**use["fingerprint"], "weights": "others"}}
    refused(1, "weights was others", features=[others])
    # With the weights of a column of the cache, they would be found where the cache has them.
    refused(2, "timm", features=[{**others, "spec": "timm:local-dir:/none"}])
    head = run / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1])
    cli("predict", image, "--run", run).refused(1, "head.safetensors is not the file that was saved")
    refused(1, "head.safetensors", head_sha256=hash_file(head))


def test_what_an_image_is_called_cannot_play_tricks_on_the_terminal(cli, here):
    paint(here / "a\x1b[31m\nb.png", 0)
    said = cli("predict", here / "a\x1b[31m\nb.png")
    assert said.code == 0
    assert said.out.splitlines()[0].startswith("a\\x1b[31m\\nb  (expected")


def test_a_damaged_cache(cli, here):
    part = next((here / "cache" / "default" / "targets").glob("*/00001.h5"))
    part.write_bytes(part.read_bytes()[:-1])
    cli("predict").refused(1, "00001.h5 is damaged", "repair")
    assert cli("predict", "--top-k", "0", "--out", "x.npy").code == 0


def test_a_synthetic_cache_needs_no_models(cli, tmp_path):
    folder = make_cache(tmp_path / "cache", 40, without_prompt=[3, 9], failed=[9])
    assert cli("fit", "--head", "ridge", "--cache", folder).code == 0
    said = cli("predict", "--cache", folder, "--out", tmp_path / "x.npy")
    assert said.code == 0
    assert "i009: not an image" in said.err
    assert np.load(tmp_path / "x.npy").shape == (1, 384)
    assert ENCODER in (folder / "cache.json").read_text()


def test_a_composed_prompt_is_shown_below_the_nearest_ones_and_written(cli, here, pairs):
    image = pairs / "img004.png"
    said = cli("predict", image, "--compose", "--top-k", "1")
    name, own, nearest, composed = said.out.splitlines()
    assert own.endswith(f"its own prompt is: {prompt_of(4)}")
    assert said.code == 0
    assert (name[:6], composed[-10:]) == ("img004", "(composed)")
    assert "(composed)" not in nearest
    (found,) = cli("predict", image, "--compose", "--top-k", "0", "--json").json["predictions"]
    assert list(found) == ["imgId", "expected", "composed", "composed_cosine", "own_prompt"]
    assert composed == f"  {found['composed_cosine']:.3f}  {found['composed']}  (composed)"
    assert cli("predict", image, "--compose", "--out", "x.jsonl").out == "x.jsonl: 1 prediction\n"
    (line,) = (here / "x.jsonl").read_text().splitlines()
    assert json.loads(line)["composed"] == found["composed"]
    assert cli("predict", image, "--compose", "--out", "x.npy").code == 0
    assert ids_of(here / "x.ids.csv") == ["img004"]
    assert found["composed"] in (here / "x.ids.csv").read_text()


def test_a_table_to_read(cli, here, pairs):
    said = cli("predict", pairs / "img004.png", pairs / "cut.png", "--out", "seen.prompts.csv")
    assert said.code == 0
    assert said.out == "seen.prompts.csv: 1 prediction\n"
    with (here / "seen.prompts.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == ["image", "prompt", "similarity", "expected"]
    assert row["image"] == "img004"
    assert row["prompt"]
    assert -1 <= float(row["similarity"]) <= 1
    again = ("predict", pairs / "img004.png", "--out", "seen.prompts.csv")
    cli(*again).refused(2, "--out", "exists")
    assert cli(*again, "--overwrite", "--min-expected", "1", "--compose").code == 0
    assert (here / "seen.prompts.csv").read_text().startswith("image,prompt,similarity,expected,flagged\n")
    assert is_own_table(here / "seen.prompts.csv")
    (here / "mine.prompts.csv").write_text("image,prompt\nimg004,mine\n")
    cli("predict", pairs / "img004.png", "--out", "mine.prompts.csv", "--overwrite").refused(
        2, "was not made by"
    )


def test_sidecars_beside_images(cli, here, pairs, tmp_path):
    folder = shutil.copytree(pairs, tmp_path / "copy")
    (folder / "img004.txt").write_text("mine\n")
    said = cli("predict", folder / "img004.png", folder / "img005.png", "--sidecar", "txt", "--top-k", "1")
    assert said.code == 0
    assert "1 sidecar (.txt) written beside the images; 1 file that was there stays: --overwrite" in said.err
    assert "`" not in said.err
    assert (folder / "img004.txt").read_text() == "mine\n"
    assert said.out.splitlines()[-1].endswith(f"  {(folder / 'img005.txt').read_text().rstrip()}")
    cli("predict", folder / "img004.png", "--sidecar", "text").refused(2, "--sidecar")
    cli("predict", here / "cache" / "default", "--sidecar", "txt").refused(2, "--sidecar")
    cli("predict", "--sidecar", "txt").refused(2, "--sidecar")
    cli("predict", folder / "img004.png", "--sidecar", "txt", "--top-k", "0").refused(2, "--top-k")
