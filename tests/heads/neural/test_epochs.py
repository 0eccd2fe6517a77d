"""The loop over epochs, on networks whose predictions after each epoch are laid down."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.neural.by_rows import settle
from img2prompt_cache.heads.neural.epochs import Sides, seeded, train
from img2prompt_cache.heads.neural.schedules import Schedule

TRUE = np.array([[1.0, 0.0]], np.float32)


def few_rows(**settings):
    return settle(Mlp(**settings), 0)


class Scripted:
    """A trainee that reaches given cosines, by epoch, on its one held-out row."""

    def __init__(self, cosines):
        self.cosines, self.epoch, self.kept, self.drawn = cosines, 0, [], float(torch.rand(()))

    def loss(self):
        return 2.0

    def train(self):
        self.epoch += 1
        return 1.0 / self.epoch

    def evaluate(self, X, y):
        cosine = self.cosines[self.epoch]
        return np.array([[cosine, (1 - cosine**2) ** 0.5]], np.float32), {"val_loss": 1.0 - cosine}

    def keep(self):
        self.kept.append(self.epoch)


def run(*scripts, head=None, **options):
    head = head or few_rows(max_epochs=6, patience=2)
    return train(head, Scripted, [Sides(script, (None, TRUE)) for script in scripts], **options)


def test_the_best_epoch_is_kept_and_patience_ends_the_training():
    course = run([0.1, 0.5, 0.4, 0.6, 0.5, 0.55, 0.9])
    assert course.epochs == 3
    assert course.nets[0].kept == [0, 1, 3]
    assert [record["epoch"] for record in course.history] == [0, 1, 2, 3, 4, 5]
    assert [record["train_loss"] for record in course.history[:3]] == [2.0, 1.0, 0.5]
    assert course.history[3]["val_cosine"] == pytest.approx(0.6)
    assert course.history[3]["val_loss"] == pytest.approx(0.4)


def test_networks_are_judged_together():
    course = run([0.1, 0.8, 0.3, 0.3, 0.3], [0.1, 0.2, 0.9, 0.3, 0.3])
    assert course.epochs == 2
    assert course.history[2]["val_cosine"] == pytest.approx(0.6)
    assert [net.kept for net in course.nets] == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(("competes", "best"), [(True, 0), (False, 2)])
def test_whether_the_untrained_network_can_be_the_best(competes, best):
    head = few_rows(max_epochs=3, patience=9)
    assert run([0.9, 0.1, 0.2, 0.15], head=head, untrained_competes=competes).epochs == best


def test_given_epochs_are_all_trained_and_nothing_is_chosen():
    seen = []
    head = few_rows(epochs=3, max_epochs=1, patience=1)
    course = run([0.9, 0.5, 0.1, 0.2], head=head, on_step=lambda *step: seen.append(step))
    assert (course.epochs, course.nets[0].kept) == (3, [])
    assert seen == [(epoch, pytest.approx(cosine)) for epoch, cosine in enumerate([0.9, 0.5, 0.1, 0.2])]


def test_without_held_out_rows_only_the_loss_is_recorded():
    course = train(few_rows(epochs=2), Scripted, [Sides([0.0] * 3)])
    assert [{*record} for record in course.history] == [{"epoch", "train_loss", "seconds"}] * 3


def test_a_plateau_is_found():
    schedule = Schedule(6, "plateau", patience=1)
    run([0.1, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0], head=few_rows(max_epochs=6, patience=9), schedule=schedule)
    assert schedule.drops == [3, 5]


def test_a_score_that_is_not_finite_ends_the_training():
    with pytest.raises(Img2PromptError, match=r"mlp diverged in epoch 1; lower `lr`, which is 0\.0003"):
        run([0.1, float("nan")])


def test_what_the_process_draws_does_not_depend_on_a_training():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    drawn = [run([0.0] * 2, head=few_rows(epochs=1, seed=seed)).nets[0].drawn for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(torch.rand(3), expected)
    with seeded(1, "cpu"):
        assert float(torch.rand(())) == drawn[0]
