"""The front door has every option of the command line, and messages name parameters, never flags."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import img2prompt_cache as ipc
from img2prompt_cache.cli import main
from img2prompt_cache.cli.spelling import OPTIONS
from synthetic import make_cache

LIBRARY = Path(__file__).parents[1] / "img2prompt_cache"
COMMANDS = {command.callback.__name__: command.callback for command in main.app.registered_commands}
ARGUMENTS = {"paths": "images", "runs": "runs", "source": "source"}
"""What the arguments of commands are called in Python."""
OF_THE_COMMAND_LINE = {"json", "context", "show_settings", "dry_run"}
HEAD_SETTINGS = (
    "head settings have options of their own for the most common ones; in Python they go into `settings`"
)


def options(command: str) -> set[str]:
    """The parameters of a command, as the library calls them."""
    found = set()
    spelled = {option.removeprefix("--"): name for name, option in OPTIONS.items()}
    for parameter in inspect.signature(COMMANDS[command], eval_str=True).parameters.values():
        name = parameter.name
        info = next(iter(getattr(parameter.annotation, "__metadata__", ())), None)
        panel = getattr(info, "rich_help_panel", None)
        if name in OF_THE_COMMAND_LINE or (command == "fit" and panel and "settings" in panel.lower()):
            continue
        found.add(ARGUMENTS.get(name, spelled.get(name.replace("_", "-"), name)))
    return found


@pytest.mark.parametrize(
    "verb",
    [
        "extract",
        "fit",
        "tune",
        "predict",
        "bundle",
        "card",
        "push",
        "compare",
        "search",
        "top",
        "dedup",
        "watch",
    ],
)
def test_every_option_has_its_parameter_under_the_same_name(verb):
    parameters = {*inspect.signature(getattr(ipc, verb)).parameters}
    if verb == "fit":  # several runs are another verb, so that `fit` gives a Run
        parameters |= {*inspect.signature(ipc.fit_seeds).parameters}
    assert options(verb) <= parameters


@pytest.mark.parametrize(
    "verb",
    ["extract", "fit", "fit_seeds", "tune", "predict", "bundle", "card", "push", "compare", "search", "top"],
)
def test_every_parameter_is_documented_and_there_is_an_example(verb):
    function = getattr(ipc, verb)
    text = inspect.getdoc(function)
    section = text.partition("Parameters\n----------\n")[2].partition("\nReturns\n")[0]
    lines = re.findall(r"^\**(\w+(?:, \w+)*)(?: :|$)", section, re.MULTILINE)
    named = {name for line in lines for name in line.split(", ")}
    assert {*inspect.signature(function).parameters} <= named
    assert "Returns\n-------" in text
    assert "Raises\n------" in text
    assert "Examples\n--------\n>>> " in text


def described(function: object) -> dict[str, str]:
    """What the docstring of a function says of each parameter, without regard to where its lines end."""
    section = (inspect.getdoc(function) or "").partition("Parameters\n----------\n")[2]
    parts = re.split(r"^(\w+) :", section.partition("\nReturns\n")[0], flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def test_a_run_predicts_with_the_parameters_of_the_verb_and_says_the_same_of_them():
    verb, method = (inspect.signature(each).parameters for each in (ipc.predict, ipc.Run.predict))
    assert {*verb} - {*method} == {"run", "zero_shot"}
    assert {name: each.default for name, each in method.items() if name != "self"}.items() <= {
        name: each.default for name, each in verb.items()
    }.items()
    one, other = described(ipc.predict), described(ipc.Run.predict)
    own = {"images", "cache"}
    assert {name: one[name] for name in {*other} - own} == {name: other[name] for name in {*other} - own}


def texts(path: Path) -> list[tuple[int, str]]:
    """The strings of a module that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OTHER_PROGRAMS = {
    *("models/weights/wheels.py", "environment.py", "sources/comfyui/edits.py"),
    "exporting/card_usage.py",
}
"""They run pip, whose options are its own, read a syntax of prompts that looks like an option, or write down
commands for somebody else."""


def test_no_message_of_the_library_names_a_flag():
    found = [
        f"{path.relative_to(LIBRARY)}:{line}: {text}"
        for path in LIBRARY.rglob("*.py")
        if path.relative_to(LIBRARY).as_posix() not in OTHER_PROGRAMS
        for line, text in texts(path)
        if FLAG.search(text)
    ]
    assert not found, "\n".join(found)


ERRORS = ("UsageError", "Img2PromptError")
OF_PYTHON_ALONE = {"images"}
"""Named in messages on arrays in place of images, which the command line cannot give."""


def test_parameters_that_messages_name_are_spelled_as_options():
    """A word in backticks that no command has would reach the user as it is."""
    known = {name for function in COMMANDS.values() for name in inspect.signature(function).parameters}
    found = []
    for path in LIBRARY.rglob("*.py"):
        if "heads" in path.parts:
            continue  # settings and arguments of estimators
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ERRORS:
                constants = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
                said = "".join(value for value in constants if isinstance(value, str))
                names = re.findall(r"`([a-z_]+)(?:=[^`]*)?`", said)
                strange = {*names} - known - {*OPTIONS} - OF_PYTHON_ALONE
                found += [f"{path.relative_to(LIBRARY)}:{node.lineno}: {name}" for name in strange]
    assert not found, "\n".join(found)


def test_arguments_of_a_wrong_type_are_told_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = ipc.Cache(make_cache(tmp_path / "cache"))
    for call, parameter in (
        (lambda: ipc.fit(cache, ipc.make_head("ridge")), "head"),
        (lambda: ipc.fit(cache, "rigde"), "head"),
        (lambda: ipc.fit(cache, "mean", encoder="x"), "encoder"),
        (lambda: ipc.fit(cache, "mean", features="x"), "features"),
        (lambda: ipc.tune(cache, "knn", trials=0), "trials"),
        (lambda: ipc.extract(cache), "source"),
        (lambda: ipc.predict(cache), "run"),
    ):
        with pytest.raises(ipc.UsageError) as caught:
            call()
        assert caught.value.parameter == parameter
    with pytest.raises(ipc.UsageError, match="no cache in"):
        ipc.compare("nope")
