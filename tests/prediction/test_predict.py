from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.cli.run_output import expected_lines
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import hash_file
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.prediction.bank import cached_bank
from img2prompt_cache.prediction.own_prompts import OwnPrompts
from img2prompt_cache.runs.run import Run
from kit import paint, prompt_of, save_encoder
from synthetic import make_cache


@pytest.fixture(scope="module")
def run(tiny, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "cache"
    tiny.extract(pairs, folder)
    return fit(ipc.Cache(folder), head="ridge", settings={"alpha": 1.0}, split="random")


def test_every_way_to_name_images_and_runs_gives_the_same(run, pairs):
    paths = [pairs / "img001.png", pairs / "img002.png"]
    once = run.predict(paths, top_k=2)
    assert once.ids == ["img001", "img002"]
    assert once.vectors.dtype == np.float32
    assert once.scores.shape == (2, 2)
    for how in (
        ipc.predict(run, list(map(str, paths)), top_k=2),
        ipc.predict(run.folder, paths, top_k=2),
        ipc.predict(str(run.folder), paths, top_k=2),
        ipc.predict(run.name, paths, top_k=2, cache=run.home),
        ipc.predict(None, paths, top_k=2, cache=str(run.home)),
        ipc.predict(run, paths, top_k=2, cache=ipc.Cache(run.home)),
    ):
        np.testing.assert_array_equal(how.vectors, once.vectors)
        assert how.prompts == once.prompts
    alone = run.predict(str(paths[0]))
    assert alone.ids == ["img001"]
    assert len(alone.prompts[0]) == 3


def test_prompts_are_corrected_for_hubs_unless_that_is_turned_off(run, pairs, tmp_path):
    paths = [pairs / f"img{number:03d}.png" for number in range(6)]
    plain = run.predict(paths, top_k=5, hub_correction=False)
    bank = cached_bank(ipc.Cache(run.home), run.target)
    assert plain.prompts == bank.nearest(plain.vectors, 5)[0]
    # Held-out predictions that were all the prompt shown first make that one a hub.
    folder = shutil.copytree(run.folder, tmp_path / "run")
    hub = bank.vectors[bank.prompts.index(plain.prompts[0][0])]
    np.save(folder / "validation.npy", np.tile(hub, (4, 1)))
    told = ipc.predict(folder, paths, top_k=5, cache=run.home)
    assert told.prompts == bank.nearest(plain.vectors, 5, hub)[0]
    assert told.prompts != plain.prompts
    np.testing.assert_array_equal(told.vectors, plain.vectors)
    again = ipc.predict(folder, paths, top_k=5, cache=run.home, hub_correction=False)
    assert again.prompts == plain.prompts


def test_prompts_of_a_run_whose_held_out_predictions_are_lost_are_not_corrected(run, pairs, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    (folder / "validation.npy").unlink()
    events = []
    found = ipc.predict(folder, [pairs / "img001.png"], cache=run.home, progress=events.append)
    notes = [event.message for event in events if event.kind == "note"]
    assert any(text.startswith("the nearest prompts are not corrected for hubs: ") for text in notes)
    assert found.prompts == run.predict([pairs / "img001.png"], hub_correction=False).prompts


@pytest.mark.parametrize(("order", "doubted"), [(0.03, True), (0.5, False), (None, False)])
def test_expected_cosines_that_tell_little_are_said_to(run, pairs, tmp_path, order, doubted):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    record["expected"] |= {"spearman": order, "calibration_error": 0.1}
    (folder / "run.json").write_text(json.dumps(record))
    doubts = Run.load(folder).doubts
    assert ("rank correlation with the true ones is 0.03" in doubts) == bool(doubts) == doubted
    predicted, ranked = [], []
    ipc.predict(folder, [pairs / "img001.png"], cache=run.home, progress=predicted.append)
    ipc.top(run.home, folder, progress=ranked.append)
    for events in (predicted, ranked):
        said = [event.message for event in events if event.warning and "hardly tell" in event.message]
        assert said == [doubts] * doubted
    assert expected_lines(Run.load(folder))[1:] == [f"  {doubts}"] * doubted


def test_features_predict_as_the_rows_they_are_of(run):
    cache = ipc.Cache(run.home)
    features = np.hstack([cache.values(cache.column("features", use.spec)) for use in run.features])
    whole = np.isfinite(features).all(axis=1)
    found = run.predict(features[whole])
    cached = run.predict(cache)
    assert found.ids == [str(row) for row in range(whole.sum())]
    assert found.prompts is None
    assert cached.ids == [
        name for name, good in zip(cache.text("imgId")["imgId"], whole, strict=True) if good
    ]
    assert (1 - cosine(found.vectors, cached.vectors)).max() < 1e-6
    listed = run.predict(features[whole][:2].tolist(), top_k=1)
    np.testing.assert_allclose(listed.vectors, found.vectors[:2], atol=1e-6)
    assert len(listed.prompts) == 2
    assert len(run.predict(features[:0])) == 0


def test_rows_without_a_prompt_are_what_is_predicted_unless_images_are_named(run):
    assert run.predict().ids == ["img019"]


def test_progress_is_told_to_a_callback(run, pairs):
    events = []
    run.predict([pairs / "img001.png"], progress=events.append)
    steps = [(event.done, event.total) for event in events if event.task == "predict"]
    assert steps[0] == (0, 1)
    assert steps[-1] == (1, 1)


def test_predictions_are_written_on_the_way(run, pairs, tmp_path):
    found = run.predict([pairs / "img001.png"], out=tmp_path / "x.npy")
    assert found.prompts is None
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), found.vectors)


