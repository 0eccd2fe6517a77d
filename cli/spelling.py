"""The words of the library spelled as the command line's: parameters as options, verbs as commands."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from functools import cache

import typer

OPTIONS = {"backbones": "--backbone"}
"""Parameters that are none of the command's function, and the options that set them."""

_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`\n]+))?`")
_MAKER = ("by ", "that ")
"""What stands before a command that made something, and is not advised: ``was not made by `pack()` ``."""
_CALL = re.compile(r"`((?:[a-z_]+\.)?[a-z_]+\([^`\n]*\))`")


def spell(message: str, app: typer.Typer, program: str, command: str = "", cache: str = "") -> str:
    """Spell a message of the library for whoever uses the command line.

    Parameters
    ----------
    message : str
        Names parameters as `` `top_k` ``, `` `refit=False` `` or `` `head="mlp"` ``, and verbs as
        `` `fit()` `` or `` `extract(cache="cache/other", trunk=2)` ``.
    app : typer.Typer
        Its commands and their parameters are those that are known; other words in backticks stay as they are.
    program : str
        Name of the program.
    command : str
        The command that was run: where several have a parameter, it is spelled as this one does.
    cache : str
        The cache that it was given, if it is another than the default one: commands that are advised and take
        one are given it as well.
    """
    known = _known(app)
    every = {name: spelled for each in known.values() for name, spelled in each.items()}
    options = {**OPTIONS, **every, **known.get(command, {})}

    def parameter(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        return _option(options[name], value and value.strip('"')) if name in options else found[0]

    def call(found: re.Match[str]) -> str:
        parsed = _parse(found[1])
        if parsed is None or parsed[0] not in known:
            return found[0]
        verb, arguments, keywords = parsed
        own = {**OPTIONS, **every, **known[verb]}
        advised = not found.string[: found.start()].endswith(_MAKER)
        if cache and advised and "cache" in known[verb] and "cache" not in dict(keywords):
            keywords = [("cache", shlex.quote(cache)), *keywords]
        words = [_option(own.get(name, f"--{name}"), value) for name, value in keywords]
        return f"`{' '.join([program, verb, *map(str.upper, arguments), *words])}`"

    return _CALL.sub(call, _PARAMETER.sub(parameter, message))


def _option(spelled: str, value: str | None) -> str:
    if value == "False":
        return spelled.replace("--", "--no-", 1)
    return spelled if value in (None, "True") else f"{spelled} {value}"


def _parse(text: str) -> tuple[str, list[str], list[tuple[str, str]]] | None:
    """Split a call such as ``extract(source, trunk=2)`` into its verb, arguments and keywords.

    A value is a literal, or a name that stands for whatever the user wants there; None for anything else.
    """
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None
    if not isinstance(call, ast.Call):
        return None
    verb = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    words = []
    for value in (*call.args, *(keyword.value for keyword in call.keywords)):
        if isinstance(value, ast.Name):
            words.append(value.id)
        elif isinstance(value, ast.Constant):
            words.append(shlex.quote(str(value.value)))
        else:
            return None
    count = len(call.args)
    names = [str(keyword.arg) for keyword in call.keywords]
    return verb, words[:count], list(zip(names, words[count:], strict=True))


@cache
def _known(app: typer.Typer) -> dict[str, dict[str, str]]:
    """For each command, how its parameters are spelled."""
    known: dict[str, dict[str, str]] = {}
    for registered in app.registered_commands:
        function = registered.callback
        if function is None:
            continue
        spelled = known.setdefault(function.__name__, {})
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            info = next(iter(getattr(parameter.annotation, "__metadata__", ())), None)
            if isinstance(info, typer.models.ArgumentInfo):
                spelled[parameter.name] = info.metavar or parameter.name.upper()
            else:
                # In an annotation, typer takes the first name of an option for its default.
                given = (getattr(info, "default", None), *(getattr(info, "param_decls", None) or ()))
                names = [name for name in given if isinstance(name, str) and name.startswith("--")]
                plain = f"--{parameter.name.replace('_', '-')}"
                spelled[parameter.name] = names[0].partition("/")[0] if names else plain
    return known
