"""The loop over epochs: networks trained together, and the number of epochs that was best."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from img2prompt_cache.data.inner_holdouts import inner_holdouts
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.devices import choose_device
from img2prompt_cache.numerics.blending import best_share, mix_two
from img2prompt_cache.numerics.metrics import mean_cosine, mse
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Groups, OnStep, Targets
    from img2prompt_cache.heads.neural.schedules import Schedule
    from img2prompt_cache.heads.neural.settings import TrainingSettings

    Evaluator = Callable[[Any, Targets], tuple[Targets, dict[str, float]]]


class Trainee(Protocol):
    """A network in training."""

    def loss(self) -> float:
        """Give the mean loss on the training rows before the first epoch."""

    def train(self) -> float:
        """Train on all training rows once; gives the mean loss."""

    def evaluate(self, X: Any, y: Targets) -> tuple[Targets, dict[str, float]]:
        """Give unit-norm predictions for other rows, and means over these rows to record besides."""

    def keep(self) -> None:
        """Remember the weights as they are."""


SHARE = 0.1
"""Share of the rows to hold out where the epochs are chosen."""

Rows = TypeVar("Rows")
Net = TypeVar("Net", bound=Trainee)


@dataclass(frozen=True, slots=True, eq=False)
class Sides(Generic[Rows]):
    """Rows to train on, and rows held out from them.

    Attributes
    ----------
    rows
        Whatever the network is made from.
    held_out : pair of arrays, optional
        Inputs and targets to evaluate the network on.
    other : numpy.ndarray, float32, shape (m, t), optional
        What another head predicts for the held-out rows, unit norm: it is mixed with what the network does.
    """

    rows: Rows
    held_out: tuple[Any, Targets] | None = None
    other: Targets | None = None


@dataclass(frozen=True, slots=True)
class Course(Generic[Net]):
    """What became of a training.

    Attributes
    ----------
    nets : list of Trainee
        One for each pair of sides.
    epochs : int
        The best epoch, whose weights the networks keep; or the last one, if none was to be chosen.
    history : list of dict
        A record for each epoch, from 0; means over the networks.
    mix : float
        Weight of the networks' predictions beside those of the other head.
    """

    nets: list[Net]
    epochs: int
    history: list[dict[str, float]]
    mix: float = 1.0


def train(
    head: TrainingSettings,
    start: Callable[[Rows], Net],
    sides: Sequence[Sides[Rows]],
    *,
    schedule: Schedule | None = None,
    untrained_competes: bool = True,
    mixes: Sequence[float] = (1.0,),
    on_step: OnStep | None = None,
) -> Course[Net]:
    """Train one network for each pair of sides, epoch by epoch together.

    They are trained for `head.epochs` epochs. If that is absent, they are stopped once `head.patience` epochs
    have not improved on the best one, or after `head.max_epochs`, and keep the weights of the epoch that was
    best on the held-out rows of all. Where the sides have predictions of another head, an epoch is judged by
    the best mix with these, and training goes on while the networks alone still improve: young ones do not
    help a head that is fitted already.

    Parameters
    ----------
    head : TrainingSettings
    start : callable
        Makes the network from the rows to train on; random numbers are seeded by then.
    sides : sequence of Sides
    schedule : Schedule, optional
        That of the networks, to look for a plateau in.
    untrained_competes : bool
        Whether epoch 0, the networks as they start, can be the best one.
    mixes : sequence of float
        Weights of the networks' predictions to try, where the sides have predictions of another head.
    on_step : callable, optional
        Called with the number of every epoch and its score; what it raises ends the training.

    Raises
    ------
    Img2PromptError
        If a loss or a score is not finite any more.
    """
    stop = head.epochs is None
    epochs = head.max_epochs if head.epochs is None else head.epochs
    history: list[dict[str, float]] = []
    best, score = 0, -np.inf
    improved, alone = 0, -np.inf
    started = time.perf_counter()
    with (
        seeded(head.seed, choose_device(head.device)),
        stage(f"{head.name} epochs", epochs, "at most" if stop else "even") as advance,
    ):
        nets = [start(side.rows) for side in sides]
        for epoch in range(epochs + 1):
            losses = [net.train() if epoch else net.loss() for net in nets]
            scores = evaluate([net.evaluate for net in nets], sides, mixes)
            record = {"epoch": epoch, "train_loss": float(np.mean(losses)), **scores}
            if not np.isfinite(list(record.values())).all():
                raise Img2PromptError(
                    f"{head.name} diverged in epoch {epoch}; lower `lr`, which is {head.lr:g}"
                )
            history.append({**record, "seconds": time.perf_counter() - started})
            if epoch:
                advance(1)
            if on_step:
                on_step(epoch, record["val_cosine"])
            if not stop:
                continue
            if record.get("network_cosine", -np.inf) > alone:
                improved, alone = epoch, record["network_cosine"]
            if record["val_cosine"] > score:
                best = improved = epoch
                score = record["val_cosine"] if epoch or untrained_competes else -np.inf
                for net in nets:
                    net.keep()
            elif epoch - improved >= head.patience:
                break
            if schedule:
                schedule.observe(epoch, improved)
    epochs = best if stop else epochs
    return Course(nets, epochs, history, history[epochs].get("mix", mixes[-1]))


def holdouts_for_epochs(
    head: TrainingSettings, groups: Groups, few: int, most: float = np.inf
) -> list[NDArray[np.bool_]]:
    """Mark the rows to hold out where the epochs are chosen: a grouped tenth, or each of three folds in turn.

    Parameters
    ----------
    head : TrainingSettings
    groups : numpy.ndarray, int64, shape (n,)
    few : int
        With fewer rows than this, one hold-out says little, and there are folds.
    most : float
        Most rows to hold out where there are no folds.

    Raises
    ------
    UsageError
        If all rows are one group.
    """
    return inner_holdouts(
        groups,
        head.seed,
        few=few,
        share=min(SHARE, most / len(groups)),
        what=f"{head.name} chooses its epochs",
        instead=", or give `epochs`",
    )


def evaluate(
    evaluators: Sequence[Evaluator], sides: Sequence[Sides[Any]], mixes: Sequence[float] = (1.0,)
) -> dict[str, float]:
    """Score networks on the rows held out from each, all together.

    Parameters
    ----------
    evaluators : sequence of callable
        `Trainee.evaluate` of each network.
    sides : sequence of Sides
    mixes : sequence of float
        As for `train`.

    Returns
    -------
    dict of str to float
        Means over all held-out rows; empty where there are none. With another head's predictions those of the
        best mix, its weight `mix`, and `network_cosine` of the networks alone.
    """
    found = [
        (*evaluator(*side.held_out), side.held_out[1])
        for evaluator, side in zip(evaluators, sides, strict=True)
        if side.held_out is not None
    ]
    if not found:
        return {}
    predictions, means, targets = zip(*found, strict=True)
    counts = [len(rows) for rows in targets]
    pred, true = np.concatenate(predictions), np.concatenate(targets)
    others = [side.other for side in sides if side.other is not None]
    beside = {}
    if others and np.isfinite(pred).all():  # else the caller ends the training
        beside["network_cosine"] = mean_cosine(pred, true)
        other = np.concatenate(others)
        beside["mix"] = best_share(pred, other, true, mixes)
        pred = mix_two(pred, other, beside["mix"])
    return {
        **{key: float(np.average([each[key] for each in means], weights=counts)) for key in means[0]},
        **beside,
        "val_cosine": mean_cosine(pred, true),
        "val_mse": mse(pred, true),
    }


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Seed torch's random numbers on the CPU and on one device; leave those of the process as they were.

    `torch.manual_seed` would also seed the devices that are not used here.
    """
    gpus = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=gpus, device_type="cuda"):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