def test_a_prompt_is_composed_for_each_image_and_written(run, pairs, tmp_path):
    paths = [pairs / "img001.png", pairs / "img002.png"]
    found = run.predict(paths, compose=True, out=tmp_path / "x.parquet")
    assert len(found.composed) == 2
    assert all(prompt and prompt.isprintable() for prompt in found.composed)
    assert found.prompts is None
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["imgId", "embedding", "expected", "composed", "composed_cosine"]
    assert table["composed"].to_pylist() == found.composed
    (tmp_path / "bank.txt").write_text("a violin, velvet\na violin, chalk\n")
    both = run.predict(paths, compose=True, bank=tmp_path / "bank.txt", top_k=1)
    assert all("violin" in prompts[0] for prompts in both.prompts)
    assert (both.composed_cosines >= both.scores[:, 0] - 0.02).all()
    assert run.predict(paths).composed is None


def test_composing_takes_the_text_encoder_of_the_run(pairs, tiny, tmp_path):
    encoder = save_encoder(tmp_path / "encoder", seed=3)
    cache = tmp_path / "cache"
    tiny.extract(pairs, cache, encoder=f"st:local-dir:{encoder}")
    run = fit(ipc.Cache(cache), head="mean", split="random")
    shutil.rmtree(encoder)
    assert len(run.predict(run.home)) > 0
    with pytest.raises(UsageError, match=r"`compose=True` takes the text encoder .* there is no folder"):
        run.predict(run.home, compose=True)


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"images": np.zeros((2, 3))}, "images"),
        ({"images": [[1.0, "x"]]}, "images"),
        ({"images": 3 * [None]}, "images"),
        ({"top_k": -1}, "top_k"),
        ({"bank": "none.txt"}, "bank"),
        ({"out": "x.txt"}, "out"),
    ],
)
def test_an_error_carries_the_parameter_that_is_to_blame(run, pairs, arguments, parameter):
    with pytest.raises(UsageError, match=f"`{parameter}`") as caught:
        run.predict(**{"images": pairs / "img001.png", **arguments})
    assert caught.value.parameter == parameter


def test_bad_images_are_left_out_and_alone_are_a_failure(run, pairs):
    found = run.predict([pairs / "words.png", pairs / "img001.png"])
    assert found.ids == ["img001"]
    assert found.failed.keys() == {"words"}
    with pytest.raises(Img2PromptError, match="the one image could not be used"):
        run.predict(pairs / "words.png")


def test_without_its_cache_a_run_predicts_from_features(tmp_path):
    cache = make_cache(tmp_path / "cache")
    made = fit(cache, head="mean")
    moved = ipc.Run.load(shutil.move(made.folder, tmp_path / "moved"))
    shutil.rmtree(cache)
    features = np.zeros((3, sum(moved.widths)))
    assert len(moved.predict(features)) == 3
    with pytest.raises(UsageError, match="the cache of the run is gone"):
        moved.predict(features, top_k=2)
    with pytest.raises(UsageError, match="the cache of the run is gone"):
        moved.predict()


def test_a_picture_of_the_cache_is_known_again_by_its_bytes(run, pairs, tmp_path):
    copy, other = tmp_path / "renamed.png", paint(tmp_path / "other.png", 900)
    shutil.copy(pairs / "img004.png", copy)
    found = run.predict([copy, pairs / "words.png", other, pairs / "img019.png"], top_k=1)
    # The last one is a row of the cache without a prompt.
    assert found.own_prompts == [prompt_of(4), None, None]
    assert found.to_pandas()["own_prompt"].fillna("").tolist() == [prompt_of(4), "", ""]
    assert "own prompt" in found._repr_html_()
    assert "own_prompt" not in run.predict([other]).to_pandas()
    assert run.predict(run.home).own_prompts is None


def test_files_of_predictions_for_pictures_of_the_cache_come_with_a_note(run, pairs, tmp_path):
    events = []
    images = [pairs / "img004.png", pairs / "img019.png"]
    run.predict(images, out=tmp_path / "x.npy", progress=events.append)
    notes = [event.message for event in events if event.kind == "note"]
    assert notes[0].startswith("1 of 2 images is in the cache with a prompt of their own")


def test_a_picture_is_not_taken_for_one_with_the_same_hash(run, pairs):
    known = OwnPrompts(ipc.Cache(run.home))
    digest = hash_file(pairs / "img004.png")
    assert known.find([digest, "0" * 64]) == [prompt_of(4), None]
    known._hashes = np.full_like(known._hashes, hash("0" * 64))
    assert known.find(["0" * 64]) == [None]


def test_images_are_predicted_where_the_rows_of_the_cache_cannot_be_read(run, pairs, tmp_path):
    cache = shutil.copytree(run.home, tmp_path / "cache")
    for part in (cache / "rows").iterdir():
        part.write_bytes(b"damaged")
    events = []
    found = run.predict([pairs / "img004.png"], cache=cache, out=tmp_path / "x.npy", progress=events.append)
    assert found.own_prompts is None
    assert any("is in the cache cannot be told" in (event.message or "") for event in events)
