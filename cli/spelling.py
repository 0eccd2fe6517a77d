"""The words of the library spelled as the command line's: parameters as options, verbs as commands."""

from __future__ import annotations

import inspect
import re
from functools import cache

import typer

OPTIONS = {"backbones": "--backbone", "settings": "--set"}
"""Parameters whose option has another name."""

_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`\n]+))?`")
_VERB = re.compile(r"`(?:[a-z_]+\.)?([a-z_]+)\(\)`")


def spell(message: str, app: typer.Typer, program: str, command: str = "") -> str:
    """Spell a message of the library for whoever uses the command line.

    Parameters
    ----------
    message : str
        Names parameters as `` `top_k` ``, `` `refit=False` `` or `` `head="mlp"` ``, verbs as `` `fit()` ``.
    app : typer.Typer
        Its commands and their parameters are those that are known; other words in backticks stay as they are.
    program : str
        Name of the program.
    command : str
        The command that was run: where several have a parameter, it is spelled as this one does.
    """
    known = _known(app)
    every = {name: spelled for each in known.values() for name, spelled in each.items()}
    options = {**every, **known.get(command, {}), **OPTIONS}

    def option(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if name not in options:
            return found[0]
        spelled = options[name]
        if value == "False":
            return spelled.replace("--", "--no-", 1)
        return spelled if value in (None, "True") else f"{spelled} {value.strip(chr(34))}"

    def verb(found: re.Match[str]) -> str:
        return f"`{program} {found[1]}`" if found[1] in known else found[0]

    return _VERB.sub(verb, _PARAMETER.sub(option, message))


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
                spelled[parameter.name] = f"--{parameter.name.replace('_', '-')}"
    return known
