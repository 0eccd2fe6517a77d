from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models import new_backbones
from kit import make_source, paint, parts_of, prompt_of

pytestmark = pytest.mark.usefixtures("no_weights")


def test_json_says_what_was_done(cli, here, pairs, models):
    said = cli("extract", pairs, *models, "--json")
    assert said.code == 0
    assert {key: said.json[key] for key in ("cache", "rows", "ok", "failed", "new", "without_prompt")} == {
        "cache": "cache/default",
        "rows": 23,
        "ok": 20,
        "failed": 3,
        "new": 23,
        "without_prompt": 1,
    }
    assert sum(said.json["reasons"].values()) == 3
    assert "plan: 23 of 23 rows (23 new)" in said.err
    again = cli("extract", pairs, *models, "--json")
    assert again.json["new"] == 0
    assert "nothing to do: 23 rows are cached" in again.err


def test_images_without_a_prompt_are_no_success_unless_asked_for(cli, here, models):
    (here / "set").mkdir()
    paint(here / "set" / "a.png", 1)
    (here / "set" / "words.csv").write_text("nr;words\na;a tram, in fog\n")
    said = cli("extract", "set", *models)
    assert said.code == 1
    assert "has the columns nr, words: name it with --prompts, and its columns with --id-column" in said.err
    assert "give --format folder" in said.err
    assert not (here / "cache").exists()
    assert cli("extract", "set", *models, "--format", "folder").code == 0
    named = ("--prompts", "set/words.csv", "--id-column", "nr", "--prompt-column", "words")
    said = cli("extract", "set", *models, *named, "--cache", "other", "--json")
    assert (said.code, said.json["without_prompt"]) == (0, 0)


def test_tables_of_several_folders_are_read(cli, here, models):
    make_source(here / "set" / "a", 4)
    make_source(here / "set" / "b", 3, first=2)
    said = cli("extract", "set", *models, "--cache", "cache", "--json")
    assert (said.code, said.json["rows"], said.json["without_prompt"]) == (0, 7, 0)
    assert "2 folders have tables of prompts" in said.err
    found = Cache(here / "cache").text("imgId", "prompt")
    assert found["imgId"] == [*(f"a/img{n:03d}" for n in range(4)), *(f"b/img{n:03d}" for n in range(2, 5))]
    assert found["prompt"] == [*map(prompt_of, range(4)), *map(prompt_of, range(2, 5))]
    assert cli("extract", "--cache", "cache", "--json").json["new"] == 0


def test_prompts_that_arrive_later_are_taken_in(cli, here, models):
    images = make_source(here / "images", 6)
    (images / "prompts.csv").rename(here / "prompts.txt")
    assert cli("extract", "images", *models, "--format", "folder").code == 0
    assert cli("fit", "--head", "mean").code == 2
    (here / "prompts.txt").rename(here / "prompts.csv")
    said = cli("extract")
    assert said.code == 0, said.err
    assert "--format folder reads no prompts, but prompts.csv is a table of prompts" in said.err
    said = cli("extract", "images", "--json")
    assert said.code == 0, said.err
    assert "6 images that had no prompt have one now: they are taken in" in said.err
    assert (said.json["new"], said.json["without_prompt"], said.json["encoded_again"]) == (0, 0, 0)
    assert said.json["taken_over"] == 6
    assert cli("fit", "--head", "mean", "--split", "random").code == 0


def test_the_reader_of_each_prompt_is_kept(cli, here, models):
    (here / "set").mkdir()
    for number, name in enumerate("abc"):
        paint(here / "set" / f"{name}.png", number)
    (here / "set" / "a.txt").write_text("a tram")
    (here / "set" / "b.json").write_text('{"prompt": "a quay"}')
    assert cli("extract", "set", *models, "--cache", "cache").code == 0
    assert Cache(here / "cache").text("found_in") == {"found_in": ["text", "json", ""]}
    assert cli("extract", "set", *models, "--cache", "cache", "--json").json["new"] == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, Img2PromptError("no such weights")])
