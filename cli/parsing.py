"""Values of options: several names, numbers or settings in one text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from img2prompt_cache.errors import UsageError


def read_names(option: str, text: str | None) -> tuple[str, ...]:
    """Read names with commas between; none where the option is absent."""
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(f"{option} {text!r}: write names with commas between, or leave it out")
    return names


def read_settings(pairs: list[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Add settings given as ``NAME=VALUE`` to those with an option; a value that is no JSON is text."""
    found = dict(given)
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise UsageError(f"--set {pair!r}: write NAME=VALUE, e.g. --set lr=0.001")
        if name in found:
            raise UsageError(f"--set {pair!r}: {name} is given twice")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def read_replacements(pairs: list[str]) -> dict[str, str]:
    """Read texts to be replaced, given as ``OLD=NEW``."""
    for pair in pairs:
        old, equals, _ = pair.partition("=")
        if not equals or not old:
            raise UsageError(
                f"--replace {pair!r}: write OLD=NEW, e.g. --replace /home/me/models=/data/models"
            )
    return dict(pair.split("=", 1) for pair in pairs)


def read_numbers(name: str, text: str) -> float | list[float]:
    """Read one number, or one for each backbone."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise UsageError(f"--{name} {text!r}: write a number, or one for each backbone with commas between")
    return values if len(values) > 1 else values[0]


def read_widths(name: str, text: str) -> tuple[int, ...]:
    """Read the widths of layers; 0 stands for none."""
    try:
        widths = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--{name} {text!r}: write whole numbers with commas between, e.g. 1024,512"
        ) from None
    return tuple(width for width in widths if width)
