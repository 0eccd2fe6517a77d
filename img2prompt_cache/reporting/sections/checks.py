"""The section on checks: what deserves a look, the gravest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from img2prompt_cache.progress import Callback, task
from img2prompt_cache.reporting.checks.base import SEVERITIES, Checked, carry_out
from img2prompt_cache.reporting.checks.registry import CHECKS

if TYPE_CHECKING:
    from img2prompt_cache.reporting.material import Material

NAME = "checks"
TITLE = "Checks"


@dataclass(frozen=True, slots=True)
class ChecksSection:
    """The outcomes of all checks, the gravest first; and how many there are of each severity."""

    checks: list[Checked]
    counts: dict[str, int]

    @property
    def failed(self) -> bool:
        """Whether any check found a problem or a caution."""
        return bool(self.counts["problem"] or self.counts["caution"])


def gather(material: Material, tell: Callback) -> ChecksSection:
    """Carry out all checks, or those that need no run."""
    material.pictures.load(material.measured, tell)
    done = []
    checks = [check for check in CHECKS if not (check.of_runs and material.without_runs)]
    with task(tell, "checks", len(checks)) as advance:
        for check in checks:
            done.append(carry_out(check, material))
            advance(1)
    order = [*SEVERITIES, "passed", "not checked"]
    done.sort(key=lambda each: (order.index(each.severity), each.number))
    return ChecksSection(done, {name: sum(each.severity == name for each in done) for name in order})
