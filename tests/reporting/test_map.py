from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.progress import ignore
from img2prompt_cache.reporting.material import Material
from img2prompt_cache.reporting.pictures import picture
from img2prompt_cache.reporting.projection import cluster, name_clusters, project
from img2prompt_cache.reporting.report import plain
from img2prompt_cache.reporting.sections.map import gather, levels
from img2prompt_cache.reporting.sprites import COLUMNS, SIDE, make_sprite
from synthetic import make_cache


def blobs(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n unit vectors around k directions, and the direction of each."""
    rng = np.random.default_rng(seed)
    of = np.arange(n) % k
    return unit((np.eye(16)[of] + 0.05 * rng.normal(size=(n, 16))).astype(np.float32)), of


@settings(deadline=None)
@given(n=st.integers(2, 99), seed=st.integers(0, 9), equal=st.booleans())
def test_few_vectors_are_placed_by_principal_components_in_the_unit_square(n, seed, equal):
    vectors = unit(np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32))
    if equal:
        vectors[:] = vectors[0]
    places, method = project(vectors)
    assert method == "PCA"
    assert places.shape == (n, 2)
    assert ((places >= 0) & (places <= 1)).all()


def test_many_vectors_are_placed_by_t_sne_the_same_each_time_and_near_ones_near():
    pytest.importorskip("openTSNE")
    vectors, of = blobs(150, 3)
    places, method = project(vectors, seed=1)
    assert method == "t-SNE"
    assert np.array_equal(places, project(vectors, seed=1)[0])
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (of[distance.argmin(axis=1)] == of).mean() > 0.95


def test_equal_vectors_are_placed_too():
    pytest.importorskip("openTSNE")
    places, _ = project(np.tile(np.eye(4, dtype=np.float32)[:1], (120, 1)))
    assert np.isfinite(places).all()


def test_clusters_are_found_the_largest_first_and_named_by_their_words():
    vectors, of = blobs(180, 3)
    keep = (of > 0) | (np.arange(180) % 2 == 0)
    vectors, of = vectors[keep], of[keep]
    label = cluster(vectors)
    assert len({(a, b) for a, b in zip(label.tolist(), of.tolist(), strict=True)}) == 3
    counts = np.bincount(label)
    assert list(counts) == sorted(counts, reverse=True)
    words = ["a fox in snow", "a boat on the sea", "a castle on a hill"]
    names = name_clusters([words[each] for each in of.tolist()], label)
    assert {*names[label[of == 0][0]].split(", ")} == {"fox", "snow"}
    assert name_clusters(["1 2 3"], np.zeros(1, np.int64)) == ["no words"]


def test_scores_are_divided_into_fifths():
    assert levels([0.1, None, 0.2, 0.3, 0.4, 0.5]) == [0, -1, 1, 2, 3, 4]
    assert levels([None, None]) == [-1, -1]
    assert levels([0.3]) == [4]


def test_the_map_has_the_rows_with_their_scores(fitted):
    found = gather(Material.of_cache(Cache(fitted), ["ridge-one+other-01"]), ignore)
    assert len(found.rows) == found.of == 60
    assert [len(view.x) for view in found.views] == [60, 60]
    assert sum(score is not None for score in found.score) == 12
    assert sum(each.points for each in found.clusters) == 60
    assert found.programs == []
    values = plain(found)
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_rows_without_prompt_or_image_are_not_on_it(tmp_path):
    folder = make_cache(tmp_path / "cache", failed=[3], without_prompt=[5])
    found = gather(Material.of_cache(Cache(folder)), ignore)
    assert {*range(60)} - {*found.rows} == {3, 5}
    assert found.run == ""


def test_features_that_are_not_finite_leave_the_map_of_prompts(tmp_path):
    found = gather(Material.of_cache(Cache(make_cache(tmp_path / "cache", nan=[3]))), ignore)
    assert len(found.views) == 1
    assert "no map of images" in found.notes[0]


def test_programs_have_colours_and_the_rarest_share_one(fitted, tmp_path):
    material = Material.of_cache(Cache(shutil.copytree(fitted, tmp_path / "cache")))
    material.rows.found_in[:] = [f"program {min(row // 6, 9)}" for row in range(60)]
    found = gather(material, ignore)
    assert len(found.programs) == 8
    assert found.programs[-1].name == "others"
    assert sum(each.points for each in found.programs) == 60
    assert max(found.program) == 7


def test_small_pictures_are_put_into_one():
    file = io.BytesIO()
    Image.new("RGB", (200, 100), "red").save(file, "PNG")
    one = picture(file.getvalue())
    made = make_sprite([one, "it is gone"] * 20)
    assert (made.width, made.height) == (COLUMNS * SIDE, 2 * SIDE)
    assert made.source.startswith("data:image/webp;base64,")
    assert make_sprite(["it is gone"]) is None
