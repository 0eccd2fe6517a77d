from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads.space import Choices, LogUniform, Uniform, Whole, from_json, to_json

numbers = st.floats(1e-9, 1e9)
bounds = st.tuples(numbers, numbers).filter(lambda pair: pair[0] < pair[1])
whole = st.tuples(st.integers(-99, 99), st.integers(100, 999))
scalars = st.one_of(st.none(), st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False))
choices = st.lists(st.one_of(scalars, st.lists(scalars, max_size=3)), min_size=1, max_size=5)
ranges = st.one_of(
    bounds.map(lambda pair: Uniform(*pair)),
    bounds.map(lambda pair: LogUniform(*pair)),
    whole.map(lambda pair: Whole(*pair)),
    choices.filter(lambda values: all(v not in values[:i] for i, v in enumerate(values))).map(
        lambda values: Choices(tuple(values))
    ),
)


@given(st.dictionaries(st.text(max_size=5), ranges, min_size=1, max_size=4))
def test_json_and_back(space):
    assert from_json(json.loads(json.dumps(to_json(space))), "x") == space


def test_each_kind():
    data = {
        "lr": {"log": [1, 2]},
        "dropout": {"uniform": [0, 0.5]},
        "k": {"int": [1, 9]},
        "hidden": [[], [5, 6]],
        "optimizer": ["adam", None, True],
    }
    space = from_json(data, "x")
    assert space == {
        "lr": LogUniform(1.0, 2.0),
        "dropout": Uniform(0.0, 0.5),
        "k": Whole(1, 9),
        "hidden": Choices(([], [5, 6])),
        "optimizer": Choices(("adam", None, True)),
    }
    assert type(space["lr"].low) is float
    assert to_json(space) == data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "no search space"),
        ({}, "no search space"),
        (None, "no search space"),
        ({"lr": 0.1}, r"'lr': write a list of choices, or one of uniform, log, int"),
        ({"lr": {"log": [1, 2], "int": [1, 2]}}, "write a list of choices"),
        ({"lr": {"lgo": [1, 2]}}, r"kind of range 'lgo' in space\.json, 'lr'; did you mean log"),
        ({"lr": {"log": [1]}}, r"log takes two numbers, \[low, high\]"),
        ({"lr": {"log": {"low": 1, "high": 2}}}, "log takes two numbers"),
        ({"lr": {"log": ["1", "2"]}}, "log takes two numbers"),
        ({"lr": {"uniform": [False, True]}}, "uniform takes two numbers"),
        ({"lr": {"uniform": [0, float("inf")]}}, "uniform takes two numbers"),
        ({"k": {"int": [1, 2.5]}}, "int takes two whole numbers"),
        ({"k": {"int": [1, 10**400]}}, "int takes two whole numbers"),
        ({"lr": {"log": [2, 1]}}, "2 is not below 1"),
        ({"lr": {"uniform": [1, 1]}}, "1 is not below 1"),
        ({"lr": {"log": [0, 1]}}, "log takes numbers above 0, not 0"),
        ({"lr": []}, "nothing to choose from"),
        ({"lr": [1, 2, 1.0]}, r"1\.0 is there twice"),
        ({"lr": [float("nan")]}, "a choice is a finite number"),
        ({"lr": [{"a": 1}]}, "a choice is a finite number"),
        ({"hidden": [[[1]]]}, "a choice is a finite number"),
    ],
)
def test_what_is_no_space_is_told(data, words):
    with pytest.raises(UsageError, match=words):
        from_json(data, "space.json")
