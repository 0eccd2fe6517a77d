"""Images whose slices are shared by workers, which get everything pickled."""

from __future__ import annotations

import numpy as np
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.errors import UsageError
from img2prompt_cache.numerics import workers
from img2prompt_cache.prediction import stream
from kit import Tiny
from pickling import Pickling


@pytest.fixture(scope="module")
def run(tiny: Tiny, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared") / "cache"
    tiny.extract(pairs, folder)
    return ipc.fit(folder, "ridge", settings={"alpha": 0.1}, split="random")


@pytest.fixture
def others(monkeypatch):
    """Workers, and slices of 7 images for them."""
    monkeypatch.setattr(stream, "SLICE_ROWS", 7)
    monkeypatch.setattr(stream, "_KEPT", {})
    found = Pickling()
    with workers.shared_by(found):
        yield found


def test_files_are_the_same_byte_for_byte(run, pairs, tmp_path, others):
    shared = run.predict(pairs, out=tmp_path / "shared.csv", top_k=2, allow_missing=True)
    assert others.counts == [4]  # slices of 23 images
    assert len(stream._KEPT) == 1  # loaded once, and kept
    with workers.shared_by(None):
        alone = run.predict(pairs, out=tmp_path / "alone.csv", top_k=2, allow_missing=True)
    assert (tmp_path / "shared.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
    assert (shared.ids, shared.failed, shared.prompts) == (alone.ids, alone.failed, alone.prompts)
    assert shared.own_prompts == alone.own_prompts
    assert any(shared.own_prompts)
    np.testing.assert_array_equal(shared.expected, alone.expected)


def test_weights_are_looked_for_where_the_caller_says(run, pairs, tmp_path, others):
    with pytest.raises(UsageError, match="there is no such folder"):
        run.predict(pairs, weights=tmp_path / "gone")
    assert len(run.predict(pairs, weights=tmp_path).ids) == 20


@pytest.mark.parametrize("what", ["features", "rows of a cache"])
def test_what_has_no_images_is_refused(run, others, what):
    images = run.home if what != "features" else np.zeros((2, sum(each.width for each in run.features)))
    with pytest.raises(UsageError, match=f"{what} are predicted here") as caught:
        run.predict(images)
    assert caught.value.parameter == "engine"


@pytest.mark.parametrize(
    ("parameters", "parameter"),
    [({"engine": "spark"}, "engine"), ({"workers": 2}, "workers"), ({"ray_address": "auto"}, "ray_address")],
)
def test_what_an_engine_cannot_do_is_said(run, pairs, parameters, parameter):
    with pytest.raises(UsageError) as caught:
        run.predict(pairs, **parameters)
    assert caught.value.parameter == parameter
