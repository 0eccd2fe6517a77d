from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.prediction.outputs import open_writer
from img2prompt_cache.tables import bare_cell

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1, max_size=20)


def write(path, ids, prompts, **columns):
    with open_writer(path, 3, overwrite=True) as writer:
        for row, name in enumerate(ids):
            values = {key: [each[row]] for key, each in columns.items()}
            writer.write([name], np.ones((1, 3), np.float32), [prompts[row]], values)
    return writer


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=5))
def test_any_text_reads_back_as_one_line(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "x.prompts.csv"
    write(path, [name for name, _ in rows], [[(prompt, 0.5), ("other", 0.25)] for _, prompt in rows])
    found = [(bare_cell(row["image"]), bare_cell(row["prompt"])) for row in read(path)]
    assert found == [tuple(" ".join(text.split()) for text in row) for row in rows]
    assert all(row["similarity"] == "0.500" for row in read(path))


def test_what_is_known_beside_the_prompt_has_columns(tmp_path):
    path = tmp_path / "x.prompts.csv"
    expected = np.array([0.5, 0.25], np.float32)
    composed = {"composed": ["made", "up"], "composed_cosine": np.array([0.75, 1], np.float32)}
    write(path, ["a", "b"], [[("p", 0.5)]] * 2, expected=expected, flagged=expected < 0.3, **composed)
    assert path.read_text().splitlines() == [
        "image,prompt,similarity,expected,flagged",
        "a,made,0.750,0.500,false",
        "b,up,1.000,0.250,true",
    ]


def test_no_spreadsheet_computes_a_name_or_a_prompt(tmp_path):
    writer = write(tmp_path / "x.prompts.csv", ["=1+1", "b"], [[("=2+2", 0.5)], [("@x", 0.5)]])
    assert writer.guarded == 1
    assert [row["prompt"] for row in read(tmp_path / "x.prompts.csv")] == ["'=2+2", "'@x"]
    assert read(tmp_path / "x.prompts.csv")[0]["image"] == "'=1+1"


def test_without_prompts_nothing_is_left(tmp_path):
    with pytest.raises(UsageError, match="`top_k` of 1 or more"):  # noqa: SIM117
        with open_writer(tmp_path / "x.prompts.csv", 3) as writer:
            writer.write(["a"], np.ones((1, 3), np.float32))
    with pytest.raises(Img2PromptError, match="not finite"):  # noqa: SIM117
        with open_writer(tmp_path / "x.prompts.csv", 3) as writer:
            writer.write(["a"], np.full((1, 3), np.nan, np.float32), [[("p", 0.5)]])
    assert not [*tmp_path.iterdir()]


def test_a_table_of_no_images_has_a_header(tmp_path):
    write(tmp_path / "x.prompts.csv", [], [])
    assert (tmp_path / "x.prompts.csv").read_text() == "image,prompt,similarity\n"
    write(tmp_path / "x.prompts.csv", ["a"], [[("p", 0.5)]])  # it is replaced as one of ours
