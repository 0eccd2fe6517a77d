"""Spaces: what a search over the settings of a head goes through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.heads import HEADS, make_head, settings_of, space_of
from img2prompt_cache.heads.space import Choices, Range, Space, from_json
from img2prompt_cache.heads.student_project import STUDENT_SPACE

STUDENT_PROJECT: Space = {setting: Choices(values) for setting, values in STUDENT_SPACE.items()}
"""The random search of the student project."""

PRESETS = {"seed": STUDENT_PROJECT}


def find_space(head: str, space: str | Path | Mapping[str, Any] | None = None) -> Space:
    """Find the space to search for a head.

    Parameters
    ----------
    head : str
        Name of the head.
    space : str, path or mapping, optional
        A key of `PRESETS`; a JSON file, see `from_json`; or a mapping of settings to ranges, as objects or as
        in such a file. The head's own space if absent.

    Raises
    ------
    UsageError
        If the head has none, the file cannot be read, or the head does not take a setting or a value of it.
    """
    own = space_of(head)
    if not settings_of(head) or (space is None and not own):
        searched = ", ".join(each for each in HEADS if space_of(each))
        raise UsageError(f"head {head!r} has nothing to search; these have: {searched}", parameter="head")
    found = own if space is None else _find(space)
    if "seed" in found:
        raise UsageError(
            "a search space has no seed: `seed` gives it, of the split and the head alike", parameter="space"
        )
    for setting, each in found.items():
        if setting not in settings_of(head):
            raise unknown("setting", setting, settings_of(head), where=f"of head {head!r}", parameter="space")
        for value in _ends(each):
            make_head(head, **{setting: value})
    return found


def space_name(space: str | Path | Mapping[str, Any] | None) -> str:
    """Give a short name of a space, for the name of a study's file; empty for a head's own."""
    if space is None:
        return ""
    return "custom" if isinstance(space, Mapping) else Path(space).stem


def _find(space: str | Path | Mapping[str, Any]) -> Space:
    if not isinstance(space, Mapping):
        return PRESETS[str(space)] if str(space) in PRESETS else _read(Path(space))
    given = {str(setting): each for setting, each in space.items()}
    ranges = {setting: each for setting, each in given.items() if isinstance(each, Range)}
    written = {setting: each for setting, each in given.items() if setting not in ranges}
    try:
        data = json.loads(json.dumps(written))  # tuples as lists
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"`space` takes values as in JSON: {error}", parameter="space") from None
    read = _from_json(data, "`space`") if written or not ranges else {}
    return {setting: ranges[setting] if setting in ranges else read[setting] for setting in given}


def _ends(each: Range) -> tuple[object, ...]:
    return each.values if isinstance(each, Choices) else (each.low, each.high)


def _read(file: Path) -> Space:
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text)
    except FileNotFoundError:
        raise UsageError(
            f"`space`: there is no file {file}, and no preset but {', '.join(PRESETS)}", parameter="space"
        ) from None
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"`space`: {file} cannot be read: {why}", parameter="space") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"`space`: {file} is no JSON: {error}", parameter="space") from None
    return _from_json(data, f"`space` {file}")


def _from_json(data: object, where: str) -> Space:
    try:
        return from_json(data, where)
    except UsageError as error:
        raise UsageError(str(error), parameter="space") from None
