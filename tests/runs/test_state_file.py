from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from img2prompt_cache.numerics.disk_array import to_disk
from img2prompt_cache.runs import state_file
from img2prompt_cache.runs.state_file import read_state, write_state

TYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 5), min_size=1, max_size=3)),
        max_size=8,
    )
)
def test_the_file_is_that_of_the_library_byte_for_byte(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("state")
    rng = np.random.default_rng(0)
    state = {name: (rng.random(shape) * 100).astype(kind) for name, (kind, shape) in drawn.items()}
    save_file(state, folder / "theirs")
    write_state(folder / "ours", state)
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()


@pytest.mark.parametrize("mapped", [1, 1 << 24])
def test_what_was_written_is_read_and_can_be_written_to(mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(state_file, "MAPPED", mapped)
    monkeypatch.setattr(state_file, "BLOCK", 64)
    rng = np.random.default_rng(0)
    state = {
        "long name": rng.random((9, 7)).astype(np.float16),
        "a": rng.random((3, 5)),
        "none": np.empty((0, 3), np.float32),
        "k": np.array([3]),
        "codes": np.arange(101, dtype=np.uint8),
        "on disk": to_disk([np.ones((40, 3)), np.zeros((2, 3))], 3, np.float16),
    }
    path = tmp_path / "head.safetensors"
    write_state(path, state)
    before = path.read_bytes()
    found = read_state(path)
    assert found.keys() == state.keys() == load_file(path).keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)
    found["a"][:] = 0
    assert path.read_bytes() == before


def test_what_lies_in_two_layouts_is_written_in_one(tmp_path):
    matrix = np.arange(12.0).reshape(3, 4)
    write_state(tmp_path / "x", {"a": matrix.T, "b": matrix[:, ::2]})
    found = load_file(tmp_path / "x")
    np.testing.assert_array_equal(found["a"], matrix.T)
    np.testing.assert_array_equal(found["b"], matrix[:, ::2])


def test_a_type_that_no_such_file_has_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"array 'a' is of type <U1"):
        write_state(tmp_path / "x", {"a": np.array(["x"])})


@pytest.mark.parametrize("what", ["cut", "longer", "header", "offsets", "huge"])
def test_a_file_that_is_not_whole_is_refused(what, tmp_path, monkeypatch):
    monkeypatch.setattr(state_file, "MAPPED", 1)
    path = tmp_path / "head.safetensors"
    write_state(path, {"a": np.ones((20, 3), np.float32), "b": np.ones(4, np.float16)})
    data = path.read_bytes()
    changed = {
        "cut": data[:-9],
        "longer": data + b"12345678",
        "header": (1 << 40).to_bytes(8, "little") + data[8:],
        "offsets": data.replace(b'"data_offsets":[0,240]', b'"data_offsets":[8,248]'),
        "huge": data.replace(b'"shape":[20,3]', b'"shape":[99,3]'),
    }[what]
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(SafetensorError):
        read_state(path)
