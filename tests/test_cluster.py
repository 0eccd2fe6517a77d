"""Fits and predictions on a Ray cluster of this machine alone, with two workers, one of which is lost."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

import img2prompt_cache as ipc
from img2prompt_cache import cluster
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics import row_blocks
from img2prompt_cache.prediction import stream
from synthetic import make_cache

pytest.importorskip("ray", reason="needs the extra: pip install 'img2prompt-cache[ray]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own, on import and on the way
]


@pytest.fixture(scope="module")
def ray():
    """A session that is open before any call."""
    with cluster.connected(None) as found:
        yield found


@pytest.fixture
def lost(tmp_path, monkeypatch):
    """Kill the worker that has the second item, once; then this file is there."""
    marker, compute = tmp_path / "lost", cluster.map_on

    def losing(ray, count, function, items, **more):
        def once(item):
            number, given = item
            if number == 1 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return function(given)

        return compute(ray, count, once, enumerate(items), **more)

    monkeypatch.setattr("img2prompt_cache.numerics.workers.map_on", losing)
    return marker


def test_a_fit_gives_the_same_numbers_though_a_worker_is_lost(ray, lost, tmp_path, monkeypatch):
    cache = make_cache(tmp_path / "cache", rows=240, groups=60)
    monkeypatch.setattr(row_blocks.over_rows, "__defaults__", (50,))
    options = {"leakage_gap": False}
    shared = ipc.fit(cache, "ridge", run=tmp_path / "shared", engine="ray", workers=2, **options)
    assert lost.exists()
    assert ray.is_initialized()  # as it was
    alone = ipc.fit(cache, "ridge", run=tmp_path / "alone", **options)
    for name in ("cosine", "floor"):
        assert shared.metrics[name] == pytest.approx(alone.metrics[name], abs=1e-6)
    one, other = (load_file(run.folder / "head.safetensors") for run in (shared, alone))
    for name in other:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_images_have_the_same_predictions_though_a_worker_is_lost(
    ray, lost, tiny, pairs, tmp_path, monkeypatch
):
    tiny.extract(pairs, tmp_path / "cache")
    run = ipc.fit(tmp_path / "cache", "ridge", settings={"alpha": 0.1}, split="random")
    monkeypatch.setattr(stream, "SLICE_ROWS", 8)
    shared = run.predict(pairs, engine="ray", workers=2, device="cpu")
    assert lost.exists()
    alone = run.predict(pairs, device="cpu")
    assert (shared.ids, shared.failed) == (alone.ids, alone.failed)
    np.testing.assert_allclose(shared.vectors, alone.vectors, atol=1e-6)
    assert shared.own_prompts == alone.own_prompts


def test_results_come_in_order_and_errors_are_told(ray):
    def slow_first(item):
        import time

        time.sleep(0.5 if item == 0 else 0)
        return item * item

    assert [*cluster.map_on(ray, 2, slow_first, range(9))] == [item * item for item in range(9)]
    assert [*cluster.map_on(ray, None, slow_first, [])] == []

    def failing(item):
        raise Img2PromptError("part 3 is damaged")

    with pytest.raises(Img2PromptError, match=r"part 3 is damaged \(as a machine of the Ray cluster"):
        [*cluster.map_on(ray, 2, failing, range(3))]

    def dying(item):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(Img2PromptError, match="Ray gave up"):
        [*cluster.map_on(ray, 1, dying, [0])]


def test_a_cluster_that_is_not_there_is_told(tmp_path):
    with pytest.raises(Img2PromptError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        ipc.fit(make_cache(tmp_path / "cache"), "ridge", engine="ray", ray_address="127.0.0.1:1")
