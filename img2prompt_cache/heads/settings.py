"""Settings of a head: each is declared once, as a field of the head's class."""

from __future__ import annotations

import inspect
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import EllipsisType, NoneType
from typing import Any, get_args, get_origin, get_type_hints

from img2prompt_cache.heads.space import Range

DEVICE = 'Where it computes: "cpu", "cuda", "cuda:N", or "auto" for the first GPU, else the CPU.'
"""Describes `device`, which every head that computes with torch takes; runs do not record it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a head.

    Attributes
    ----------
    name : str
    kind : object
        Its type, as it is annotated.
    default : object
    description : str
        One line.
    search : Range or None
        The values worth searching, if any.
    recorded : bool
        Whether it decides what is computed, so that a run records it; not so for where it is computed.
    """

    name: str
    kind: Any
    default: Any
    description: str
    search: Range | None = None
    recorded: bool = True

    @property
    def type(self) -> str:
        """Its type in words: ``"float or list of float or None"``."""
        return type_name(self.kind)

    def accepts(self, value: object) -> bool:
        """Whether a value that was read from JSON is of its type: a number is no text, true is no number."""
        return _is_a(value, self.kind)


def setting(
    description: str | None = None,
    *,
    default: Any,
    search: Range | EllipsisType | None = ...,
    recorded: bool = True,
) -> Any:
    """Declare a setting as a field of a head's class.

    A subclass may give an inherited setting another default, as ``lr: float = 1e-5``. Its description and the
    values worth searching stay, unless the subclass declares others.

    Parameters
    ----------
    description : str, optional
        One line, for the documentation and the command line.
    default : object
    search : Range or None, optional
        The values worth searching; None for none.
    recorded : bool
        See `Setting`.
    """
    described = {} if description is None else {"description": description, "recorded": recorded}
    searched = {} if isinstance(search, EllipsisType) else {"search": search}
    return field(default=default, metadata=described | searched)


def settings_declared(head: type[Any]) -> dict[str, Setting]:
    """List the settings of a head's class, its own and inherited ones, in the order of its constructor."""
    kinds = get_type_hints(head)
    return {
        each.name: Setting(each.name, kinds[each.name], each.default, **_declared(head, each.name))
        for each in fields(head)
    }


def make_constructor(head: type[Any]) -> None:
    """Make a constructor of the settings that a head's class declares, and document them.

    Raises
    ------
    TypeError
        If one has no description. What is annotated in the body of the class is a setting, unless it is a
        `ClassVar`; a fitted value is annotated where it is assigned.
    """
    dataclass(eq=False, repr=False)(head)
    for each in fields(head):
        if "description" not in _declared(head, each.name):
            raise TypeError(
                f"{head.__name__}.{each.name} is no declared setting; write setting(description, …)"
            )
    if fields(head) and head.__doc__:
        entries = [
            f"{each.name} : {each.type}, default {each.default!r}\n    {each.description}"
            for each in settings_declared(head).values()
        ]
        head.__doc__ = "\n".join([inspect.cleandoc(head.__doc__), "", "Parameters", "-" * 10, *entries])


def type_name(kind: Any) -> str:
    """Name a type in words."""
    origin = get_origin(kind)
    if origin is Sequence:
        return f"list of {type_name(get_args(kind)[0])}"
    if origin is Mapping:
        return "dict"
    if origin is not None:
        return " or ".join(map(type_name, get_args(kind)))
    return "None" if kind is NoneType else str(kind.__name__)


def _is_a(value: object, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is Sequence:
        (item,) = get_args(kind)
        return isinstance(value, list | tuple) and all(_is_a(each, item) for each in value)
    if origin is Mapping:
        return isinstance(value, dict)
    if origin is not None:
        return any(_is_a(value, each) for each in get_args(kind))
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _declared(head: type[Any], name: str) -> Mapping[str, Any]:
    """What a class says of a setting, and where it is silent, the nearest base that does."""
    known = [base.__dict__.get("__dataclass_fields__", {}) for base in head.__mro__]
    return ChainMap(*[dict(each[name].metadata) for each in known if name in each])
