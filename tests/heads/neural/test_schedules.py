from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from img2prompt_cache.heads.neural.schedules import DROP, SCHEDULES, factor, flat


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def rates(scheduler, count, *values):
    """The rates that torch's scheduler gives for so many epochs."""
    found = []
    for epoch in range(count):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step(*([values[0][epoch]] if values else []))
    return found


def test_cosine_is_torchs():
    wanted = rates(lr_scheduler.CosineAnnealingLR(optimizer(), 20), 20)
    np.testing.assert_allclose(
        [factor(epoch, 20, schedule="cosine") for epoch in range(20)], wanted, atol=1e-9
    )
    assert (
        factor(20, 20, schedule="cosine") == factor(25, 20, schedule="cosine") == pytest.approx(0, abs=1e-12)
    )


@pytest.mark.parametrize("warmup", [5.0, 0.25])
def test_warmup_is_torchs(warmup):
    scheduler = lr_scheduler.LambdaLR(optimizer(), lambda epoch: min(1.0, epoch / 5))
    wanted = rates(scheduler, 20)
    assert [factor(epoch, 20, warmup=warmup) for epoch in range(20)] == pytest.approx(wanted)
    assert factor(3, 20, warmup=warmup, schedule="cosine") == pytest.approx(
        wanted[3] * factor(3, 20, schedule="cosine")
    )


def test_drops_are_torchs_milestones():
    wanted = rates(lr_scheduler.MultiStepLR(optimizer(), [3, 7], gamma=DROP), 10)
    found = [factor(epoch, 10, schedule="plateau", drops=[3, 7]) for epoch in range(10)]
    assert found == pytest.approx(wanted)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 4))
def test_a_plateau_is_torchs(scores, patience):
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer(), mode="max", factor=DROP, patience=patience, threshold=0.0, threshold_mode="abs", eps=0.0
    )
    wanted = rates(scheduler, len(scores), [float(score) for score in scores])
    drops: list[int] = []
    best, highest, found = 0, -1.0, []
    for epoch, score in enumerate(scores, 1):
        found.append(factor(epoch - 1, 99, schedule="plateau", drops=drops))
        if score > highest:
            best, highest = epoch, score
        if flat(epoch, best, drops, patience):
            drops.append(epoch)
    assert found == pytest.approx(wanted)


@given(
    st.floats(0, 200),
    st.integers(1, 100),
    st.sampled_from(SCHEDULES),
    st.floats(0, 50),
    st.lists(st.integers(1, 90), max_size=4),
)
def test_a_rate_is_never_below_nothing_nor_above_what_was_asked(position, epochs, schedule, warmup, drops):
    assert 0 <= factor(position, epochs, schedule=schedule, warmup=warmup, drops=drops) <= 1
