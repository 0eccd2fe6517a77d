"""Tables: records that a person reads in a notebook, and pandas where it is installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 60
"""Rows that a notebook shows of a long table."""

SHOWN_CHARACTERS = 200
"""Characters that a notebook shows of a long text."""


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


def preview(items: Iterable[object], total: int, most: int = 3) -> str:
    """List the first of many items: ``"a, b, c, … (1,000)"``."""
    shown = [shorten(str(item), 40) for item, _ in zip(items, range(most), strict=False)]
    return ", ".join(shown) + (f", … ({total:,})" if total > most else "")


def _cell(value: object) -> str:
    if value is None:
        return "<td>–</td>"
    if isinstance(value, float):
        return f'<td style="text-align:right">{value:.4f}</td>'
    return f"<td>{escape(shorten(str(value)))}</td>"
