from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.grouping import MINILM, choose_grouping, group_rows, is_minilm
from img2prompt_cache.errors import UsageError
from img2prompt_cache.numerics.metrics import unit
from synthetic import make_cache, make_column

OTHER = "st:all-mpnet-base-v2"


@pytest.fixture
def folder(tmp_path):
    """20 groups of 3 prompts."""
    return make_cache(tmp_path / "cache", encoder=OTHER)


def read(folder, spec=None):
    cache = Cache(folder)
    return cache, load_dataset(cache, choose_features(cache, ()), choose_target(cache, spec))


def add_targets(folder, spec, make):
    """Add the targets of another encoder, made from those of the first; give these."""
    manifest = load_manifest(folder)
    column = manifest.column("targets", OTHER)
    vectors = Cache(folder).values(column)
    added = make_column(folder, "targets", spec, unit(make(vectors)), 60, 16)
    save_manifest(folder, replace(manifest, columns=(*manifest.columns, added)))
    return vectors


def keep_targets(folder, spec):
    manifest = load_manifest(folder)
    kept = tuple(each for each in manifest.columns if each.kind != "targets" or each.spec == spec)
    save_manifest(folder, replace(manifest, columns=kept))


@pytest.mark.parametrize(
    "spec", [f"packaged:{MINILM}", f"st:{MINILM}", f"st:sentence-transformers/{MINILM}@a"]
)
def test_prompts_are_grouped_by_minilm_where_it_is_cached_whatever_is_predicted(folder, spec):
    # Half of all cosines in this space are above 0.8; by the first column there would be other groups.
    add_targets(folder, spec, lambda vectors: vectors[:, :4] + 0.3)
    cache, data = read(folder)
    grouping = choose_grouping(cache, data)
    assert (grouping.column.spec, grouping.threshold, grouping.fitted) == (spec, 0.8, False)
    assert data.target is not None
    assert data.target.spec == OTHER
    groups = group_rows(cache, data)
    assert np.array_equal(groups, group_rows(*read(folder, spec)))
    assert len(np.unique(groups)) < 20


def test_minilm_is_known_by_its_weights_not_by_the_name_of_a_folder():
    weights = {"weights": "sha256:cfbf91e1b52dad42a15d2f10cb3672e5c7a44c1db88deb43bbd7390898c7ee09"}
    for spec, fingerprint, known in (
        ("st:local-dir:/models/mini", weights, True),
        (f"st:local-dir:/models/{MINILM}", {"weights": "sha256:0"}, False),
        (f"st:other/{MINILM}-finetuned", {}, False),
        ("st:all-mpnet-base-v2", {}, False),
    ):
        assert is_minilm(Column("targets", spec, "x", (384,), "float32", fingerprint)) == known


def families(seed=0):
    """Embeddings as MiniLM's: 20 groups of 3 prompts with cosines of 0.9, in families with cosines of 0.6."""
    rng = np.random.default_rng(seed)
    family, own, each = (unit(rng.normal(size=(count, 384))) for count in (5, 20, 60))
    row = np.arange(60)
    return unit(np.sqrt(0.6) * family[row % 5] + np.sqrt(0.3) * own[row % 20] + np.sqrt(0.1) * each)


@pytest.mark.parametrize(("dim", "shift"), [(384, 0), (384, 1), (256, 2)])
def test_the_threshold_of_another_encoder_is_fitted_so_that_its_groups_are_those_of_minilm(
    folder, dim, shift
):
    """The other encoder is a random linear map of MiniLM, with a direction that all embeddings share."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(384, dim)) / np.sqrt(dim)
    offset = shift * rng.normal(size=dim) / np.sqrt(dim)
    minilm = f"packaged:{MINILM}"
    add_targets(folder, minilm, lambda vectors: families())
    add_targets(folder, "st:mapped", lambda vectors: families() @ matrix + offset)
    truth = group_rows(*read(folder))
    assert len(np.unique(truth)) == 20
    keep_targets(folder, "st:mapped")
    cache, data = read(folder)
    grouping = choose_grouping(cache, data)
    assert grouping.fitted
    assert grouping.column.spec == "st:mapped"
    assert "fitted to the cosines" in grouping.describe()
    assert np.array_equal(group_rows(cache, data), truth)
    fixed = group_rows(cache, data, replace(grouping, threshold=0.8))
    assert (len(np.unique(fixed)) < 20) == (shift > 0)


def test_a_threshold_that_is_given_is_taken(folder):
    cache, data = read(folder)
    grouping = choose_grouping(cache, data, 0.9999)
    assert (grouping.threshold, grouping.fitted) == (0.9999, False)
    assert len(np.unique(group_rows(cache, data, grouping))) == 60
    for wrong in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(UsageError, match="`group_threshold` is a cosine") as caught:
            choose_grouping(cache, data, wrong)
        assert caught.value.parameter == "group_threshold"
