"""Spaces: what a search over the settings of a head goes through."""

from __future__ import annotations

import json
from pathlib import Path

from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.heads import HEADS, make_head, settings_of, space_of
from img2prompt_cache.heads.space import Choices, Range, Space, from_json
from img2prompt_cache.heads.student_project import STUDENT_SPACE

STUDENT_PROJECT: Space = {setting: Choices(values) for setting, values in STUDENT_SPACE.items()}
"""The random search of the student project."""

PRESETS = {"seed": STUDENT_PROJECT}


def find_space(head: str, name: str | None = None) -> Space:
    """Find the space to search for a head.

    Parameters
    ----------
    head : str
        Name of the head.
    name : str, optional
        A key of `PRESETS`, or a JSON file, see `ranges.from_json`. The head's own space if absent.

    Raises
    ------
    UsageError
        If the head has none, the file cannot be read, or the head does not take a setting or a value of it.
    """
    own = space_of(head)
    if not settings_of(head) or (name is None and not own):
        searched = ", ".join(each for each in HEADS if space_of(each))
        raise UsageError(f"head {head!r} has nothing to search; these have: {searched}")
    space = own if name is None else PRESETS[name] if name in PRESETS else _read(Path(name))
    if "seed" in space:
        raise UsageError("a search space has no seed: --seed gives it, of the split and the head alike")
    for setting, each in space.items():
        if setting not in settings_of(head):
            raise unknown(f"setting of head {head!r}", setting, settings_of(head))
        for value in _ends(each):
            make_head(head, **{setting: value})
    return space


def _ends(each: Range) -> tuple[object, ...]:
    return each.values if isinstance(each, Choices) else (each.low, each.high)


def _read(file: Path) -> Space:
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text)
    except FileNotFoundError:
        raise UsageError(
            f"--space {file}: there is no such file, and no preset but {', '.join(PRESETS)}"
        ) from None
    except OSError as error:
        raise UsageError(f"--space {file} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--space {file} is no JSON: {error}") from None
    return from_json(data, f"--space {file}")
