"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from img2prompt_cache.reporting.damage import DATA_ERRORS, told

if TYPE_CHECKING:
    from img2prompt_cache.reporting.material import Material

Severity: TypeAlias = Literal["problem", "caution", "remark"]
SEVERITIES: tuple[Severity, ...] = ("problem", "caution", "remark")
"""A problem makes results wrong or worse than they need be; a caution makes them less sure than they look; a
remark is worth knowing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check found: how grave it is, what it is, with figures, and what to do."""

    severity: Severity
    text: str
    advice: str


class NotCheckedError(Exception):
    """What a check needs is not there; says what."""


Examine: TypeAlias = "Callable[[Material], Iterable[Finding]]"
"""Gives what it finds; raises `NotCheckedError` where it cannot tell."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check.

    Attributes
    ----------
    number : str
        ``"R01"``: it never changes, and its chapter in ``docs/report.md`` begins with it.
    title : str
    examine : callable
    of_runs : bool
        Whether it looks at runs, so that there is nothing to look at before one is fitted.
    """

    number: str
    title: str
    examine: Examine
    of_runs: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of a check: what it found, or why it could not tell."""

    number: str
    title: str
    findings: list[Finding]
    not_checked: str = ""

    @property
    def severity(self) -> str:
        """The gravest of its findings, ``"passed"``, or ``"not checked"``."""
        found = {finding.severity for finding in self.findings}
        gravest = next((severity for severity in SEVERITIES if severity in found), None)
        return gravest or ("not checked" if self.not_checked else "passed")


def carry_out(check: Check, material: Material) -> Checked:
    """Carry out a check."""
    try:
        return Checked(check.number, check.title, [*check.examine(material)])
    except (NotCheckedError, *DATA_ERRORS) as error:
        return Checked(check.number, check.title, [], told(error))
