"""The page of a report: templates filled in, with style and script inside, and no request to any network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from img2prompt_cache.reporting.figures import draw, missing
from img2prompt_cache.reporting.pictures import EMBEDDED_BYTES, Picture, Pictures
from img2prompt_cache.reporting.sprites import Sprite, make_sprite
from img2prompt_cache.tables import printable, shorten

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from img2prompt_cache.reporting.charts import Chart

LONGEST = 2000
"""Characters of a text that a page shows."""

MARK = '<!doctype html>\n<html lang="en" data-made-by="img2prompt-cache report"'
"""How every page begins; nothing but such a page is replaced."""


class Page:
    """A page that is being filled in.

    Parameters
    ----------
    pictures : Pictures
        Where the images are from.
    most_bytes : int
        Most bytes of the thumbnails, as base64.
    link : callable, optional
        Takes a row and its picture, and gives the address of a file to link to, instead of embedding it.

    Attributes
    ----------
    bytes : int
        Of the thumbnails that were embedded.
    left_out : int
        How many were not, for want of room.
    unavailable : dict of str to int
        Why there are no pictures of some rows.
    """

    def __init__(
        self,
        pictures: Pictures,
        most_bytes: int = EMBEDDED_BYTES,
        link: Callable[[int, Picture], str] | None = None,
    ) -> None:
        self._pictures, self._most, self._link = pictures, most_bytes, link
        self.bytes = 0
        self.left_out = 0
        self.unavailable: dict[str, int] = {}
        self._charts = 0

    def section(self, name: str, data: object) -> Markup:
        """Fill in the template of a section."""
        return self._render(f"sections/{name}.html.j2", {"data": data})

    def whole(self, title: str, sections: Sequence[Mapping[str, Any]], **values: object) -> str:
        """Put the sections together into a page."""
        style, script = _source("style.css"), _source("script.js")
        return self._render(
            "page.html.j2",
            {
                "mark": MARK,
                "title": title,
                "sections": sections,
                "style": style,
                "script": script,
                "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
                "linked": self._link is not None,
                "page": self,
                **values,
            },
        )

    def _render(self, template: str, values: Mapping[str, object]) -> Markup:
        from markupsafe import Markup

        found = _environment().get_template(template)
        shown = {"picture": self.picture, "figure": self.figure, "sprite": self.sprite}
        return Markup(found.render({**values, **shown}))  # noqa: S704

    def picture(self, row: int, alt: str) -> Markup:
        """Show the image of a row: embedded or linked, or in words why it is not shown."""
        found = self._pictures[row]
        template = _environment().get_template("picture.html.j2")
        values: dict[str, object] = {"alt": alt, "row": row}
        if isinstance(found, str):
            self.unavailable[found] = self.unavailable.get(found, 0) + 1
            values["reason"] = found
        elif self._link is not None:
            values |= {"source": self._link(row, found), "size": found.shown_size}
        elif self.bytes + len(found.data_uri) > self._most:
            self.left_out += 1
            values["reason"] = "left out to keep the page small"
        else:
            self.bytes += len(found.data_uri)
            values |= {"source": found.data_uri, "size": found.shown_size}
        from markupsafe import Markup

        return Markup(template.render(values))  # noqa: S704

    def sprite(self, rows: Sequence[int]) -> Sprite | None:
        """Put small pictures of many rows into one, a cell for each in order; None where there is none."""
        made = make_sprite([self._pictures[row] for row in rows])
        if made is None or (self._link is None and self.bytes + len(made.source) > self._most):
            self.left_out += made is not None
            return None
        self.bytes += len(made.source)
        return made

    def figure(self, chart: Chart) -> Markup:
        """Draw a chart, with its table below."""
        from markupsafe import Markup

        self._charts += 1
        name = f"chart-{self._charts}"
        template = _environment().get_template("figure.html.j2")
        return Markup(  # noqa: S704
            template.render({"chart": chart, "name": name, "svg": Markup(draw(chart, name))})  # noqa: S704
        )


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise missing("jinja2") from None
    environment = Environment(
        loader=PackageLoader("img2prompt_cache.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "share": share, "signed": signed, "bytes": size, "code": code}
    return environment


def _shown(value: object) -> object:
    """Make what a template prints fit to be shown: of text from anywhere, bounded and without tricks."""
    if value is None:
        return "–"
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(shorten(value, LONGEST))
    return value


def number(value: float | None, digits: int | None = None) -> str:
    """Write a number with thin spaces between thousands, and `digits` after the point."""
    if value is None:
        return "–"
    if digits is None:
        digits = 0 if float(value).is_integer() else 3 if abs(value) < 10 else 1
    return f"{value:,.{digits}f}".replace(",", "\u202f").replace("-", "−")


def signed(value: float | None, digits: int = 4) -> str:
    """Write a difference with its sign."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def share(part: float, whole: float) -> str:
    """Write a part of a whole in per cent."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.1f} %"


def size(value: float) -> str:
    """Write a number of bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} bytes"


def code(text: str) -> Markup:
    """Set what stands between backticks as code; all else is text."""
    from markupsafe import Markup, escape

    parts = escape(_shown(text)).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


@cache
def _source(name: str) -> str:
    return (files("img2prompt_cache.reporting") / "templates" / name).read_text(encoding="utf-8")