def test_a_pass_that_loads_no_model_leaves_nothing(cli, here, pairs, models, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(new_backbones, "load_backbone", refuse)
    assert cli("extract", pairs, *models, "--cache", "caches/one").code in (1, 130)
    assert list(here.iterdir()) == []


def test_the_current_folder_is_read_without_caches_and_hidden_folders(cli, here, models):
    make_source(here / "pictures", 5)
    (here / "pictures" / "prompts.csv").rename(here / "prompts.csv")
    assert cli("extract", *models, "--json").json["rows"] == 5
    report = here / "cache" / "default" / "report" / "images"
    for folder in (report, here / ".thumbs"):
        folder.mkdir(parents=True)
        paint(folder / "000000.webp", 7)
    assert cli("extract", *models, "--json").json["rows"] == 5
    assert cli("extract", "--cache", "other", *models, "--json").json["rows"] == 5
    paint(here / "anywhere.png", 8)
    assert cli("extract", "--json").json["rows"] == 6


def test_bare_extract_finds_images_and_prompts_and_then_its_own_source(cli, here, models):
    images = make_source(here / "images", 5)
    (images / "prompts.csv").rename(here / "prompts.csv")
    assert cli("extract", *models).code == 0
    before = parts_of(here / "cache" / "default")
    paint(images / "img005.png", 5)
    os.chdir(images)  # where there is nothing to find
    said = cli("extract", "--cache", here / "cache" / "default")
    assert said.code == 0, said.err
    assert said.out.startswith(f"{here / 'cache' / 'default'}: 6 rows, 6 ok, 0 failed; 1 new")
    after = parts_of(here / "cache" / "default")
    assert len(after) > len(before)


def test_a_table_of_the_users_own(cli, here, models):
    make_source(here / "images", 4)
    (here / "images" / "prompts.csv").unlink()
    (here / "t.csv").write_text("file;text;fold\n".replace(";", ",") + "img000,a,x\nimg001,b,y\n")
    said = cli("extract", "images", "--prompts", "t.csv", "--id-column", "file", *models, "--json")
    assert said.code == 0, said.err
    assert said.json["rows"] == 4
    assert said.json["without_prompt"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backbone", "resnet50"], ("backbone 'resnet50' is not a spec", "timm, open_clip, packaged")),
        (["--backbone", "tim:resnet50"], ("unknown backbone family 'tim'", "timm")),
        (["--backbone", "timm:resnet5O"], ("unknown timm model", "resnet50")),
        (["--backbone", "packaged:efficientnet"], ("efficientnet-lite0",)),
        (["--backbone", "open_clip:ViT-B-33/openai"], ("ViT-B-32",)),
        (["--backbone", "timm:local-dir:/none"], ("/none",)),
        (["--encoder", "ts:all-MiniLM-L6-v2"], ("unknown encoder family 'ts'", "st")),
        (["--encoder", "packaged:minilm"], ("all-MiniLM-L6-v2",)),
        (["--preset", "standart"], ("'standart'", "standard")),
        (["--precision", "fp64"], ("'fp64'", "fp16")),
        (["--clean", "lihgt"], ("'lihgt'", "light")),
        (["--device", "cuda:99"], ("cuda:99", "not there")),
        (["--format", "webdatset"], ("--format", "webdataset")),
        (["--prompts", "none.csv"], ("none.csv",)),
        (["--prompt-column", "caption"], ("caption", "imgId, prompt")),
        (["--id-column", "image"], ("image",)),
    ],
)
def test_wrong_choices(cli, here, tiny, options, words):
    make_source(here / "images", 3)
    defaults = {"--backbone": tiny.cnn, "--encoder": tiny.encoder}
    given = dict(zip(options[::2], options[1::2], strict=True))
    arguments = [text for pair in {**defaults, **given}.items() for text in pair]
    cli("extract", "images", *arguments).refused(2, *words)
    to_be_found = ("timm:", "open_clip:")  # whether there is such a model is known once it is loaded
    if not options[1].startswith(to_be_found) or "local-dir" in options[1]:
        cli("extract", "images", *arguments, "--dry-run").refused(2, *words)
    assert not (here / "cache" / "default" / "cache.json").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--precision", "bf16"], 1, ("precision was fp32, is now bf16",)),
        (["--clean", "seed"], 1, ("clean was none, is now seed",)),
        (["--precision", "fp64"], 2, ("'fp64'",)),
        (["--clean", "lihgt"], 2, ("'lihgt'", "light")),
        (["--preset", "standart"], 2, ("'standart'", "standard")),
        (["--device", "gpu"], 2, ("'gpu'",)),
        (["--batch-size", "5"], 2, ("--batch-size 5", "made with 4")),
        (["--part-rows", "9"], 2, ("--part-rows 9", "made with 8")),
    ],
)
def test_wrong_choices_for_a_cache_that_is_there(cli, here, made, pairs, options, code, words):
    shutil.copytree(made, here / "cache")
    before = (here / "cache" / "cache.json").read_bytes()
    for dry_run in ([], ["--dry-run"]):
        cli("extract", pairs, "--cache", "cache", *options, *dry_run).refused(code, *words)
    assert (here / "cache" / "cache.json").read_bytes() == before


def test_a_preset_is_decided_once(cli, here, made, pairs):
    shutil.copytree(made, here / "cache")
    path = here / "cache" / "cache.json"
    path.write_text(
        path.read_text().replace('"preset": null', '"preset": {"name": "packaged", "reason": "-"}')
    )
    arguments = ("extract", pairs, "--cache", "cache", "--preset")
    cli(*arguments, "standard").refused(2, "--preset standard", "made with packaged")
    assert cli(*arguments, "packaged").code == cli(*arguments, "auto").code == 0


