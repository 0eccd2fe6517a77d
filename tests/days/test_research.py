"""A researcher's day: several seeds, a table for a paper, a head of one's own."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_a_table_of_several_seeds_and_a_head_on_arrays(begin):
    day = begin("Research")
    day.follow()
    table = (day.folder / "table.tex").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert [row.split(" & ")[0] for row in sorted(rows[1:])] == ["line", "net"]
    assert all(" $\\pm$ " in row for row in rows[1:])
