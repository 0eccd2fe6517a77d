from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.fingerprints import digest, require_equal, weights_digest


@given(st.dictionaries(st.text(), st.text(), min_size=2), st.randoms())
def test_a_digest_is_of_the_fields_not_of_their_order(fields: dict[str, str], random: object) -> None:
    keys = list(fields)
    random.shuffle(keys)
    assert digest({key: fields[key] for key in keys}) == digest(fields)
    assert digest({**fields, keys[0]: fields[keys[0]] + "x"}) != digest(fields)
    assert digest({key: fields[key] for key in keys[1:]}) != digest(fields)


def test_weights_are_hashed_by_value() -> None:
    state = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(3)}
    same = {"a": torch.tensor(3), "b": torch.arange(6.0).view(3, 2).T.contiguous().T.reshape(2, 3)}
    assert weights_digest(state) == weights_digest(same)
    transposed = torch.stack([torch.arange(6.0)[i::3] for i in range(3)]).T
    assert not transposed.is_contiguous()
    assert weights_digest({**state, "b": transposed}) == weights_digest(state)
    for other in (
        {**state, "b": state["b"].view(3, 2)},
        {**state, "b": state["b"].to(torch.bfloat16)},
        {**state, "b": state["b"] + 1},
        {**state, "c": torch.tensor(0)},
        {"b": state["b"], "A": state["a"]},
    ):
        assert weights_digest(other) != weights_digest(state)


def test_every_field_that_differs_is_named_with_both_values() -> None:
    require_equal("column x", {"a": "1", "b": "2"}, {"b": "2", "a": "1"}, "No advice.")
    with pytest.raises(Img2PromptError) as caught:
        require_equal(
            "column x",
            {"precision": "bf16", "same": "1", "weights": "w" * 100},
            {"precision": "fp32", "same": "1", "clean": "none"},
            "Make a new one.",
        )
    assert str(caught.value) == (
        "column x was made differently: clean was absent, is now none; precision was bf16, is now fp32; "
        f"weights was {'w' * 57}…, is now absent. Make a new one."
    )
