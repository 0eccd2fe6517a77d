"""`dedup --move` and `--link`: images are sorted, and none is lost, written over, or moved unasked."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

import img2prompt_cache as ipc
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.extraction import relocation
from kit import make_source
from synthetic import Cli

TWINS = {"img003": "img017", "img004": "img005"}


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A cache of images of which two pairs are identical, one of them below a folder; to be read only."""
    home = tmp_path_factory.mktemp("files")
    images = make_source(home / "images", 20)
    for one, other in TWINS.items():
        shutil.copy(images / f"{one}.png", images / f"{other}.png")
    (images / "sub").mkdir()
    (images / "img017.png").rename(images / "sub" / "img017.png")
    (images / "img005.txt").write_text("a caption")
    (images / "img005.png.json").write_text("{}")
    tiny.extract(images, home / "cache", format="table")
    shutil.copytree(home, home.with_name("kept"))
    return home


@pytest.fixture
def here(made, monkeypatch):
    """The folder as it was at first, at the path that the cache remembers, and the current one."""
    shutil.rmtree(made)
    shutil.copytree(made.with_name("kept"), made)
    monkeypatch.chdir(made)
    return made


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "cache" not in path.relative_to(folder).parts
    }


def test_moving_is_shown_first_and_done_when_asked(cli, here):
    before = contents(here)
    said = cli("dedup", "--cache", "cache", "--threshold", "0.999", "--move", "twins")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"{here}/images/img005.png -> twins/img005.png",
        f"{here}/images/sub/img017.png -> twins/sub/img017.png",
    ]
    assert said.err == "2 images would be moved; --yes moves them\n"
    assert contents(here) == before
    said = cli("dedup", "--cache", "cache", "--threshold", "0.999", "--move", "twins", "--yes")
    assert said.code == 0
    assert said.err == (
        "2 images moved to twins; `img2prompt-cache extract --cache cache --update` leaves their rows out\n"
    )
    names = ("img005.png", "img005.txt", "img005.png.json", "sub/img017.png")
    moved = {
        name.replace("images/", "twins/") if name[7:] in names else name: data
        for name, data in before.items()
    }
    assert contents(here) == moved
    assert not (here / "cache" / "dedup.csv").exists()
    again = cli("dedup", "--cache", "cache", "--threshold", "0.999", "--move", "twins", "--yes", "--json")
    assert again.json["files"] == []
    assert again.json["left"] == dict.fromkeys(("img005", "sub/img017"), "there is no such file any more")


@pytest.mark.parametrize("options", [(), ("--yes",)])
def test_it_says_so_where_there_is_no_image_to_move(cli, here, options):
    cli("dedup", "--cache", "cache", "--threshold", "0.999", "--move", "twins", "--yes")
    said = cli("dedup", "--cache", "cache", "--threshold", "0.999", "--move", "twins", *options)
    assert said.err.splitlines()[-1] == "there is no image to move"
    assert said.out == ""


def test_links_lead_to_every_other_image_and_its_texts(cli, here):
    before = contents(here)
    said = cli("dedup", "--cache", "cache", "--threshold", "0.999", "--link", "clean")
    assert said.code == 0
    assert said.out == "clean: links to 18 images\n"
    links = sorted(path.name for path in (here / "clean").rglob("*") if path.is_symlink())
    assert links == sorted(f"img{n:03d}.png" for n in range(20) if n not in (5, 17))
    assert (here / "clean" / "img003.png").read_bytes() == (here / "images" / "img003.png").read_bytes()
    shutil.rmtree(here / "clean")
    assert contents(here) == before
    found = ipc.dedup("cache", 0.999, link="clean")
    assert found.done
    assert len(found.files) == 18


def test_prompts_alone_move_no_image(cli, here):
    said = cli("dedup", "--cache", "cache", "--threshold", "0.999", "--json")
    assert said.json["similar_prompts"] > 2
    assert len(ipc.dedup("cache", 0.999, move="x").files) == 2


