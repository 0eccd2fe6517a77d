"""A leaderboard as text for a paper or a spreadsheet: Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from img2prompt_cache.errors import unknown
from img2prompt_cache.tables import guard_cell, printable

FORMATS = ("md", "csv", "latex")
SIGNIFICANT = 0.05
"""A difference with an adjusted p below this has a star."""

LATEX_FIRST = "% A table by `img2prompt-cache compare`; it needs \\usepackage{booktabs}."
MARKDOWN_FIRST = "| run | head |"
CSV_FIRST = "run,head,features,runs,"
"""How the file of each format begins."""

_ESCAPED = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{each: f"\\{each}" for each in "&%$#_{}"}, "±": r"$\pm$", "–": "--", "−": "$-$", "*": "$^{*}$",
}  # fmt: skip


def table_text(records: Sequence[dict[str, Any]], notes: Sequence[str], format: str) -> str:
    """Lay out the records of a leaderboard, with sentences on how to read it; see `Leaderboard.table`.

    Raises
    ------
    UsageError
        If there is no such format.
    """
    if format not in FORMATS:
        raise unknown("`format`", format, FORMATS, parameter="format")
    if format == "csv":
        return _csv(records)
    rows = [[_shown(cell) for cell in row] for row in _columns(records)]
    return (_markdown if format == "md" else _latex)(rows, notes)


def _columns(records: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """Give the header and a row for each record; a column that is empty in all is left out."""
    made = [
        {
            "run": each["run"],
            "head": each["head"],
            "features": each["features"],
            "head seeds": each["head_seeds"] if _several(records, "head_seeds") else None,
            "split seeds": each["split_seeds"] if _several(records, "split_seeds") else None,
            "cosine": _with_interval(each["cosine"], each["ci95_low"], each["ci95_high"]),
            "sd, head seeds": each["sd_head_seeds"],
            "sd, split seeds": each["sd_split_seeds"],
            "cosine of means": each["cosine_mean_prompt"],
            "difference": _difference(each),
            "p": _p(each.get("difference_p")),
            "floor": each["floor"],
            "n": each["n"],
            "groups": each["groups"],
            "effective groups": each["effective_groups"] and f"{each['effective_groups']:.1f}",
        }
        for each in records
    ]
    names = [name for name in made[0] if any(row[name] is not None for row in made)]
    return [names, *([row[name] for name in names] for row in made)]


def _several(records: Sequence[dict[str, Any]], name: str) -> bool:
    return any(not each[name].isdecimal() and each[name] for each in records)


def _with_interval(value: float, low: float | None, high: float | None, sign: str = "") -> str:
    half = "" if low is None or high is None else f" ± {(high - low) / 2:.4f}"
    return f"{value:{sign}.4f}{half}"


def _difference(record: dict[str, Any]) -> str | None:
    value, p = record.get("difference"), record.get("difference_p")
    if value is None:
        return None
    star = "*" if p is not None and p < SIGNIFICANT else ""
    return _with_interval(value, record["difference_low"], record["difference_high"], "+") + star


def _p(p: float | None) -> str | None:
    return None if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _shown(cell: object) -> str:
    if cell is None:
        return "–"
    return f"{cell:.4f}" if isinstance(cell, float) else printable(str(cell))


def _markdown(rows: list[list[str]], notes: Sequence[str]) -> str:
    cells = [[re.sub(r"([\\|*_`<\[])", r"\\\1", cell) for cell in row] for row in rows]
    ruler = ["---", "---", "---", *["---:"] * (len(rows[0]) - 3)]
    lines = [f"| {' | '.join(row)} |" for row in (cells[0], ruler, *cells[1:])]
    return "\n".join([*lines, "", " ".join(_escaped_note(note) for note in notes), ""])


def _escaped_note(text: str) -> str:
    return re.sub(r"([\\|*_`\[])", r"\\\1", printable(text))


def _latex(rows: list[list[str]], notes: Sequence[str]) -> str:
    cells = [[_tex(cell) for cell in row] for row in rows]
    lines = [f"{' & '.join(row)} \\\\" for row in cells]
    return "\n".join(
        [
            LATEX_FIRST,
            *(f"% {printable(note)}" for note in notes),
            f"\\begin{{tabular}}{{lll{'r' * (len(rows[0]) - 3)}}}",
            "\\toprule",
            lines[0],
            "\\midrule",
            *lines[1:],
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )


def _tex(text: str) -> str:
    return "".join(_ESCAPED.get(character, character) for character in text).replace("<", "$<$")


def _csv(records: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(records[0])
    for record in records:
        writer.writerow([guard_cell(cell) if isinstance(cell, str) else cell for cell in record.values()])
    return text.getvalue()
