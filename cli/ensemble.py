"""What ``img2prompt-cache fit`` does for heads that are made of other runs: blend and distil."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from . import console

if TYPE_CHECKING:
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.runs.run import Run

_OWN = {
    "blend": ("head", "cache", "members", "run", "seed", "overwrite", "json"),
    "distil": (
        *("head", "cache", "teacher", "run", "seed", "overwrite", "json", "features", "refit", "settings"),
        *("loss", "optimizer", "lr", "weight_decay", "dropout", "batch_size", "hidden", "epochs"),
        *("max_epochs", "patience"),
    ),
}
"""Options that each takes; all others follow from the runs it is made of."""


def fit_on_runs(
    context: typer.Context,
    cache: Cache,
    *,
    members: str | None,
    teacher: str | None,
    features: tuple[str, ...],
    settings: Mapping[str, Any],
) -> tuple[Path, Run] | None:
    """Fit a blend or a student as the command line says; None where it asks for another head."""
    from img2prompt_cache.errors import UsageError

    head = context.params["head"]
    for option, value, only in (("--members", members, "blend"), ("--teacher", teacher, "distil")):
        if value is not None and head != only:
            raise UsageError(f"{option} goes with --head {only}, not with --head {head}")
    if head not in _OWN or (members is None and "members" in settings):
        return None
    _refuse_others(context, head)
    options = {name: context.params[name] for name in ("seed", "overwrite")}
    if head == "blend":
        from img2prompt_cache.fitting.blend import fit_blend

        return fit_blend(cache, _runs("--members", members or "", cache), context.params["run"], **options)
    from img2prompt_cache.fitting.distil import fit_distil

    named = _runs("--teacher", teacher or "", cache)
    if len(named) != 1:
        raise UsageError("distil learns from one run: --teacher RUN, a blend for instance")
    return fit_distil(
        cache,
        named[0],
        context.params["run"],
        features=features,
        settings=settings,
        refit=context.params["refit"],
        **options,
    )


def _refuse_others(context: typer.Context, head: str) -> None:
    from img2prompt_cache.errors import UsageError

    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in _OWN[head]:
            option = {"settings": "set"}.get(name, name).replace("_", "-")
            raise UsageError(f"--{option} does not go with --head {head}: it follows from the runs named")


def _runs(option: str, text: str, cache: Cache) -> list[Path]:
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.runs.names import resolve_run

    names = [name.strip() for name in text.split(",")] if text else []
    if not all(names):
        raise UsageError(f"{option} {text!r}: write runs with commas between")
    return [resolve_run(name, cache.folder) for name in names]


def values(made: Run) -> dict[str, Any]:
    """What is said of a run's members as JSON values; nothing of a run that has none."""
    found = _members(made)
    return {"members": found} if found else {}


def lines(made: Run) -> list[str]:
    """What is said of the runs that a run is made of, after its own line."""
    if "plain" in made.metrics:
        return [
            f"  taught by {made.settings['teacher']}, cosine {made.metrics['teacher']:.4f} when fitted on "
            f"the same rows; the same mlp taught by none: {made.metrics['plain']:.4f}"
        ]
    rows = [[each["run"], each["weight"], each["cosine"], each["without"]] for each in _members(made)]
    return [console.table(["member", "weight", "cosine", "blend without it"], rows)] if rows else []


def _members(made: Run) -> list[dict[str, Any]]:
    if made.head != "blend":
        return []
    pairs = zip(made.settings["members"], made.settings["weights"], strict=True)
    return [
        {"run": member["run"], "weight": weight, "cosine": member["cosine"], "without": member["without"]}
        for member, weight in pairs
        if "run" in member
    ]
