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


def spell(message: str, app: typer.Typer, program: str) -> str:
    """Spell a message of the library for whoever uses the command line.

    Parameters
    ----------
    message : str
        Names parameters as `` `top_k` ``, `` `refit=False` `` or `` `head="mlp"` ``, verbs as `` `fit()` ``.
    app : typer.Typer
        Its commands and their parameters are those that are known; other words in backticks stay as they are.
    program : str
        Name of the program.
    """
    arguments, commands = _known(app)

    def option(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if name in OPTIONS:
            spelled = OPTIONS[name]
        elif name not in arguments:
            return found[0]
        else:
            spelled = arguments[name]
        if value == "False":
            return spelled.replace("--", "--no-", 1)
        return spelled if value in (None, "True") else f"{spelled} {value.strip(chr(34))}"

    def command(found: re.Match[str]) -> str:
        return f"`{program} {found[1]}`" if found[1] in commands else found[0]

    return _VERB.sub(command, _PARAMETER.sub(option, message))


@cache
def _known(app: typer.Typer) -> tuple[dict[str, str], frozenset[str]]:
    """How each parameter of a command is spelled, and what the commands are called."""
    spelled, commands = {}, set()
    for registered in app.registered_commands:
        function = registered.callback
        if function is None:
            continue
        commands.add(function.__name__)
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            info = next(iter(getattr(parameter.annotation, "__metadata__", ())), None)
            if isinstance(info, typer.models.ArgumentInfo):
                spelled[parameter.name] = info.metavar or parameter.name.upper()
            else:
                spelled[parameter.name] = f"--{parameter.name.replace('_', '-')}"
    return spelled, frozenset(commands)
