from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.cache.texts import BLOCK, Texts, TextWriter, sort_rows

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
columns = st.lists(st.tuples(words, words), max_size=20)


@given(st.lists(words, max_size=20), st.data())
def test_texts_are_a_sequence_of_the_strings_that_they_were_made_of(values, data):
    texts = Texts.of(values)
    assert texts == values
    assert values == texts
    assert [*texts] == values
    assert Texts.of(texts) is texts
    part = data.draw(st.slices(len(values)))
    assert texts[part] == values[part]
    if values:
        rows = data.draw(st.lists(st.integers(0, len(values) - 1)))
        assert [*texts.take(np.array(rows, np.int64))] == [values[row] for row in rows]
        at = data.draw(st.integers(-len(values), len(values) - 1))
        assert texts[at] == values[at]
        assert values[at] in texts
    assert texts != [*values, ""]
    with pytest.raises(IndexError):
        texts[len(values)]


@given(columns)
def test_rows_are_sorted_as_python_sorts_strings(rows):
    order = sort_rows([Texts.of(each) for each in zip(*rows, strict=True)] if rows else [Texts.of(())] * 2)
    assert [rows[row] for row in order] == sorted(rows)
    assert order.dtype == np.int64


@given(st.lists(words, max_size=20))
def test_equal_texts_and_no_others_have_one_label(values):
    label = Texts.of(values).label_distinct()
    assert len({*zip(label.tolist(), values, strict=True)}) == len({*values}) == len({*label.tolist()})
    assert label.dtype == np.int64


def test_texts_of_more_than_a_block():
    values = [f"é{number}" for number in range(2 * BLOCK + 3)]
    texts = Texts.of(iter(values))
    assert texts == values
    turned = np.arange(len(values))[::-1]
    assert [*texts.take(turned)] == values[::-1]
    assert repr(texts) == f"Texts({len(values):,}: 'é0', 'é1', 'é2', …)"
    assert repr(Texts.of("a")) == "Texts(1: 'a')"


def test_texts_take_their_bytes_and_eight_more():
    writer = TextWriter()
    tracemalloc.start()
    try:
        for start in range(0, 100_000, 1000):
            writer.add([f"{number:064x}" for number in range(start, start + 1000)])
        texts = writer.texts()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(texts) == 100_000
    assert taken < 1.2 * 100_000 * (64 + 8)


def test_texts_are_not_hashable_and_are_no_string():
    with pytest.raises(TypeError):
        hash(Texts.of("ab"))
    assert Texts.of("ab") != "ab"
