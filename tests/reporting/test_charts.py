from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.reporting.charts import MOST, Cloud, Curve, Curves, Histogram, histogram

CHARTS = {
    "histogram": histogram("Words", "words", [1, 2, 2, 9], of="prompts", marks={"most": 4}),
    "curves": Curves("Loss", "epoch", "loss", (Curve("a", (1, 2), (0.5, 0.25)), Curve("b", (1,), (1.0,)))),
    "expected": Curves("Sure", "expected", "came", (Curve("run", (0.1, 0.9), (0.2, 0.8)),), diagonal=True),
    "log": Curves("Path", "alpha", "cosine", (Curve("run", (0.1, 10.0), (0.2, 0.8)),), log_x=True),
    "cloud": Cloud("Words", {"fox": 9, "river": 3, "狐": 2}),
}


@given(st.lists(st.floats() | st.integers(-1000, 1000), max_size=50))
def test_a_histogram_counts_every_finite_value_once(values):
    finite = [value for value in values if abs(value) <= MOST]
    found = histogram("x", "x", values)
    assert sum(found.counts) == len(finite)
    assert len(found.edges) == (len(found.counts) + 1 if finite else 0)
    assert [row[2] for row in found.rows] == [*found.counts]


def test_values_beyond_given_edges_count_as_the_last():
    assert histogram("x", "x", [-5, 0.5, 99], bins=[0, 1, 2]).counts == (2, 1)


def test_whole_numbers_have_bins_of_whole_width():
    found = histogram("x", "x", range(100))
    assert all(edge == int(edge) for edge in found.edges)
    assert sum(found.counts) == 100


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
def test_a_chart_is_drawn_with_its_text_as_text(chart):
    figures = pytest.importorskip("img2prompt_cache.reporting.figures")
    pytest.importorskip("matplotlib")
    pytest.importorskip("wordcloud")
    svg = figures.draw(chart, "chart-7")
    assert svg.startswith('<svg class="chart')
    assert 'aria-labelledby="chart-7-title"' in svg
    for text in {"histogram": ["words", "most"], "curves": ["epoch", ">a<"], "cloud": ["fox", "狐"]}.get(
        next(name for name, each in CHARTS.items() if each is chart), []
    ):
        assert text in svg
    assert not re.search(r"#0[12]0\d0\d", svg), "a colour that is not the page's"
    assert "<metadata" not in svg
    assert not re.search(r'<g id="', svg)


def test_labels_from_anywhere_are_no_markup_and_no_formula():
    figures = pytest.importorskip("img2prompt_cache.reporting.figures")
    pytest.importorskip("matplotlib")
    name = "<b>$\\frac{1$ \ud800\x1b[31m\u202e" + "x" * 10_000
    for chart in (
        Curves("t", name, name, (Curve(name, (1, 2), (1, 2)), Curve("b", (1,), (1,)))),
        Histogram("t", name, (0, 1), (1,), {name: 0.5}),
    ):
        svg = figures.draw(chart, "chart-1")
        assert "<b>" not in svg
        assert len(svg) < 60_000
        svg.encode()
        assert "\x1b" not in svg
        assert "\u202e" not in svg


def test_two_charts_have_no_identifier_in_common():
    figures = pytest.importorskip("img2prompt_cache.reporting.figures")
    pytest.importorskip("matplotlib")
    one, other = (
        {*re.findall(r'\bid="([^"]*)"', figures.draw(CHARTS["curves"], name))} for name in ("c-1", "c-2")
    )
    assert one
    assert not one & other


def test_nothing_is_drawn_without_values():
    figures = pytest.importorskip("img2prompt_cache.reporting.figures")
    assert figures.draw(histogram("x", "x", []), "chart-1") == ""
    assert figures.draw(Cloud("x", {}), "chart-1") == ""


@pytest.mark.parametrize("chart", [*CHARTS.values(), histogram("x", "x", []), Cloud("x", {})], ids=str)
def test_every_chart_has_a_table_and_is_told_in_a_sentence(chart):
    assert all(len(row) == len(chart.header) for row in chart.rows)
    assert chart.described.endswith(".")
