"""JSON that anybody may have written, checked against the types that a dataclass declares."""

from __future__ import annotations

import json
import math
import types
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from img2prompt_cache.errors import check

DEPTH = 64
"""How deeply values may be nested: Python's own functions end in an error somewhere beyond."""

_LARGEST = 1 << 63
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}

T = TypeVar("T")


def parse_json(text: str) -> Any:
    """Parse JSON whose numbers are finite, whose texts can be written to a file, and which is not too deep.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    try:
        value = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"values are nested more than {DEPTH} deep") from None
    _require_usable(value)
    return value


def read_as(kind: type[T], value: Any, where: str = "") -> T:
    """Check a value against a type, and give it as that type.

    Parameters
    ----------
    kind : type
        A dataclass or what its fields are declared as: `str`, `int`, `float`, `bool`, `None`, `Any`, unions,
        `Literal` texts, ``list[...]``, ``tuple[..., ...]``, ``dict[str, ...]``, a `TypedDict` or another
        dataclass.
    value
        From `parse_json`. Whole numbers count as `float`, and true and false are no numbers.
    where : str
        The name of the value in messages.

    Returns
    -------
    object
        A dataclass without the keys that it does not know, since a later version may have added them; a
        `TypedDict` with them.

    Raises
    ------
    ValueError
        Saying what is missing, or which value is not what it should be.
    """
    return cast(T, _read(kind, value, where))


def _read(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _read(next(each for each in inner if each is not type(None)), value, where)
    if is_dataclass(kind) or is_typeddict(kind):
        return _read_fields(kind, value, where)
    if origin is dict:
        check(isinstance(value, dict), f"{where} is not an object")
        return {name: _read(inner[1], each, _join(where, name)) for name, each in value.items()}
    if origin in (list, tuple):
        check(isinstance(value, list), f"{where} is not a list")
        return origin(_read(inner[0], each, f"{where}[{row}]") for row, each in enumerate(value))
    if origin is Literal:
        check(value in inner, f"{where} is not {' or '.join(map(repr, inner))}")
        return value
    numeric = kind is float and isinstance(value, int) and not isinstance(value, bool)
    check(numeric or type(value) is kind, f"{where} is not {_NAMES[kind]}")
    return value


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    check(isinstance(value, dict), f"{where or 'it'} is not an object")
    known = _hints(kind)
    found = {
        name: _read(known[name], each, _join(where, name)) for name, each in value.items() if name in known
    }
    if is_typeddict(kind):
        return {**value, **found}
    for each in fields(kind):
        needed = each.default is MISSING and each.default_factory is MISSING
        check(not needed or each.name in found, f"{_join(where, each.name)} is missing")
    return kind(**found)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _require_usable(value: Any) -> None:
    """Check every value of a document, level by level rather than by recursion."""
    level = [value]
    for _ in range(DEPTH):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below += [*each, *each.values()]
            elif isinstance(each, list):
                below += each
            elif isinstance(each, str):
                check(
                    "\0" not in each and _can_be_written(each),
                    f"{each[:40]!r} is no text that can be written",
                )
            elif isinstance(each, float):
                check(math.isfinite(each), f"{each} is no number")
            elif isinstance(each, int):
                check(-_LARGEST <= each < _LARGEST, "a number has more than 64 bits")
        if not below:
            return
        level = below
    raise ValueError(f"values are nested more than {DEPTH} deep")


def _can_be_written(text: str) -> bool:
    """Whether a text is Unicode, but for bytes of a file name that are not."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
