"""Memory for a fit: rows that are held, or read when they are used."""

from __future__ import annotations

import errno
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

import img2prompt_cache as ipc
from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting import memory
from img2prompt_cache.fitting.memory import free_memory, hold_rows, read_size
from img2prompt_cache.fitting.options import MADE_OF_RUNS
from img2prompt_cache.heads import HEADS, best, kernel, make_head, neighbours, out_of_fold
from img2prompt_cache.numerics import blending, disk_array, kept_rows, kernel_ridge, row_blocks
from img2prompt_cache.numerics.metrics import unit
from synthetic import ENCODER, OTHER, make_cache, make_column

STREAMS = [name for name in HEADS if make_head(name).streams and name not in (*MADE_OF_RUNS, "clip")]
SETTINGS = {
    "kernel": {"landmarks": 30},
    "best": {"members": [{"head": "ridge"}, {"head": "knn"}, {"head": "mlp", "settings": {"epochs": 3}}]},
    "blend": {
        "members": [
            {"head": "ridge", "columns": [[8, 32]]},
            {"head": "knn", "columns": [[8, 32], [0, 8]]},
            {"head": "mean"},
        ]
    },
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("memory") / "cache", rows=240, groups=60)


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 * 10**9), ("500 mb", 5 * 10**8), ("2GiB", 2 * 2**30), ("1.5k", 1500), (4096, 4096), ("7B", 7)],
)
def test_amounts_of_memory(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "8 gigs", "0", 0, "1e9", "8GBB"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(UsageError, match="`memory` is an amount such as 8GB") as caught:
        read_size(text)
    assert caught.value.parameter == "memory"


def test_free_memory_is_a_plausible_number():
    free = free_memory()
    assert free is None or 2**20 < free < 2**60


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        *((name, 10_000) for name in (*STREAMS, "blend")),
        pytest.param("kernel", 50, id="landmarks"),
        pytest.param("knn", 50, id="projections"),
    ],
)
@pytest.mark.parametrize("folds", [None, 3])
def test_rows_that_are_read_give_the_same_bits(name, folds, exact, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(row_blocks.in_blocks, "__defaults__", (50,))
    monkeypatch.setattr(kernel, "EXACT", exact)
    monkeypatch.setattr(neighbours, "EXACT", exact)
    monkeypatch.setattr(neighbours, "ROWS", 40)
    monkeypatch.setattr(kernel_ridge, "ROWS", 40)
    notes: list[str] = []
    runs = {}
    for most in ("1GB", "0.2MB"):
        runs[most] = ipc.fit(
            cache,
            name,
            folds=folds,
            settings=SETTINGS.get(name),
            memory=most,
            run=tmp_path / most,
            progress=lambda event: notes.append(event.message),
        )
    said = [note for note in notes if "read when they are used" in note]
    assert len(said) == make_head(name).reads_features
    assert all("`memory` allows 0.2 MB" in each for each in said)
    held, read = runs.values()
    assert read.metrics == held.metrics
    require_same_state(held, read)


def test_less_memory_than_an_index_takes_is_refused_with_the_number():
    assert not hold_rows(make_head("knn"), 10**6, 1664, "1GB", tell=lambda event: None)
    with pytest.raises(
        UsageError, match=r"'knn' needs at least 400 MB .* of 1,000,000 rows .* but `memory` allows 100 MB"
    ):
        hold_rows(make_head("knn"), 10**6, 1664, "100MB", tell=lambda event: None)
    assert not hold_rows(make_head("knn"), 50_000, 1664, "1MB", tell=lambda event: None)  # it is exact


def test_what_an_ensemble_needs_grows_with_its_members():
    blend = make_head("blend", members=[{"head": "knn"}, {"head": "mlp"}])
    assert blend.least_memory(10**6) > make_head("knn").least_memory(10**6) == 400 * 10**6
    assert make_head("best").least_memory(10**6) > blend.least_memory(10**6)
    for head in (blend, make_head("best")):
        with pytest.raises(UsageError, match=rf"'{head.name}' needs at least .* of 1,000,000 rows .* 500 MB"):
            hold_rows(head, 10**6, 1664, "500MB", tell=lambda event: None)
        assert not hold_rows(head, 10**6, 1664, "2GB", tell=lambda event: None)


def test_a_student_needs_what_its_teacher_does():
    taught = {"teacher": make_head("blend", members=[{"head": "knn"}]), "tell": lambda event: None}
    assert not hold_rows(make_head("distil"), 10**6, 1664, "1GB", **taught)
    with pytest.raises(UsageError, match=r"'distil' needs at least 496 MB .* of 1,000,000 rows"):
        hold_rows(make_head("distil"), 10**6, 1664, "100MB", **taught)
    holds = make_head("blend", members=[{"head": "seed-vit"}])
    with pytest.raises(UsageError, match="head 'distil' with its teacher must hold them"):
        hold_rows(make_head("distil"), 240, 416, "10kB", teacher=holds, tell=lambda event: None)


def test_a_head_that_must_hold_them_is_refused_with_the_number(cache):
    members = [{"head": "ridge"}, {"head": "seed-vit"}]
    with pytest.raises(UsageError, match=r"240 rows of 416 values take about 1\.2 MB .*allows 0\.01 MB"):
        ipc.fit(cache, "blend", settings={"members": members}, memory="10kB")


def test_what_is_added_must_be_held(cache):
    with pytest.raises(UsageError, match="with what is added to it"):
        hold_rows(make_head("ridge"), 240, 416, "10kB", more=True, tell=lambda event: None)


def test_the_mean_head_reads_no_features(cache, monkeypatch):
    opened = ipc.Cache(cache)
    data = load_dataset(opened, choose_features(opened, ()), choose_target(opened, None), hold=False)
    y = np.asarray(data.y)
    monkeypatch.setattr(type(data.X), "__array__", None)
    found = make_head("mean").fit(data.X, y).predict(data.X)
    np.testing.assert_allclose(
        found, np.repeat(unit(y.mean(axis=0, keepdims=True)), len(y), axis=0), atol=1e-6
    )


def test_where_nothing_is_said_half_of_what_is_free_counts(monkeypatch):
    notes: list[str] = []

    def held(name, free):
        monkeypatch.setattr(memory, "free_memory", lambda: free)
        return hold_rows(make_head(name), 100, 10, None, tell=lambda event: notes.append(event.message))

    assert held("ridge", 24_000)  # 3 × 100 × 10 × 4 bytes
    assert not notes
    assert not held("ridge", 23_990)
    assert "read when they are used" in notes[0]
    assert held("seed-vit", 12_000)
    with pytest.raises(UsageError, match=r"but 0\.012 MB are free"):
        held("seed-vit", 11_990)
    assert held("seed-vit", None)


@pytest.mark.parametrize("name", ["mlp", "linear"])
def test_a_head_that_trains_on_views_must_hold_its_rows(name, cache):
    with pytest.raises(UsageError, match="with what is added to it"):
        ipc.fit(cache, name, settings={"views": True}, memory="10kB")


@pytest.fixture(scope="module", params=[None, 3])
def runs(request, tmp_path_factory):
    """Runs of a hold-out or by folds, on a cache with two images that have no prompt."""
    folder = tmp_path_factory.mktemp("runs")
    made = make_cache(folder / "cache", rows=240, groups=60, without_prompt=[7, 90])
    heads = ("ridge", {"alpha": 1.0}), ("knn", {})
    return made, [
        ipc.fit(made, head, settings=settings, folds=request.param, run=folder / head)
        for head, settings in heads
    ]


def test_a_student_of_rows_that_are_read_is_the_same(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(row_blocks.in_blocks, "__defaults__", (50,))
    cache, members = runs
    teacher = ipc.fit(cache, "blend", members=members, run=tmp_path / "teacher")
    notes: list[str] = []
    told = {"teacher": teacher, "features": OTHER, "settings": {"hidden": [8], "epochs": 3, "lr": 1e-2}}
    held, read = (
        ipc.fit(
            cache,
            "distil",
            memory=most,
            run=tmp_path / most,
            progress=lambda e: notes.append(e.message),
            **told,
        )
        for most in ("1GB", "0.2MB")
    )
    assert sum("read when they are used" in note for note in notes) == 1
    assert read.metrics == held.metrics
    assert (held.rows, read.rows) == (240, 240)
    require_same_state(held, read)
    with pytest.raises(UsageError, match="'distil' needs at least"):
        ipc.fit(cache, "distil", memory="1kB", run=tmp_path / "less", **told)


def test_members_are_fitted_on_rows_that_are_read(runs, tmp_path):
    cache, members = runs
    held, read = (
        ipc.fit(cache, "blend", members=members, memory=most, run=tmp_path / most)
        for most in ("1GB", "0.2MB")
    )
    assert held.metrics.get("nested") == (1.0 if members[0].fold_metrics else None)
    assert read.metrics == held.metrics
    require_same_state(held, read)


@pytest.mark.parametrize("name", ["blend", "best"])
def test_members_read_no_more_than_a_block_at_a_time(name, cache, monkeypatch):
    read: list[int] = []
    whole = ColumnRows.__array__

    def counted(rows, *args, **more):
        read.append(len(rows))
        return whole(rows, *args, **more)

    opened = ipc.Cache(cache)
    data = load_dataset(opened, choose_features(opened, ()), choose_target(opened, None), hold=False)
    monkeypatch.setattr(ColumnRows, "__array__", counted)
    monkeypatch.setattr(row_blocks.in_blocks, "__defaults__", (50,))
    monkeypatch.setattr(kept_rows.kept_rows, "__defaults__", (np.float32, 50))
    monkeypatch.setattr(out_of_fold, "BLOCK", 50)
    monkeypatch.setattr(blending, "ROWS", 50)
    monkeypatch.setattr(best, "MOST_BANK", 100)
    head = make_head(name, members=[{"head": "ridge"}, {"head": "mean"}])
    head.fit(data.X, data.y, groups=np.arange(240) % 60, widths=data.widths)
    assert max(read) <= 50


@pytest.mark.parametrize("name", ["blend", "best"])
def test_a_disk_too_full_for_predictions_is_said(name, cache, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk_array.tempfile, "TemporaryFile", full)
    with pytest.raises(Img2PromptError, match=r"cannot be kept in .*No space left on device; make room"):
        ipc.fit(cache, name, settings={"members": [{"head": "ridge"}, {"head": "mean"}]}, memory="0.2MB")


def require_same_state(run, other):
    one, another = (load_file(each.folder / "head.safetensors") for each in (run, other))
    assert one.keys() == another.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], another[key])


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """A cache of both towers of a CLIP model; every fourth text stands twice."""
    folder = make_cache(tmp_path_factory.mktemp("towers") / "cache", rows=240, groups=60)
    rng = np.random.default_rng(0)
    texts = unit(rng.normal(size=(240, 40)))
    texts[1::4] = texts[::4]
    images = texts + 0.1 * rng.normal(size=texts.shape)
    values = {"features": 7 * images + rng.normal(size=40), "targets": texts}
    made = [
        make_column(folder, kind, "open_clip:one", each.astype(np.float16), 240, 16)
        for kind, each in values.items()
    ]
    manifest = load_manifest(folder)
    save_manifest(folder, replace(manifest, columns=(*manifest.columns, *made)))
    return folder


@pytest.mark.parametrize("exact", [10_000, 50])
@pytest.mark.parametrize("folds", [None, 3])
def test_prompts_that_are_read_are_found_as_those_that_are_held(folds, exact, towers, tmp_path, monkeypatch):
    monkeypatch.setattr(row_blocks.in_blocks, "__defaults__", (50,))
    monkeypatch.setattr(neighbours, "EXACT", exact)
    monkeypatch.setattr(neighbours, "ROWS", 40)
    told = {"encoder": ENCODER, "split": "random", "folds": folds}
    held, read = (
        ipc.fit(towers, "clip", memory=most, run=tmp_path / most, **told) for most in ("1GB", "0.2MB")
    )
    assert read.metrics["cosine"] == pytest.approx(held.metrics["cosine"], abs=1e-3)
    assert load_file(read.folder / "head.safetensors")["vectors"].shape == (180, 40)
    if exact == 50:
        assert read.measured["dimensions"] == 40
        assert read.measured["recall@10"] >= 0.98
    else:
        assert read.metrics == held.metrics
        require_same_state(held, read)
    with pytest.raises(UsageError, match=r"'clip' needs at least .* of 240 rows"):
        ipc.fit(towers, "clip", memory="10kB", **told)
