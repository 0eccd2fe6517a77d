"""Where heads compute: on the device that the caller names, which no run records."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone

from estimators import MLP, QUICK, problem
from img2prompt_cache.data.trunk_rows import TrunkRows
from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads import HEADS, make_head, settings_of
from img2prompt_cache.numerics.metrics import unit
from trunks import column_of

WITH_TORCH = {
    "mlp": MLP,
    "linear": QUICK["linear"],
    "wide-mlp": QUICK["wide-mlp"],
    "seed-resnet50": QUICK["seed-resnet50"],
    "seed-tuned-resnet": QUICK["seed-tuned-resnet"],
    "distil": QUICK["distil"],
    "blend": {"members": [{"head": "ridge"}, {"head": "mlp", "settings": MLP}], "weights": [1.0, 2.0]},
    "best": {"members": [{"head": "ridge"}, {"head": "mlp", "settings": MLP}], "weights": [1.0, 2.0]},
    "finetune": {"max_epochs": 1, "alpha": 1.0},
}
every_head_with_torch = pytest.mark.parametrize("name", WITH_TORCH)


class Values:
    """Random values of a trunk column."""

    def __init__(self, column):
        self.column = column

    def __getitem__(self, rows):
        return np.random.default_rng(0).normal(size=(len(rows), *self.column.shape)).astype(np.float32)


@pytest.fixture
def fits(tiny):
    """Give a head of a name, its rows, and its columns, if it has to be told them."""

    def make(name):
        if name != "finetune":
            return make_head(name, **WITH_TORCH[name]), *problem(60), ()
        column = column_of(tiny.cnn, 1)
        y = unit(np.random.default_rng(1).normal(size=(12, 6)))
        rows = TrunkRows(Values(column), np.arange(12))
        return make_head(name, **WITH_TORCH[name]), rows, y, np.arange(12), (column,)

    return make


@every_head_with_torch
def test_a_head_fits_predicts_and_loads_on_the_cpu_beside_a_gpu(fits, name, request):
    head, X, y, groups, columns = fits(name)
    expected = clone(head).fit(X, y, groups=groups).predict(X)
    request.getfixturevalue("pretended_gpu")
    on_cpu = clone(head).use_device("cpu")
    assert on_cpu.device == "cpu"
    np.testing.assert_array_equal(on_cpu.fit(X, y, groups=groups).predict(X), expected)
    again = clone(on_cpu).bind(columns).load_state(on_cpu.state())
    np.testing.assert_array_equal(again.predict(X), expected)


@every_head_with_torch
def test_auto_is_the_gpu(fits, name, request):
    if torch.cuda.is_available():
        pytest.skip("a GPU is there, and works")
    head, X, y, groups, columns = fits(name)
    state = clone(head).fit(X, y, groups=groups).state()
    request.getfixturevalue("pretended_gpu")
    with pytest.raises((RuntimeError, AssertionError), match=r"NVIDIA|CUDA"):
        clone(head).fit(X, y, groups=groups)
    with pytest.raises((RuntimeError, AssertionError), match=r"NVIDIA|CUDA"):
        clone(head).bind(columns).load_state(state).predict(X)


@every_head_with_torch
def test_a_device_that_is_not_there_is_refused_by_fit_and_predict(fits, name):
    head, X, y, groups, _ = fits(name)
    with pytest.raises(UsageError, match="device cuda:64 is not there"):
        clone(head).use_device("cuda:64").fit(X, y, groups=groups)
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        clone(head).use_device("gpu").fit(X, y, groups=groups)
    head.fit(X, y, groups=groups)
    with pytest.raises(UsageError, match="device cuda:64 is not there"):
        head.use_device("cuda:64").predict(X)
    head.use_device("cpu").predict(X)


def test_only_heads_that_compute_with_torch_take_a_device():
    with_device = {name for name in HEADS if "device" in make_head(name).get_params()}
    assert with_device == {*WITH_TORCH, "seed-vit"}
    X, y, _ = problem(20)
    assert np.isfinite(make_head("ridge").use_device("cuda:64").fit(X, y).predict(X)).all()


@every_head_with_torch
def test_a_device_is_no_setting(name):
    assert "device" not in settings_of(name)
    assert "device" not in make_head(name).use_device("cpu").settings
    with pytest.raises(UsageError, match=f"unknown setting 'device' of head '{name}'"):
        make_head(name, device="cpu")
