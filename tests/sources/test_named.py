from __future__ import annotations

from img2prompt_cache.sources.named import find_recorded


def test_a_source_that_is_gone_has_moved_to_a_folder_called_alike(tmp_path):
    entries = ({"root": str(tmp_path / "before" / "images")},)
    (tmp_path / "images").mkdir()
    assert find_recorded(entries, tmp_path / "images") == 0
    assert find_recorded(entries, tmp_path / "others") is None


def test_a_source_that_cannot_be_looked_at_is_not_gone(tmp_path):
    entries = ({"root": f"/{'x' * 5000}/images"},)
    assert find_recorded(entries, tmp_path / "images") is None
