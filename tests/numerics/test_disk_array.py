from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import numpy as np
import pytest

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.disk_array import to_disk


def test_rows_come_back_and_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    values = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)
    made = to_disk((values[start : start + 7] for start in range(0, 23, 7)), 5)
    np.testing.assert_array_equal(made, values)
    np.testing.assert_array_equal(made[[4, 0, 22]], values[[4, 0, 22]])
    with pytest.raises(ValueError, match="read-only"):
        made[0] = 0
    assert type(made) is np.ndarray
    assert list(tmp_path.iterdir()) == []
    del made
    gc.collect()


def test_a_full_disk_is_told_with_what_to_do():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
        with pytest.raises(Img2PromptError, match=r"No space left on device; make room, or .* TMPDIR"):
            to_disk([np.ones((1 << 12, 8), np.float32)], 8)
