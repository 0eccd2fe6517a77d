"""Tables and cells: text from anywhere made fit for a terminal, a notebook, a data frame or a spreadsheet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any
from unicodedata import category

from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 60
"""Rows that a notebook shows of a long table."""

SHOWN_CHARACTERS = 200
"""Characters that a notebook or a table shows of a long text."""

_CONTROL = ("Cc", "Cs", "Zl", "Zp")
_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def counted(number: int, one: str, many: str, spec: str = "") -> str:
    """Give a number, formatted by `spec`, with the word for one or for several: ``1 image``, ``2 images``."""
    return f"{number:{spec}} {one if number == 1 else many}"


class Records(list[dict[str, Any]]):
    """A list of records with the same keys, shown as a table in notebooks."""

    def to_pandas(self) -> pd.DataFrame:
        """Give a data frame with a row for each record.

        Raises
        ------
        Img2PromptError
            If pandas is not installed.
        """
        return data_frame(self)

    def __repr__(self) -> str:
        names = list(dict.fromkeys(key for record in self for key in record))
        return f"Records({len(self)} × {', '.join(names)})"

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(key for record in self for key in record))
        return html_table(names, [[record.get(name) for name in names] for record in self])


def data_frame(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Give a data frame of records.

    Raises
    ------
    Img2PromptError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise Img2PromptError(
            "a data frame takes pandas, which is not installed; run `pip install pandas`"
        ) from None
    return pd.DataFrame.from_records(list(records))


def html_table(header: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> str:
    """Lay out rows as an HTML table, every text escaped; of a long table the first rows."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:SHOWN_ROWS])
    left = len(rows) - SHOWN_ROWS
    more = f"<p>… and {left} more</p>" if left > 0 else ""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def shorten(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """Cut a text that is longer than `most` characters, and end it with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def printable(text: str) -> str:
    """Escape what would change how a line is shown: control characters, line breaks, bidirectional marks.

    So a name or a prompt cannot send escape sequences to a terminal, forge a line, or show its characters in
    another order than they have.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if category(character) in _CONTROL or character in _BIDIRECTIONAL
        else character
        for character in text
    )


def guard_cell(text: str) -> str:
    """Write an apostrophe before a cell that a spreadsheet would compute as a formula.

    These are texts that begin with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return and are no numbers.
    Texts that look as if they were guarded already get one more, so that `bare_cell` gives back every text.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def bare_cell(cell: str) -> str:
    """Give the text of a cell that `guard_cell` made."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def preview(items: Iterable[object], total: int, most: int = 3) -> str:
    """List the first of many items: ``"a, b, c, … (1,000)"``."""
    shown = [shorten(printable(str(item)), 40) for item, _ in zip(items, range(most), strict=False)]
    return ", ".join(shown) + (f", … ({total:,})" if total > most else "")


def _cell(value: object) -> str:
    if value is None:
        return "<td>–</td>"
    if isinstance(value, float):
        return f'<td style="text-align:right">{value:.4f}</td>'
    return f"<td>{escape(printable(shorten(str(value))))}</td>"
