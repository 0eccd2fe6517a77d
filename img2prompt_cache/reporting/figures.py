"""Charts drawn as SVG: text stays text, and colours follow the page, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.reporting.charts import Chart, Cloud, Histogram
from img2prompt_cache.tables import printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, GRID, MARK = "#010101", "#010102", "#010103", "#010104"
SERIES = tuple(f"#0201{number:02d}" for number in range(1, 9))
"""Colours that stand for those of the page, see `_PAGE`."""

_PAGE = {INK: "ink", FAINT: "faint", GRID: "line", MARK: "mark"}
_PAGE |= {colour: f"c{number}" for number, colour in enumerate(SERIES, 1)}
WIDTH, HEIGHT = 5.4, 2.6
"""Inches, of 72 units each."""

MOST_CURVES, FEW_VALUES = 8, 25
CLOUD_WIDTH, CLOUD_HEIGHT, CLOUD_WORDS = 720, 300, 90
LONGEST = 60

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.labelsize": 11,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "text.color": INK,
    "text.parse_math": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 10,
}


def draw(chart: Chart, name: str) -> str:
    """Draw a chart.

    Parameters
    ----------
    chart : Chart
    name : str
        Its identifier in the page, of ASCII letters, digits and hyphens. The element with the identifier
        ``NAME-title`` names the chart, ``NAME-text`` describes it.

    Returns
    -------
    str
        An SVG element; empty where there is nothing to draw.

    Raises
    ------
    Img2PromptError
        If matplotlib or wordcloud is not installed.
    """
    if not chart.rows:
        return ""
    if isinstance(chart, Cloud):
        return _cloud(chart, name)
    with _axes(name) as (axes, finished):
        (_histogram if isinstance(chart, Histogram) else _curves)(axes, chart)
    return finished[0]


def _histogram(axes: Axes, chart: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    widths = [high - low for low, high in zip(chart.edges, chart.edges[1:], strict=False)]
    axes.bar(
        chart.edges[:-1], chart.counts, [0.94 * width for width in widths], align="edge", color=SERIES[0]
    )
    axes.set_xlabel(_clean(chart.x_label))
    axes.set_ylabel(_clean(chart.of))
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    if all(float(edge).is_integer() for edge in chart.edges):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    _marks(axes, chart.marks)


def _curves(axes: Axes, chart: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for number, curve in enumerate(chart.curves[:MOST_CURVES]):
        axes.plot(
            curve.x,
            curve.y,
            color=SERIES[number],
            linestyle="-" if chart.joined else "",
            marker="o" if len(curve.x) <= FEW_VALUES or not chart.joined else "",
            markersize=3.5,
            label=_clean(curve.name),
        )
    if chart.diagonal:
        low = min(min(curve.x) for curve in chart.curves if curve.x)
        high = max(max(curve.x) for curve in chart.curves if curve.x)
        axes.plot([low, high], [low, high], color=MARK, linestyle="--", linewidth=1, label="as expected")
    if chart.log_x and all(x > 0 for curve in chart.curves for x in curve.x):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(_clean(chart.x_label))
    axes.set_ylabel(_clean(chart.y_label))
    if len(chart.curves) > 1 or chart.diagonal:
        axes.legend(loc="best")
    _marks(axes, chart.marks)


def _marks(axes: Axes, marks: dict[str, float]) -> None:
    for name, value in marks.items():
        axes.axvline(value, color=MARK, linewidth=1.2, linestyle="--")
        axes.annotate(
            _clean(name),
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            color=MARK,
            fontsize=10,
        )


@contextmanager
def _axes(name: str) -> Iterator[tuple[Axes, list[str]]]:
    """Give axes to draw on, and a list that holds the SVG when the block has ended."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise missing("matplotlib") from None

    finished: list[str] = []
    # Only the measures of glyphs that a font lacks are in doubt: the browser draws the text.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure.add_subplot(), finished
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    finished.append(_inline(file.getvalue(), name))


_GROUP_ID = re.compile(r'(<g) id="[^"]*"')
_FONT = re.compile(r"font: ([\d.]+px) [^;\"]*")


def _inline(text: str, name: str) -> str:
    """Make a file of matplotlib an element of a page: colours of the page, identifiers of its own."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = _GROUP_ID.sub(r"\1", text)
    text = _FONT.sub(r"font-size: \1", text)
    for colour, variable in _PAGE.items():
        text = text.replace(colour, f"var(--{variable})")
    head = rf'<svg class="chart" \1 {_named(name)}>'
    text = re.sub(r'<svg[^>]*(viewBox="[^"]*")[^>]*>', head, text, count=1)
    return re.sub(r"\n\s*", "\n", text)


def _cloud(chart: Cloud, name: str) -> str:
    """Place words by their frequency, and write them as text."""
    from html import escape

    counts = {_clean(word): count for word, count in list(chart.counts.items())[:CLOUD_WORDS]}
    lines = [f'<svg class="chart cloud" viewBox="0 0 {CLOUD_WIDTH} {CLOUD_HEIGHT}" {_named(name)}>']
    for number, (word, size, (y, x)) in enumerate(_placed(counts)):
        lines.append(
            f'<text x="{x}" y="{y + 0.8 * size:.0f}" font-size="{size}" '
            f'textLength="{_width(word, size):.0f}" lengthAdjust="spacingAndGlyphs" '
            f'fill="var(--{_PAGE[SERIES[number % len(SERIES)]]})">{escape(word)}</text>'
        )
    return "\n".join([*lines, "</svg>"])


def _placed(counts: dict[str, int]) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """Let wordcloud find a place for each word: the word, its size, its (y, x)."""
    try:
        from wordcloud import WordCloud
    except ImportError:
        raise missing("wordcloud") from None
    made = WordCloud(
        width=CLOUD_WIDTH,
        height=CLOUD_HEIGHT,
        margin=3,
        prefer_horizontal=1.0,
        relative_scaling=0.4,
        min_font_size=11,
        max_font_size=80,
        random_state=0,
        font_path=_font(),
    ).generate_from_frequencies(counts)
    for (word, _), size, place, _, _ in made.layout_:
        yield word, size, place


def _width(word: str, size: int) -> float:
    """Measure a word as it was placed; whatever font a browser takes is made to fit."""
    from PIL import ImageFont

    return float(ImageFont.truetype(_font(), size).getlength(word))


@cache
def _font() -> str:
    """Find the font by which words are measured; it comes with matplotlib."""
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties(family="DejaVu Sans", weight="bold")))


def _named(name: str) -> str:
    return f'role="img" aria-labelledby="{name}-title" aria-describedby="{name}-text"'


def _clean(text: str) -> str:
    return printable(shorten(text, LONGEST))


def missing(library: str) -> Img2PromptError:
    """Make the error of a library that is not installed."""
    return Img2PromptError(
        f"a report takes {library}, which is not installed; run `pip install 'img2prompt-cache[report]'`"
    )
