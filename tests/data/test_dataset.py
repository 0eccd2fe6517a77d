from __future__ import annotations

import h5py
import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target, choose_trunk
from img2prompt_cache.data.dataset import load_dataset, load_prompts
from img2prompt_cache.errors import Img2PromptError, UsageError
from synthetic import ENCODER, ONE, OTHER, make_cache


def read(folder, column, part):
    with h5py.File(folder / column.parts[part].file) as file:
        return file["values"][:]


def test_rows_are_those_that_can_be_used_and_features_are_joined_in_the_order_named(tmp_path):
    cache = Cache(make_cache(tmp_path / "c", 40, without_prompt=[3, 20], failed=[5, 39]))
    features = choose_features(cache, (OTHER, ONE))
    data = load_dataset(cache, features, choose_target(cache, None))
    assert data.rows.tolist() == [row for row in range(40) if row not in (3, 20, 5, 39)]
    assert data.widths == (8, 24)
    wanted = [np.concatenate([read(cache.folder, c, part) for part in range(3)]) for c in features]
    np.testing.assert_array_equal(data.X, np.hstack(wanted)[data.rows].astype(np.float32))
    target = cache.column("targets", ENCODER)
    all_targets = np.concatenate([read(cache.folder, target, part) for part in range(3)])
    np.testing.assert_array_equal(data.y, all_targets[data.rows])
    assert data.ids[3] == "i004"
    assert data.prompts[3] == "prompt 4 of 4"
    assert data.images[3] == f"{4:064x}"


@pytest.mark.parametrize(("with_prompt", "rows"), [(False, [3, 20]), (None, [*range(5), *range(6, 40)])])
def test_rows_without_a_prompt_need_no_target(tmp_path, with_prompt, rows):
    cache = Cache(make_cache(tmp_path / "c", 40, without_prompt=[3, 20], failed=[5]))
    data = load_dataset(cache, choose_features(cache, ()), with_prompt=with_prompt)
    assert data.rows.tolist() == rows
    assert data.y.shape == (len(rows), 0)


def test_an_image_that_could_not_be_read_again_for_a_column_is_left_out(tmp_path):
    folder = make_cache(tmp_path / "c", 20)
    manifest = folder / "cache.json"
    text = manifest.read_text()
    assert text.count('"missing": []') == 8
    at = text.index('"missing": []', text.index(OTHER))
    manifest.write_text(text[:at] + '"missing": [2, 7]' + text[at + len('"missing": []') :])
    cache = Cache(folder)
    target = choose_target(cache, None)
    rows = load_dataset(cache, choose_features(cache, (ONE, OTHER)), target).rows.tolist()
    assert rows == [row for row in range(20) if row not in (2, 7)]
    assert len(load_dataset(cache, choose_features(cache, (ONE,)), target).rows) == 20


@pytest.mark.parametrize(
    ("specs", "words"),
    [((ONE, ONE), "twice"), (("timm:oen",), "did you mean timm:one"), (("",), "did you mean")],
)
def test_features_that_are_not_there(tmp_path, specs, words):
    cache = Cache(make_cache(tmp_path / "c", 8))
    with pytest.raises(UsageError, match=words):
        choose_features(cache, specs)


def test_values_that_are_not_finite_are_refused_and_located(tmp_path):
    cache = Cache(make_cache(tmp_path / "c", 40, nan=[17, 30], failed=[17]))
    with pytest.raises(Img2PromptError, match=r"features/timm-one holds NaN .* first in row 30;.*verify"):
        load_dataset(cache, choose_features(cache, ()), choose_target(cache, None))


def test_damage_is_found_before_a_value_is_used(tmp_path):
    cache = Cache(make_cache(tmp_path / "c", 40))
    part = cache.folder / cache.column("features", OTHER).parts[1].file
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    with pytest.raises(Img2PromptError, match=r"00001\.h5 is damaged: its bytes have changed"):
        load_dataset(cache, choose_features(cache, ()), choose_target(cache, None))
    assert len(load_dataset(cache, choose_features(cache, (ONE,)), choose_target(cache, None)).rows) == 40


