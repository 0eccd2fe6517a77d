"""Rows that `extract --update` removed, because their image is gone: no command shows or predicts them."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.app.gallery import Gallery
from img2prompt_cache.cache.reader import REMOVED, Cache
from kit import make_source, paint, prompt_of, save_backbone
from synthetic import Cli

GONE = {"img004", "img013", "plain1"}
"""Two with a prompt, one without."""


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def updated(tiny, tmp_path_factory):
    """A cache with a run by folds, from whose source three images were removed since; to be read only."""
    folder = tmp_path_factory.mktemp("removed")
    source = make_source(folder / "images", 20)
    for number in range(2):
        paint(source / f"plain{number}.png", 50 + number)
    named = f"timm:local-dir:{save_backbone(folder / 'named', classes=('red boats', 'calm sea'))}"
    options = {"backbones": (tiny.vit, named)}
    tiny.extract(source, folder / "cache", **options)
    ipc.fit(folder / "cache", "ridge", settings={"alpha": 0.1}, split="random", folds=3, leakage_gap=False)
    for name in GONE:
        (source / f"{name}.png").unlink()
    tiny.extract(source, folder / "cache", update=True, **options)
    text = Cache(folder / "cache").text("imgId", "status")
    assert {name for name, status in zip(*text.values(), strict=True) if status == REMOVED} == GONE
    return folder


@pytest.fixture
def here(updated, tmp_path, monkeypatch):
    shutil.copytree(updated / "cache", tmp_path / "cache" / "default")
    (tmp_path / "bank.txt").write_text("two red boats\na calm sea\npixel art\n")
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def submitted(path):
    with path.open(newline="") as file:
        return {row["imgId_eId"].rpartition("_")[0] for row in csv.DictReader(file)}


EVERY = {f"img{n:03d}" for n in range(20)} | {"plain0", "plain1"}


@pytest.mark.parametrize("how", [(), ("--zero-shot", "--bank", "bank.txt")])
def test_a_submission_of_cached_rows_has_none_of_them(cli, here, how):
    said = cli("predict", "cache/default", *how, "--out", "all.csv")
    assert said.code == 0, said.err
    assert submitted(here / "all.csv") == EVERY - GONE
    said = cli("predict", *how, "--cache", "cache/default", "--out", "without.csv")
    assert said.code == 0, said.err
    assert submitted(here / "without.csv") == {"plain0"}
    said = cli("predict", "cache/default", *how, "--json")
    assert said.json["bad"] == {}
    assert not GONE & {each["imgId"] for each in said.json["predictions"]}


def test_searches_and_rankings_have_none_of_them(cli, here, updated):
    picture = paint(here / "query.png", 4)  # as img004 was
    for arguments in (
        ("search", "two red boats"),
        ("search", prompt_of(4), "--by", "prompt"),
        ("search", picture),
        ("search", picture, "--by", "prompt"),
        ("top",),
        ("top", "--by", "score"),
        ("top", "--by", "score", "--worst"),
    ):
        said = cli(*arguments, "--top-k", "99", "--json")
        assert said.code == 0, said.err
        found = {each["imgId"] for each in said.json["found"]}
        assert len(found) > 15
        assert not GONE & found, arguments


def test_where_only_unusable_rows_have_a_prompt_there_is_none_to_search_by(cli, tiny, tmp_path):
    source = make_source(tmp_path / "images", 3)
    for number in range(4):
        paint(source / f"plain{number}.png", 50 + number)
    (source / "img002.png").write_bytes(b"this is no image")
    tiny.extract(source, tmp_path / "cache")
    for number in range(2):
        (source / f"img{number:03d}.png").unlink()
    tiny.extract(source, tmp_path / "cache", update=True)
    named = ("--cache", tmp_path / "cache")
    cli("search", "a calm sea", *named).refused(2, "a classifier whose classes have known names")
    said = cli("search", "a calm sea", "--by", "prompt", *named)
    said.refused(2, "has a prompt to search by")


def test_a_report_shows_none_of_them(cli, here):
    for command in (("report",), ("explore", "cache/default")):
        said = cli(*command, "--json")
        assert said.code == 0, said.err
        assert said.json["data"]["counts"]["rows"] == 19
        shown = json.dumps({**said.json, "heads": None})
        for name in GONE:
            assert f'"{name}"' not in shown


def test_the_gallery_of_the_app_has_none_of_them(here):
    gallery = Gallery(Cache("cache/default"))
    assert {gallery.rows.ids[row] for row in gallery.shown.tolist()} == EVERY - GONE
    assert gallery.total == 19


def test_rows_with_several_prompts_are_counted_without_them(cli, tmp_path, tiny):
    source = make_source(tmp_path / "images", 3)
    with (source / "prompts.csv").open("a") as file:
        file.write("img000,a calm sea\nimg001,two red boats\n")
    tiny.extract(source, tmp_path / "cache")
    assert cli("info", "--cache", tmp_path / "cache", "--json").json["several_prompts"] == 2
    (source / "img001.png").unlink()
    tiny.extract(source, tmp_path / "cache", update=True)
    assert cli("info", "--cache", tmp_path / "cache", "--json").json["several_prompts"] == 1


def test_what_is_fitted_and_what_it_knows_has_none_of_them(here):
    run = ipc.fit("cache/default", "ridge", settings={"alpha": 0.1}, split="random", folds=3, oof="oof.npy")
    assert run.metrics["n"] == 18
    rows = (here / "oof.ids.csv").read_text()
    assert not any(name in rows for name in GONE)
    assert np.load("oof.npy").shape[0] == 18
