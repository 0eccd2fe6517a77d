from __future__ import annotations

import numpy as np
import pytest
import torch

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.neural import batches
from img2prompt_cache.heads.neural.batches import Order, TrainingRows
from img2prompt_cache.heads.neural.by_rows import settle
from img2prompt_cache.heads.neural.pairs import Pairs
from img2prompt_cache.heads.neural.schedules import Schedule
from img2prompt_cache.heads.neural.training import Training
from img2prompt_cache.numerics.metrics import unit


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(batches, "BLOCK", 10)
    monkeypatch.setattr(batches, "MIXED", 4)
    monkeypatch.setattr(batches, "SAMPLE", 50)


def trained_on(chunks):
    return [chunk.rows[positions].tolist() for chunk in chunks for positions in chunk.batches]


@pytest.mark.parametrize("n", [1, 7, 40, 41, 99, 1000])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_a_pass_has_every_row_once(n, parts):
    torch.manual_seed(0)
    order = Order(n, 8, parts)
    for _ in range(3):
        seen = [row for _ in range(order.parts) for batch in trained_on(order.epoch()) for row in batch]
        assert sorted(seen) == list(range(n))
        assert n < 41 or seen != sorted(seen)


def test_parts_of_a_pass_are_about_equal_and_passes_differ():
    torch.manual_seed(0)
    order = Order(1000, 8, 5)
    epochs = [trained_on(order.epoch()) for _ in range(10)]
    sizes = [sum(map(len, epoch)) for epoch in epochs]
    assert max(sizes) - min(sizes) <= 40
    assert epochs[0] != epochs[5]
    assert max(len(batch) for epoch in epochs for batch in epoch) <= 8


def test_few_rows_are_shuffled_as_a_whole():
    torch.manual_seed(0)
    found = trained_on(Order(40, 16).epoch())
    torch.manual_seed(0)
    assert found == [part.tolist() for part in torch.tensor_split(torch.randperm(40), 3)]


def test_rows_of_a_chunk_are_of_whole_blocks():
    torch.manual_seed(0)
    for chunk in Order(95, 16).epoch():
        rows = chunk.rows.tolist()
        assert rows == sorted(rows)
        assert len(rows) <= 40
        for start in {row // 10 for row in rows}:
            assert {*range(start * 10, min(start * 10 + 10, 95))} <= {*rows}


def problem(n):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 9)).astype(np.float32) * 3 + 1
    return X, unit(np.tanh(X @ rng.normal(size=(9, 5))) + 0.2)


@pytest.mark.parametrize("n", [30, 130])
def test_batches_are_the_rows_that_the_order_names(n):
    X, y = problem(n)
    mean, scale = X.mean(0), X.std(0)
    torch.manual_seed(0)
    chunks = Order(n, 16).epoch()
    rows = TrainingRows(Pairs(X, y), mean, scale, torch.device("cpu"))
    found = [*rows.batches(chunks)]
    for named, (inputs, targets) in zip(trained_on(chunks), found, strict=True):
        np.testing.assert_array_equal(inputs, (X[named] - mean) / scale)
        np.testing.assert_array_equal(targets, y[named])
    inputs, targets = rows.sample()
    assert len(inputs) == len(targets) == min(n, 50)
    assert {*map(tuple, targets.tolist())} <= {*map(tuple, y.tolist())}


@pytest.mark.parametrize("rows", [None, 500_000])
def test_whether_rows_are_copied_or_selected_when_used_makes_no_difference(rows):
    X, y = problem(250)
    some = np.flatnonzero(np.arange(250) % 7)
    head = settle(Mlp(hidden=(8,), batch_size=16, precision="fp32", norm="batch", rows=rows), 0)
    found = []
    for pairs in (Pairs(X[some], y[some]), Pairs(ColumnRows([X], some), ColumnRows([y], some))):
        torch.manual_seed(0)
        net = Training(head, pairs, Schedule(5))
        losses = [net.loss(), *(net.train() for _ in range(9)), net.loss()]
        found.append((losses, net.evaluate(X, y)[0]))
    assert found[0][0] == found[1][0]
    assert found[0][0][-1] < found[0][0][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_a_value_that_is_not_finite_ends_the_training():
    X, y = problem(250)
    pairs = Pairs(ColumnRows([X], np.arange(250)), y)
    net = Training(settle(Mlp(hidden=(8,), batch_size=16), 0), pairs, Schedule(5))
    X[33, 2] = np.nan
    with pytest.raises(Img2PromptError, match="NaN or infinity in row 33"):
        net.train()