def test_rows_of_a_trunk_are_read_when_they_are_asked_for(tuned, tiny):
    cache = Cache(tuned)
    trunk = choose_trunk(cache, (tiny.vit,))
    data = load_dataset(cache, (trunk,), choose_target(cache, None), views=True)
    whole = cache.values(trunk)
    assert data.widths == (5 * 64,)
    assert data.X.shape == (len(data.rows), 5, 64)
    assert data.X.views == 2
    np.testing.assert_array_equal(np.asarray(data.X[3:9]), whole[data.rows[3:9]])
    for view in (1, 2):
        values = cache.values(cache.column("views", f"{tiny.vit}#k2-v2"))[data.rows, view - 1]
        np.testing.assert_array_equal(np.asarray(data.X.with_views(np.full(len(data.rows), view))), values)
    # Views are for training: prediction needs none.
    assert load_dataset(cache, (trunk,), with_prompt=None).X.views == 0


@pytest.mark.parametrize(
    ("which", "blocks", "end"),
    [("vit", None, "#k2"), ("vit", 1, "#k1"), ("vit", 2, "#k2"), ("vit#k2-int8", None, "#k2-int8")],
)
def test_the_trunk_with_the_fewest_blocks_that_are_enough_is_taken(tuned, tiny, which, blocks, end):
    name, mark, suffix = which.partition("#")
    spec = f"{getattr(tiny, name)}{mark}{suffix}"
    assert choose_trunk(Cache(tuned), (spec,), blocks).spec == f"{tiny.vit}{end}"
    assert choose_trunk(Cache(tuned), (), blocks).spec.startswith(
        tiny.vit
    )  # the only one there is a trunk of


def test_trunks_that_are_not_there(tuned, made, tiny):
    cache = Cache(tuned)
    with pytest.raises(UsageError, match="finetune trains one backbone; name one with `features`"):
        choose_trunk(cache, (tiny.vit, tiny.cnn))
    with pytest.raises(
        UsageError, match=rf"no trunk of .*cnn is cached; there is one of {tiny.vit}; run"
    ) as told:
        choose_trunk(cache, (tiny.cnn,))
    assert f'`extract(cache="{tuned}", backbones="{tiny.cnn}", trunk=K)`' in str(told.value)
    with pytest.raises(UsageError, match=r"`blocks=3`: .* before its last 2 blocks; run .* trunk=3\)`"):
        choose_trunk(cache, (tiny.vit,), 3)
    with pytest.raises(UsageError, match=r"before its last 2 blocks; run .* trunk=3\)`"):
        choose_trunk(cache, (f"{tiny.vit}#k2",), 3)
    with pytest.raises(UsageError, match=r"trunk=9\)`"):
        choose_trunk(cache, (f"{tiny.vit}#k9",))
    with pytest.raises(UsageError, match="unknown features column 'timm:none'"):
        choose_trunk(cache, ("timm:none",))
    with pytest.raises(UsageError, match=r"has no trunk column; run .* trunk=K\)`"):
        choose_trunk(Cache(made), ())
    with pytest.raises(UsageError, match=r"no trunk of .* is cached; run .* trunk=4\)`"):
        choose_trunk(Cache(made), (tiny.cnn,), 4)


def test_no_usable_row_is_said(tmp_path):
    cache = Cache(make_cache(tmp_path / "c", 8, without_prompt=range(8)))
    with pytest.raises(UsageError, match="no usable image with a prompt"):
        load_dataset(cache, choose_features(cache, ()), choose_target(cache, None))
    with pytest.raises(UsageError, match=r"unknown targets column .*did you mean st:some"):
        choose_target(cache, "st:sum")


def test_every_distinct_prompt_once(tmp_path):
    cache = Cache(make_cache(tmp_path / "c", 30, without_prompt=[0, 29]))
    target = cache.column("targets", ENCODER)
    prompts, vectors = load_prompts(cache, target)
    assert prompts == [f"prompt {row} of {row % 20}" for row in range(1, 29)]
    np.testing.assert_array_equal(vectors, cache.values(target, np.arange(1, 29)))
