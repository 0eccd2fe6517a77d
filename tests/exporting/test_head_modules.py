"""Heads as modules and as graphs: each predicts, and expects, what the head itself does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from img2prompt_cache.cache.quantise import quantise, restore
from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.errors import UsageError
from img2prompt_cache.exporting import head_modules
from img2prompt_cache.exporting.run_module import RunModule, column_input, head_graph, stored
from img2prompt_cache.heads import HEADS, make_head
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.outside import Outside
from img2prompt_cache.models.onnx_file import open_session
from img2prompt_cache.numerics.expected_cosine import BANK_SIGNALS, Curve, bank_signals, fit_curve
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.expectation import Expectation, predict_expected

ROWS, WIDTHS, TARGET = 90, (12, 20), 8
COLUMNS = [UsedColumn(f"one:{at}", width, {}, "", (width,)) for at, width in enumerate(WIDTHS)]
CLOSE = 5e-5
"""Of a kernel that whitens: it takes differences of products in float32."""

MEMBERS = (
    {"head": "ridge", "columns": [[0, 12]]},
    {"head": "kernel", "settings": {"gain": 2.0, "alpha": 0.03, "whiten": True}},
    {"head": "knn", "columns": [[20, 32], [0, 12]]},
    {"head": "mlp", "settings": {"epochs": 2, "mix": 0.4, "norm": "batch", "residual": True}},
    {"head": "mean"},
)
SETTINGS: dict[str, dict[str, Any]] = {
    "mean": {},
    "nearest": {},
    "knn": {},
    "clip": {},
    "ridge": {},
    "kernel": {"gain": 2.0, "alpha": 0.03},
    "linear": {"epochs": 2},
    "mlp": {"epochs": 2, "mix": 0.6, "hidden": (16, 8)},
    "wide-mlp": {"epochs": 2},
    "seed-resnet50": {"epochs": 1},
    "seed-vit": {"epochs": 1},
    "seed-tuned-resnet": {"epochs": 1, "trials": 1},
    "blend": {"members": MEMBERS, "weights": (0.3, 0.2, 0.2, 0.3, 0.1), "temperature": 0.05, "pull": 0.4},
    "best": {"members": MEMBERS[:1], "weights": (1.0,), "temperature": 0.05, "pull": 0.0},
    "distil": {"student": {"epochs": 2}},
}
"""Every head of features; `finetune` takes a trunk."""


def data(rows: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    groups = np.arange(rows) // 2
    X = random.normal(size=(rows // 2, sum(WIDTHS))).repeat(2, 0) + 0.3 * random.normal(
        size=(rows, sum(WIDTHS))
    )
    y = unit(X @ np.random.default_rng(1).normal(size=(sum(WIDTHS), TARGET)))
    y[1::2] = y[::2]  # two images of each prompt
    return X.astype(np.float16).astype(np.float32), y, groups


def fitted(name: str) -> Head:
    X, y, groups = data()
    more: dict[str, Any] = {"bank": y[:0]} if name in ("blend", "best") else {}
    if name == "clip":
        more["texts"] = X + 0.1
    head: Head = make_head(name, **SETTINGS[name]).fit(X, y, groups=groups, widths=WIDTHS, **more)
    return head


def expectation_of(head: Head) -> Expectation:
    X, y, _ = data(seed=2)
    found = head.predict_with_signals(X)
    bank = y[:40].astype(np.float16)
    signals = {**found.signals, **bank_signals(found.unsoftened, bank.astype(np.float32))}
    values = np.stack([*signals.values()], axis=1)
    return Expectation((*signals,), fit_curve(values, np.random.default_rng(3).uniform(size=len(X))), bank)


def given(module: RunModule, X: np.ndarray) -> list[np.ndarray]:
    """What the module takes: the columns that it needs, or pixels."""
    columns = np.split(X, np.cumsum(WIDTHS)[:-1], axis=1)
    return [columns[at] for at in module.needed] or [np.zeros((len(X), 2, 2, 3), np.uint8)]


def test_every_head_is_tried():
    assert {*SETTINGS, "finetune"} == {*HEADS}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_module_predicts_and_expects_what_the_head_does(name: str):
    head = fitted(name)
    expectation = expectation_of(head)
    module = RunModule(head, COLUMNS, expectation).eval()
    X = data(30, seed=5)[0]
    with torch.no_grad():
        vectors, expected = module(*map(torch.from_numpy, given(module, X)))
    want, want_expected = predict_expected(head, X, expectation)
    np.testing.assert_allclose(vectors, want, atol=CLOSE)
    np.testing.assert_allclose(expected, want_expected, atol=CLOSE)


@pytest.mark.slow
def test_a_graph_of_all_kinds_of_heads_predicts_what_they_do_for_any_number_of_rows():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    head = fitted("blend")
    assert head.heads_[1].whitening_ is not None
    expectation = expectation_of(head)
    assert len(expectation.signals) == 5 + len(BANK_SIGNALS)
    module = RunModule(head, COLUMNS, expectation)
    session = open_session(head_graph(module, COLUMNS).SerializeToString(), threads=1)
    for rows in (1, 3, 64):
        X = data(64, seed=rows)[0][:rows]
        feeds = {column_input(at): values for at, values in zip(module.needed, given(module, X), strict=True)}
        vectors, expected = session.run(None, feeds)
        want, want_expected = predict_expected(head, X, expectation)
        np.testing.assert_allclose(vectors, want, atol=CLOSE)
        np.testing.assert_allclose(expected, want_expected, atol=CLOSE)


def test_what_no_member_reads_is_not_needed():
    settings = {"members": [{"head": "ridge", "columns": [[15, 30]]}, {"head": "ridge"}], "weights": (1, 0)}
    X, y, groups = data()
    head = make_head("blend", **settings).fit(X, y, groups=groups, widths=WIDTHS)
    module = RunModule(head, COLUMNS, None)
    assert module.needed == [1]
    with torch.no_grad():
        (vectors,) = module(torch.from_numpy(X[:, 12:]))
    np.testing.assert_allclose(vectors, head.predict(X), atol=2e-6)


def test_an_expectation_without_signals_is_a_constant():
    head, none = fitted("ridge"), np.empty(0)
    curve = Curve(none, none, none, np.array([-1.0, 1.0]), np.array([0.2, 0.4]))
    module = RunModule(head, COLUMNS, Expectation((), curve, np.empty((0, 0), np.float16)))
    with torch.no_grad():
        _, expected = module(*map(torch.from_numpy, given(module, data(4)[0])))
    np.testing.assert_allclose(expected, np.full(4, 0.3), atol=1e-6)


def test_values_are_rounded_as_a_column_keeps_them():
    random = np.random.default_rng(0)
    values = random.normal(size=(6, 5, 4)) * 10.0 ** random.integers(-7, 4, size=(6, 1, 4))
    values[0, :, 0] = 0
    kept = values.astype(np.float16)
    for coded in (False, True):
        want = restore(*quantise(kept)) if coded else kept.astype(np.float32)
        np.testing.assert_array_equal(stored(torch.from_numpy(kept), coded=coded), want)


def test_heads_that_cannot_be_exported_are_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match=r"fitted by another program"):
        head_modules.module_of(Outside())
    knn = fitted("knn")
    monkeypatch.setattr(head_modules, "MOST_BANK", 1000)
    with pytest.raises(UsageError, match=r"the head knn looks up its 90 training rows.*`head=distil`"):
        head_modules.module_of(knn)

    class Other(Head):
        name = "other"

    with pytest.raises(UsageError, match=r"a run with the head other cannot be exported; fit `head=distil`"):
        head_modules.module_of(Other())