def test_nothing_is_written_over_and_nothing_moves_if_something_is_in_the_way(cli, here):
    (here / "twins" / "sub").mkdir(parents=True)
    (here / "twins" / "sub" / "img017.png").write_text("mine")
    before = contents(here)
    options = ("dedup", "--cache", "cache", "--threshold", "0.999", "--yes", "--move")
    cli(*options, "twins").refused(2, "twins/sub/img017.png is there already")
    cli(*options, "images/twins").refused(2, "lies in the folder of the images")
    cli(*options, "cache/twins").refused(2, "among the files of the cache")
    cli(*options, "twins/sub/img017.png").refused(2, "is no folder")
    cli(*options, "x", "--link", "y").refused(2, "give one of them")
    assert contents(here) == before


def test_what_has_changed_or_is_a_link_stays(cli, here):
    (here / "images" / "img005.png").write_bytes(b"another")
    (here / "images" / "sub" / "img017.png").unlink()
    (here / "images" / "sub" / "img017.png").symlink_to(here / "images" / "img003.png")
    before = contents(here)
    said = cli("dedup", "--cache", "cache", "--threshold", "0.999", "--move", "twins", "--yes", "--json")
    assert said.code == 0
    assert said.json["left"] == {"img005": "it has changed since it was cached", "sub/img017": "it is a link"}
    assert contents(here) == before
    said = cli("dedup", "--cache", "cache", "--threshold", "0.999", "--move", "twins", "--yes")
    assert "sub/img017 stays: it is a link" in said.err


def test_a_place_that_is_taken_meanwhile_is_not_written_over(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(ipc.Img2PromptError, match="it stays where it is"):
        relocation.move([(tmp_path / "a", tmp_path / "b")])
    with pytest.raises(ipc.Img2PromptError, match="cannot be made"):
        relocation.link([(tmp_path / "a", tmp_path / "b")])
    assert (tmp_path / "a").read_text() + (tmp_path / "b").read_text() == "ab"


def test_to_another_disk_files_are_copied_and_compared_first(tmp_path, monkeypatch):
    def another_disk(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", another_disk)
    (tmp_path / "a").write_text("a")
    relocation.move([(tmp_path / "a", tmp_path / "far" / "a")])
    assert (tmp_path / "far" / "a").read_text() == "a"
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").write_text("b")
    with pytest.raises(ipc.Img2PromptError, match="stays where it is"):
        relocation.move([(tmp_path / "b", tmp_path / "far" / "a")])
    hashes = iter(["one", "other"])
    monkeypatch.setattr(relocation, "hash_file", lambda _: next(hashes))
    with pytest.raises(ipc.Img2PromptError, match="the copy is not the same"):
        relocation.move([(tmp_path / "b", tmp_path / "far" / "b")])
    assert (tmp_path / "b").read_text() == "b"
    assert not (tmp_path / "far" / "b").exists()


def test_a_text_that_two_images_share_goes_with_neither(tmp_path):
    for name in ("a.png", "a.jpg", "a.txt", "a.png.txt", "b.PNG", "b.caption", "c.txt"):
        (tmp_path / name).write_text(name)
    assert relocation.beside(tmp_path / "a.png") == [tmp_path / "a.png.txt"]
    assert relocation.beside(tmp_path / "b.PNG") == [tmp_path / "b.caption"]


def test_two_sources_get_a_folder_each(tiny, tmp_path):
    for name in ("one", "two"):
        make_source(tmp_path / name, 2, first=0 if name == "one" else 5)
        shutil.copy(
            tmp_path / name / "img000.png" if name == "one" else tmp_path / "one" / "img000.png",
            tmp_path / name / ("img001.png" if name == "one" else "img005.png"),
        )
        tiny.extract(tmp_path / name, tmp_path / "cache")
    found = ipc.dedup(Cache(tmp_path / "cache"), 0.999, move=tmp_path / "out", yes=True)
    assert [each["to"] for each in found.files] == [
        str(tmp_path / "out" / "1-one" / "img001.png"),
        str(tmp_path / "out" / "2-two" / "img005.png"),
    ]
    assert (tmp_path / "out" / "2-two" / "img005.png").is_file()
