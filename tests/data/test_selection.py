from __future__ import annotations

import pytest

from img2prompt_cache.data.selection import read_selection
from img2prompt_cache.errors import UsageError


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("imgId,keep\na,1\nb,0\nc,1\n", ["a", "c"]),
        ("note,imgId\nx,007\ny,b\n", ["007", "b"]),
        ("\ufeffimgId\na\n", ["a"]),
    ],
)
def test_the_rows_that_are_named(tmp_path, text, ids):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    assert read_selection(tmp_path / "x.csv") == ids


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "x.csv"),
        ("imgId\n", "has no rows"),
        ("id,keep\na,1\n", "needs one column imgId; it has id, keep"),
        ("imgId,imgId\na,b\n", "needs one column imgId"),
        ("imgId,keep\na,1\n,1\n", "row 2 has no imgId"),
        ("imgId,keep\na,1\na,0\n", "names 'a' 2 times"),
        ("imgId,keep\na,yes\n", "keep must be 1 or 0, not 'yes'"),
        ("imgId,keep\na,\n", "keep must be 1 or 0"),
        ("imgId,keep\na,0\n", "keeps no row"),
    ],
)
def test_tables_that_select_nothing(tmp_path, text, words):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_selection(tmp_path / "x.csv")


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match="there is no such file"):
        read_selection(tmp_path / "x.csv")
