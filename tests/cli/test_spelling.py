from __future__ import annotations

from functools import partial

import pytest

from img2prompt_cache.cli import console, main
from img2prompt_cache.cli.spelling import spell
from img2prompt_cache.progress import Event
from synthetic import Cli, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.mark.parametrize(
    ("message", "spelled"),
    [
        ("`top_k` must be positive", "--top-k must be positive"),
        ("leave out `refit=False`", "leave out --no-refit"),
        ("give `overwrite=True`", "give --overwrite"),
        ('add `engine="ray"`', "add --engine ray"),
        ("add `folds=5`", "add --folds 5"),
        ("name one with `backbones`", "name one with --backbone"),
        ("`settings` has no lr", "--set has no lr"),
        ("give `source` again", "give SOURCE again"),
        ("make one with `fit()`", "make one with `img2prompt-cache fit`"),
        ("make one with `ipc.fit()`", "make one with `img2prompt-cache fit`"),
        ("run `extract(trunk=2)`", "run `img2prompt-cache extract --trunk 2`"),
        (
            'run `extract(source, cache="my cache", backbones="timm:a", trunk=K, flip=True)` again',
            "run `img2prompt-cache extract SOURCE --cache 'my cache' --backbone timm:a --trunk K --flip` "
            "again",
        ),
        ("run `extract(trunk=)` or `fit(cache=open())`", "run `extract(trunk=)` or `fit(cache=open())`"),
        ("the column `imgId` of `cache.h5`, or `other()`", "the column `imgId` of `cache.h5`, or `other()`"),
    ],
)
def test_parameters_become_options_and_verbs_commands(message, spelled):
    assert spell(message, main.app, main.NAME) == spelled


def test_a_parameter_is_spelled_as_the_command_that_was_run_spells_it():
    assert spell("name a file with `out`", main.app, main.NAME, "predict") == "name a file with --out"
    assert spell("name a file with `out`", main.app, main.NAME, "pack") == "name a file with OUT.h5"
    assert spell('run `predict(out="x")`', main.app, main.NAME, "pack").endswith(" predict --out x`")
    assert spell("empty `folder`", main.app, main.NAME, "demo") == "empty --dir"
    assert spell("empty `folder`", main.app, main.NAME, "report") == "empty --folder"
    assert spell("see `report(folder=True)`", main.app, main.NAME, "explore").endswith(" report --folder`")


@pytest.mark.parametrize(
    ("message", "spelled"),
    [
        ("make one with `fit()`", "make one with `img2prompt-cache fit --cache 'my cache'`"),
        ("`extract(source, flip=True)`", "`img2prompt-cache extract SOURCE --cache 'my cache' --flip`"),
        ('`fit(cache="another")`', "`img2prompt-cache fit --cache another`"),
        ("see `doctor()`", "see `img2prompt-cache doctor`"),
        ("it was not made by `pack()`", "it was not made by `img2prompt-cache pack`"),
        ("files that `predict()` did not write", "files that `img2prompt-cache predict` did not write"),
    ],
)
def test_advice_carries_the_cache_that_was_given(message, spelled):
    assert spell(message, main.app, main.NAME, cache="my cache") == spelled


@pytest.mark.parametrize(
    ("options", "carried"),
    [
        (["--cache", "my cache"], " --cache 'my cache'"),
        (["--cache=a", "--cache=b"], " --cache b"),
        ([], ""),
        (["--cache", "./cache/default/"], ""),
    ],
)
def test_a_command_that_fails_advises_one_for_the_same_cache(options, carried, cli, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cli("info", *options).refused(2, f"make one with `img2prompt-cache extract{carried}`")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("search", " "), "there is nothing to search for"),
        (("watch", "nowhere"), "there is no folder nowhere"),
        (("pack", "all.txt", "--cache", "cache"), "all.txt: the extension must be one of .h5"),
        (("pack", "mine.h5", "--cache", "cache", "--overwrite"), "mine.h5 is there and was not made by"),
        (("pack", "cache/all.h5", "--cache", "cache"), "cache/all.h5 lies among the files of the cache"),
        (("extract", "name="), "'name=' must be a path, or NAME=PATH"),
    ],
)
def test_a_message_begins_with_what_was_given_and_not_with_the_name_of_an_argument(
    arguments, said, cli, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    make_cache(tmp_path / "cache", 8)
    (tmp_path / "mine.h5").write_text("mine")
    assert cli(*arguments).err.startswith(f"error: {said}")


def test_notes_and_plans_are_spelled_too(capsys, monkeypatch):
    monkeypatch.setattr(console, "spelled", partial(spell, app=main.app, program=main.NAME))
    with console.telling() as tell:
        tell(Event("note", message="`id_column` was left out"))
        tell(Event("plan", value="3 rows\nread as table (`format` chooses)"))
    assert capsys.readouterr().err == "--id-column was left out\n3 rows\nread as table (--format chooses)\n"
