from __future__ import annotations

import json

import pytest

from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads import HEADS, space_of
from img2prompt_cache.heads.space import Choices, LogUniform
from img2prompt_cache.tuning.spaces import find_space

SEARCHED = [name for name in HEADS if space_of(name)]


@pytest.mark.parametrize("head", SEARCHED)
def test_every_head_takes_its_own_space(head):
    assert find_space(head) == space_of(head)


def test_the_heads_with_settings_that_matter_are_searched():
    assert {"knn", "ridge", "kernel", "mlp"} <= {*SEARCHED}
    assert {"lr", "batch_size", "dropout", "weight_decay", "optimizer"} <= {*space_of("mlp")}


def test_the_seeds_space():
    space = find_space("mlp", "seed")
    assert {setting: each.values for setting, each in space.items()} == {
        "lr": (1e-5, 3e-5, 1e-4, 3e-4),
        "batch_size": (16, 32, 64),
        "dropout": (0.2, 0.3, 0.4),
        "weight_decay": (1e-5, 1e-4, 0),
        "optimizer": ("adam", "sgd"),
    }


def test_a_users_own(tmp_path):
    file = tmp_path / "space.json"
    file.write_text(json.dumps({"lr": {"log": [1e-4, 1e-3]}, "hidden": [[], [8, 8]]}))
    assert find_space("mlp", str(file)) == {
        "lr": LogUniform(1e-4, 1e-3),
        "hidden": Choices(([], [8, 8])),
    }


@pytest.mark.parametrize(
    ("head", "text", "words"),
    [
        ("mlp", '{"lrr": [1]}', r"setting 'lrr' of head 'mlp'; did you mean lr"),
        ("mlp", '{"lr": ["fast"]}', r"head 'mlp' takes lr as float or None, not 'fast'"),
        ("mlp", '{"batch_size": {"uniform": [16, 64]}}', r"takes batch_size as int or None, not 16\.0"),
        ("mlp", '{"hidden": [512]}', r"head 'mlp' takes hidden as"),
        ("mlp", '{"seed": [1, 2]}', "a search space has no seed: `seed` gives it"),
        ("mlp", '{"lr": [NaN]}', "a choice is a finite number"),
        ("mlp", "{", "is no JSON"),
        ("mlp", "[" * 99999, "is no JSON"),
        ("mlp", "\xff", "is no JSON"),
        ("ridge", '{"k": [1]}', r"setting 'k' of head 'ridge'"),
        ("mean", '{"k": [1]}', r"head 'mean' has nothing to search; these have: .*knn"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(tmp_path, head, text, words):
    file = tmp_path / "space.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=words):
        find_space(head, str(file))


def test_names_that_are_no_space(tmp_path):
    with pytest.raises(UsageError, match="`space`: there is no file sede, and no preset but seed"):
        find_space("mlp", "sede")
    with pytest.raises(UsageError, match=r"cannot be read: Is a directory"):
        find_space("mlp", str(tmp_path))
    with pytest.raises(UsageError, match=r"setting 'lr' of head 'ridge'"):
        find_space("ridge", "seed")
    with pytest.raises(UsageError, match=r"'mean' has nothing to search; these have: .*knn, ridge"):
        find_space("mean")
    with pytest.raises(UsageError, match="unknown head 'mpl'"):
        find_space("mpl")
