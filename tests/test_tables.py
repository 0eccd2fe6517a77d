from __future__ import annotations

import csv
import io
from unicodedata import bidirectional, category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.cli import console
from img2prompt_cache.progress import Event, listening, note
from img2prompt_cache.tables import bare_cell, guard_cell, html_table, preview, printable


@given(st.text())
def test_what_is_printed_stays_in_its_line_and_in_its_order(text):
    shown = printable(text)
    assert not {category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {bidirectional(character) for character in shown} & turning


@pytest.mark.parametrize("mark", "\u061c\u200e\u200f\u202a\u202e\u2066\u2069\x1b\x07\n\x9b")
def test_marks_are_shown_as_escapes(mark):
    assert printable(f"a{mark}b") == f"a{mark.encode('unicode_escape').decode()}b"
    assert mark not in preview([f"a{mark}b"], 1)


def test_other_scripts_and_joined_emoji_stay_as_they_are():
    for text in ("עברית", "العربية", "日本語", "👩\u200d🚀", "Ünïcödé"):
        assert printable(text) == text


def test_a_long_line_is_cut():
    shown = console.clean("word " * 200_000)
    assert len(shown) == console.LONGEST
    assert shown.endswith("…")
    assert len(console.clean("\x1b" * 200_000)) == console.LONGEST
    assert len(console.table(["name"], [["n" * 10_000]]).split("\n")[1]) == 200


@given(st.text() | st.from_regex(r"'*[=+\-@\t\r].*"))
def test_a_guarded_cell_is_no_formula_and_comes_back(text):
    cell = guard_cell(text)
    assert bare_cell(cell) == text
    try:
        float(text)
    except ValueError:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize(
    "number", ["-1", "+5", "-0.12", "1e-05", "-3.4E+10", "0001", "image-1", "", "'quoted'"]
)
def test_numbers_and_plain_names_stay_as_they_are(number):
    assert guard_cell(number) == number == bare_cell(number)


def test_a_guarded_cell_survives_a_csv_file():
    file = io.StringIO()
    csv.writer(file).writerow(map(guard_cell, ["=1+1", "'=1", "@x", "plain"]))
    assert [bare_cell(cell) for cell in next(csv.reader([file.getvalue()]))] == ["=1+1", "'=1", "@x", "plain"]


def test_what_the_library_shows_itself_is_escaped_too(capsys):
    with listening(progress=True) as tell:
        note(tell, "a\x1b]0;b\x07\u202ec [bold]d")
        tell(Event("plan", value="one\ntwo\r"))
    assert capsys.readouterr().err == "a\\x1b]0;b\\x07\\u202ec [bold]d\none\ntwo\\r\n"


def test_a_table_in_a_notebook_turns_no_text_around():
    assert "a\\u202eb&lt;i&gt;" in html_table(["x"], [["a\u202eb<i>"]])