def test_sources_that_are_none(cli, here, models):
    cli("extract", *models).refused(2, "nothing to extract", "Name a SOURCE")
    cli("extract", "none", *models).refused(2, "no file or folder none")
    (here / "empty").mkdir()
    cli("extract", "empty", *models).refused(2, "empty")
    (here / "file.txt").write_text("text")
    cli("extract", "file.txt", *models).refused(2, "file.txt")
    make_source(here / "twice", 2)
    (here / "twice" / "img000.jpg").write_bytes((here / "twice" / "img000.png").read_bytes())
    cli("extract", "twice", *models).refused(2, "'img000'", "twice")
    make_source(here / "images", 2)
    (here / "images" / "prompts.csv").write_text("name,words\nimg000,a\n")
    cli("extract", "images", "--format", "table", *models).refused(2, "prompts.csv")
    (here / "images" / "prompts.csv").write_bytes(b"imgId,prompt\nimg000,\xff\xfe\n")
    cli("extract", "images", *models).refused(2, "prompts.csv")
    assert not (here / "cache" / "default" / "cache.json").exists()


def test_all_images_bad(cli, here, models):
    images = make_source(here / "images", 3)
    for path in images.glob("*.png"):
        path.write_bytes(b"no image")
    said = cli("extract", "images", *models)
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[-1] == (
        "error: none of the 3 images could be used; 3 of them: not an image. Once they can be read, "
        "--retry-failed tries again"
    )


def test_places_that_cannot_hold_a_cache(cli, here, models):
    make_source(here / "images", 2)
    (here / "file").write_text("mine")
    cli("extract", "images", "--cache", "file", *models).refused(2, "file is a file")
    cli("extract", "images", "--cache", "file/cache", *models).refused(1, "file/cache", "cannot be written")
    cli("extract", "images", "--cache", "images", *models).refused(2, "images is not a cache", "--cache")
    assert (here / "file").read_text() == "mine"
    assert sorted(path.name for path in (here / "images").iterdir()) == [
        "img000.png", "img001.png", "prompts.csv"
    ]  # fmt: skip


def test_a_cache_that_is_being_written(cli, here, made, pairs):
    from img2prompt_cache.cache.writer import writing

    shutil.copytree(made, here / "cache")
    with writing(here / "cache"):
        cli("extract", pairs, "--cache", "cache").refused(1, f"process {os.getpid()}", "wait")
    assert cli("extract", pairs, "--cache", "cache").code == 0


def test_a_cache_of_a_newer_schema(cli, here, made, pairs):
    shutil.copytree(made, here / "cache")
    path = here / "cache" / "cache.json"
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 99', 1))
    before = parts_of(here / "cache")
    cli("extract", pairs, "--cache", "cache").refused(1, "schema 99", "Upgrade")
    assert parts_of(here / "cache") == before


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from img2prompt_cache.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main.run(sys.argv[2:]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits of a POSIX process")
@pytest.mark.parametrize("limit", [300, 3000])
def test_a_file_that_grows_too_large_loses_nothing(cli, here, pairs, tiny, models, limit):
    """A limit on file sizes stands in for a full disk: writing fails part-way in the same manner."""
    arguments = ["extract", str(pairs), "--part-rows", "8", "--batch-size", "4", *models]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "(unexpected;" not in last
    assert "Traceback" not in done.stderr
    assert cli(*arguments).code == 0
    whole = here / "whole"
    assert cli(*arguments, "--cache", whole).code == 0
    assert parts_of(here / "cache" / "default") == parts_of(whole)


def test_what_the_user_is_told_has_no_tricks_in_it(cli, here, models):
    images = here / "im\x1b[31mages"
    make_source(images, 2)
    said = cli("extract", images, *models, "--cache", here / "c\x07")
    assert said.code == 0
    assert "\x1b" not in said.out + said.err.replace("\x1b[0m", "")
    assert "\x07" not in said.out
    told = cli("info", "--cache", here / "c\x07")
    assert "\\x1b[31mages" in told.out
    assert json.loads(cli("info", "--cache", here / "c\x07", "--json").out)["rows"] == 2


def test_a_dry_run_says_what_a_pass_would_do(cli, here, pairs, models):
    said = cli("extract", pairs, *models[:4], "--dry-run", "--json")
    assert said.code == 0
    told = said.json
    assert (told["format"], told["pairs"], told["without_prompt"], told["new"]) == ("table", 22, 1, 23)
    assert sum(told["unreadable"].values()) == 3
    assert told["columns"][0] == "rows"
    assert not (here / "cache").exists()
    said = cli("extract", pairs, *models[:4], "--dry-run")
    assert "read as table (prompts.csv is a table of prompts)" in said.out
    assert "a pass would compute 23 rows (23 new, 0 cached already)" in said.out
    (here / "empty").mkdir()
    paint(here / "empty" / "a.png", 1)
    said = cli("extract", "empty", *models[:4], "--dry-run")
    assert said.code == 1
    assert "give --format folder" in said.err
    said = cli("extract", pairs, "--dry-run", "--shard", "1/2")
    assert said.code == 2
    assert "--dry-run cannot be combined with --shard, --finish or --retry-failed" in said.err
