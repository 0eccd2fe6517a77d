from __future__ import annotations

from functools import partial

import pytest

from img2prompt_cache.cli import console, main
from img2prompt_cache.cli.spelling import spell
from img2prompt_cache.progress import Event


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


def test_notes_and_plans_are_spelled_too(capsys, monkeypatch):
    monkeypatch.setattr(console, "spelled", partial(spell, app=main.app, program=main.NAME))
    with console.telling() as tell:
        tell(Event("note", message="`id_column` was left out"))
        tell(Event("plan", value="3 rows\nread as table (`format` chooses)"))
    assert capsys.readouterr().err == "--id-column was left out\n3 rows\nread as table (--format chooses)\n"
