"""Sections of a report: each gathers its data, and a template of its name shows them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from img2prompt_cache.progress import Callback
    from img2prompt_cache.reporting.material import Material

SECTIONS = (
    "reporting.sections.checks",
    "reporting.sections.data",
    "reporting.sections.map",
    "reporting.sections.heads",
    "reporting.sections.cases",
)
"""Modules of the sections, in the order of the page."""


class Section(Protocol):
    """What a module of a section has."""

    NAME: str
    """Of its template and its place in the page."""
    TITLE: str

    def gather(self, material: Material, tell: Callback) -> Any:
        """Make the data of the section, a dataclass of plain values; None where there is nothing to tell.

        Its attribute `shown`, if it has one, lists the rows of which it shows pictures.
        """


def load_sections(names: tuple[str, ...] = ()) -> list[Section]:
    """Import the sections of these names, or all, in the order of the page."""
    found = [cast(Section, import_module(f"img2prompt_cache.{module}")) for module in SECTIONS]
    return [section for section in found if not names or section.NAME in names]
