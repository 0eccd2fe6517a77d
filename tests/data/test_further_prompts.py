"""Several prompts of a row: their mean and their groups, against NumPy, pandas and plain Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import Dataset, load_dataset, load_prompts
from img2prompt_cache.data.dedup import find_duplicates
from img2prompt_cache.data.further_prompts import FurtherPrompts, all_vectors, further_texts, load_further
from img2prompt_cache.data.grouping import group_rows
from img2prompt_cache.data.groups import prompt_groups
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.metrics import unit
from synthetic import ENCODER, make_cache

COUNTS = [row % 4 for row in range(20)]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(
        make_cache(tmp_path / "cache", 20, groups=20, failed=[6], without_prompt=[4], further=COUNTS)
    )


def read(cache: Cache, **options: object) -> Dataset:
    return load_dataset(cache, choose_features(cache, ()), choose_target(cache, None), **options)  # type: ignore[arg-type]


def stacked(cache: Cache) -> np.ndarray:
    """All embeddings as another HDF5 reader would find them: NaN where a row has no prompt."""
    first = cache.values(cache.column("targets", ENCODER))
    return np.concatenate([first[:, None], cache.values(cache.column("more_targets", ENCODER))], axis=1)


def test_the_mean_of_a_row_is_that_of_all_its_prompts(cache: Cache) -> None:
    data = read(cache)
    wanted = np.nanmean(stacked(cache)[data.rows].astype(np.float64), axis=1)
    assert data.means is not None
    np.testing.assert_allclose(data.means, wanted, atol=1e-7)
    assert data.training_targets is data.means
    assert np.linalg.norm(data.means, axis=1).min() < 0.99  # not scaled to length 1
    first = read(cache, train_on="first")
    assert first.training_targets is first.y
    np.testing.assert_array_equal(first.y, data.y)
    assert len(all_vectors(data.y, data.further)) == sum(1 + COUNTS[row] for row in data.rows)


def test_rows_without_further_prompts_are_as_they_always_were(tmp_path: Path) -> None:
    cache = Cache(make_cache(tmp_path / "one"))
    data = read(cache)
    assert data.further is None
    assert data.means is None
    assert data.training_targets is data.y
    assert all_vectors(data.y, data.further) is data.y
    # A cache that has the column, but not for these rows.
    few = Cache(make_cache(tmp_path / "few", 20, further=COUNTS))
    assert read(few, only=["i000", "i004"]).means is None


def test_a_bank_has_every_prompt_of_every_row_once(cache: Cache) -> None:
    prompts, vectors = load_prompts(cache, choose_target(cache, None))
    there = [row for row in range(20) if row != 4]
    wanted = [f"prompt {row} of {row}" for row in there]
    wanted += [
        f"prompt {row} of {row}, again {n}" for row in range(20) if row != 4 for n in range(COUNTS[row])
    ]
    assert prompts == wanted
    both = stacked(cache)
    places = [(row, 0) for row in there] + [(row, 1 + n) for row in there for n in range(COUNTS[row])]
    np.testing.assert_array_equal(vectors, both[tuple(np.array(places).T)])


def test_texts_that_do_not_fit_their_embeddings_are_refused(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Cache.text

    def without_further(self: Cache, *names: str) -> dict[str, list[str]]:
        found = text(self, *names)
        return {name: ["[]"] * 20 if name == "more_prompts" else found[name] for name in names}

    monkeypatch.setattr(Cache, "text", without_further)
    with pytest.raises(Img2PromptError, match="do not fit the further prompts"):
        further_texts(cache, choose_target(cache, None), np.arange(20))


def near(groups: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(rows) for rows in pd.Series(range(len(groups))).groupby(groups).apply(list)}


def test_rows_are_one_group_if_any_of_their_prompts_are_near_identical(tmp_path: Path) -> None:
    folder = make_cache(tmp_path / "cache", 20, groups=20, further=COUNTS)
    cache = Cache(folder)
    column = cache.column("more_targets", ENCODER)
    plain = read(cache)
    assert len(near(group_rows(cache, plain))) == 20
    # The last prompt of row 3 becomes the first of row 9, in the part itself.
    with (folder / column.parts[0].file).open("r+b") as file:
        old = cache.values(column)[3, 2].tobytes()
        data = file.read()
        assert data.count(old) == 1
        file.seek(data.index(old))
        file.write(plain.y[9].tobytes())
    further = FurtherPrompts(np.array([3]), plain.y[[9]])
    assert frozenset({3, 9}) in near(prompt_groups(plain.y, plain.prompts, further=further))
    with pytest.raises(Img2PromptError, match=r"more_targets/.*h5"):
        load_further(cache, choose_target(cache, None), plain.rows)


def test_dedup_compares_every_prompt(tmp_path: Path) -> None:
    cache = Cache(
        make_cache(tmp_path / "cache", 20, groups=20, further=COUNTS, failed=[5], without_prompt=[2])
    )
    features, target = choose_features(cache, ())[0], choose_target(cache, None)
    found = find_duplicates(cache, 0.9, features, target)
    data = read(cache)
    groups = prompt_groups(data.y, data.prompts, threshold=0.9, further=data.further)
    assert near(found.prompt_group[data.rows]) == near(groups)
    assert len(near(groups)) == len(data.rows)
    assert data.further is not None
    # The least threshold at which two rows are joined by a further prompt only.
    owner = np.concatenate([np.arange(len(data.rows)), data.further.row])
    vectors = all_vectors(data.y, data.further)
    cosines = vectors @ vectors.T
    cosines[owner[:, None] == owner] = -1
    threshold = float(cosines.max()) - 1e-6
    assert cosines[: len(data.rows), : len(data.rows)].max() < threshold
    row = tuple(data.rows[owner[list(np.unravel_index(cosines.argmax(), cosines.shape))]])
    loose = find_duplicates(cache, threshold, features, target)
    assert loose.prompt_group[row[0]] == loose.prompt_group[row[1]]
    assert len(near(loose.prompt_group[data.rows])) == len(data.rows) - 1


ANGLES = st.lists(st.lists(st.integers(0, 35), min_size=1, max_size=3), min_size=1, max_size=12)


@given(ANGLES)
def test_groups_are_the_components_of_a_graph_of_rows(rows: list[list[int]]) -> None:
    def vectors(angles: list[int]) -> np.ndarray:
        turn = np.deg2rad(10.0 * np.array(angles))
        return np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)

    threshold = float(np.cos(np.deg2rad(15)))  # neighbours on the circle are near, others are not
    label = list(range(len(rows)))
    for _ in rows:
        for a, some in enumerate(rows):
            for b, others in enumerate(rows):
                if any(min((x - y) % 36, (y - x) % 36) <= 1 for x in some for y in others):
                    label[a] = label[b] = min(label[a], label[b])
    first = vectors([row[0] for row in rows])
    owner = np.array([at for at, row in enumerate(rows) for _ in row[1:]], np.int64)
    others = [angle for row in rows for angle in row[1:]]
    further = FurtherPrompts(owner, vectors(others)) if others else None
    groups = prompt_groups(first, [str(row[0]) for row in rows], threshold=threshold, further=further)
    assert near(groups) == near(np.array(label))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_means_and_selections_are_those_of_pandas(counts: list[int], random: object) -> None:
    rng = np.random.default_rng(len(counts))
    first = unit(rng.normal(size=(len(counts), 5)))
    further = FurtherPrompts(
        np.repeat(np.arange(len(counts)), counts), unit(rng.normal(size=(sum(counts), 5)))
    )
    frame = pd.DataFrame(np.concatenate([first, further.vectors]).astype(np.float64))
    frame["row"] = [*range(len(counts)), *further.row]
    np.testing.assert_allclose(further.means(first), frame.groupby("row").mean(), atol=1e-6)
    rows = list(range(len(counts)))
    random.shuffle(rows)  # type: ignore[attr-defined]
    kept = np.array(rows[: len(rows) // 2 + 1])
    np.testing.assert_array_equal(further.select(kept).means(first[kept]), further.means(first)[kept])
