"""The mlp head: a small neural network on the cached features, as in the seed: squared error and Adam."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.network import Training, make_network, predict
from img2prompt_cache.metrics import mean_cosine, mse
from img2prompt_cache.ranges import Choices, LogUniform, Space, Uniform
from img2prompt_cache.splits import hold_out, k_folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, Report, State, Targets

    _Sides = tuple[Features, Targets, tuple[Features, Targets] | None]

OPTIMIZERS = ("adam", "adamw", "sgd")
LOSSES = ("mse", "cosine")

FEW, FOLDS = 1000, 3
"""With fewer rows than this, one hold-out tells little: the epochs are chosen on so many folds."""
MAX_LAYERS, MAX_WIDTH = 16, 1 << 16


class Mlp(Head):
    """A multi-layer perceptron on standardised features, which starts as the mean head.

    Each layer is dropout, then linear, with ReLU between layers. At first the last layer's weights are zero
    and its bias is the mean target.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers; none makes it linear.
    dropout : float
        Share of each layer's inputs dropped in training, the features among them.
    optimizer : str
        ``"adam"``, ``"adamw"`` or ``"sgd"`` (momentum 0.9).
    loss : str
        ``"mse"``, the mean over all elements, or ``"cosine"``, 1 − cosine.
    lr, weight_decay : float
    batch_size : int
    epochs : int, optional
        Exactly so many. If absent, as many as were best by mean cosine on the validation rows; 0, which is
        the mean head, where training did not help. Where no validation rows are given, a grouped tenth of the
        training rows stands in for them, or, of fewer than 1,000 rows, each of three grouped folds; then all
        rows are fitted as long.
    max_epochs, patience : int
        Where the number of epochs is chosen: how many at most, and how many to wait for an improvement.
    seed : int
        Of the first weights, the order of rows and the dropout.
    """

    name = "mlp"
    space: ClassVar[Space] = {
        "lr": LogUniform(1e-5, 1e-2),
        "batch_size": Choices((32, 64, 128, 256)),
        "dropout": Uniform(0.0, 0.7),
        "weight_decay": LogUniform(1e-6, 1e-2),
        "optimizer": Choices(OPTIMIZERS),
        "hidden": Choices(((), (256,), (512,), (1024,), (512, 512))),
        "loss": Choices(LOSSES),
    }
    warm_up = 5
    epochs_: int

    def __init__(
        self,
        hidden: Sequence[int] = (512,),
        dropout: float = 0.5,
        optimizer: str = "adam",
        loss: str = "mse",
        lr: float = 3e-4,
        weight_decay: float = 1e-4,
        batch_size: int = 128,
        epochs: int | None = None,
        max_epochs: int = 100,
        patience: int = 15,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.dropout = dropout
        self.optimizer = optimizer
        self.loss = loss
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.max_epochs = max_epochs
        self.patience = patience
        self.seed = seed

    def fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups | None = None,
        blocks: tuple[int, ...] | None = None,
        validation: tuple[Features, Targets] | None = None,
    ) -> Self:
        """Fit the head; see `Head.fit`.

        Raises
        ------
        UsageError
            If a setting is unknown or out of range, or all rows are one group and `epochs` is absent.
        """
        self._check_settings()
        X, y, groups, _ = checks.training(X, y, groups, blocks)
        if validation is not None:
            validation = checks.training(*validation, None, None)[:2]
        if self.epochs is not None:
            nets, self.history_ = self._run([(X, y, validation)], self.epochs, stop=False)
        elif validation is not None:
            nets, self.history_ = self._run([(X, y, validation)], self.max_epochs, stop=True)
        else:
            sides = [(X[~held], y[~held], (X[held], y[held])) for held in _inner(groups, self.seed)]
            _, self.history_ = self._run(sides, self.max_epochs, stop=True)
            nets, _ = self._run([(X, y, None)], self.epochs_, stop=False)
        self.mean_, self.scale_, self.network_ = nets[0].mean, nets[0].scale, nets[0].network
        return self

    def validate(
        self,
        X: Features,
        y: Targets,
        held: Sequence[NDArray[np.bool_]],
        *,
        groups: Groups,
        blocks: tuple[int, ...],
        report: Report | None = None,
    ) -> float:
        """Score these settings as `fit` chooses the epochs: networks of all turns trained together.

        A step is an epoch, and the score that of the best one, or of the last where `epochs` is given.
        """
        self._check_settings()
        sides = [(X[~out], y[~out], (X[out], y[out])) for out in held]
        if self.epochs is not None:
            _, history = clone(self)._run(sides, self.epochs, stop=False, report=report)
            return float(history[-1]["val_cosine"])
        _, history = clone(self)._run(sides, self.max_epochs, stop=True, report=report)
        return float(max(record["val_cosine"] for record in history))

    def predict(self, X: Features) -> Targets:
        """Predict unit-norm embeddings: float32, shape (n, t)."""
        X = checks.queries(X, len(self.mean_))
        return predict(self.network_, self.mean_, self.scale_, X)

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per epoch, from 0: `epoch`, `train_loss`, `val_cosine`, `val_mse` and `seconds`.

        Those of the fit that chose the epochs, if one did; means over its folds.
        """
        return self.history_

    @property
    def chosen(self) -> dict[str, Any]:
        """The number of `epochs` that the weights were fitted for."""
        return {"epochs": self.epochs_}

    def state(self) -> State:
        """Give `mean` (p,), `scale` (p,), `epochs` (1,) and the layers' weights and biases."""
        layers = {f"layers.{key}": value.numpy() for key, value in self.network_.state_dict().items()}
        return {"mean": self.mean_, "scale": self.scale_, "epochs": np.array([self.epochs_]), **layers}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        import torch

        self._check_settings()
        self.mean_ = checks.take(state, "mean", None)
        self.scale_ = checks.take(state, "scale", len(self.mean_))
        self.epochs_ = int(checks.take(state, "epochs", 1)[0])
        self.history_ = []
        last = f"layers.{3 * len(self.hidden) + 1}.bias"
        with torch.device("meta"):  # the settings may be anybody's: nothing is allocated for them
            width = len(checks.take(state, last, None))
            self.network_ = make_network(len(self.mean_), self.hidden, width, self.dropout)
        wanted = self.network_.state_dict()
        layers = {key: checks.take(state, f"layers.{key}", *value.shape) for key, value in wanted.items()}
        tensors = {key: torch.tensor(value) for key, value in layers.items()}
        self.network_.load_state_dict(tensors, assign=True)
        return self

    def _run(
        self, sides: Sequence[_Sides], epochs: int, *, stop: bool, report: Report | None = None
    ) -> tuple[list[Training], list[dict[str, float]]]:
        """Train one network for each pair of sides, epoch by epoch together, and settle on `epochs_`.

        Returns
        -------
        nets : list of Training
            With `stop`, as they were after the epoch that was best on the held-out rows of all; epoch 0 is
            the mean head they start as.
        history : list of dict
            Means over the networks.
        """
        import torch

        history: list[dict[str, float]] = []
        started = time.perf_counter()
        best = -np.inf
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            nets = [Training(self, X, y) for X, y, _ in sides]
            for epoch in range(epochs + 1):
                losses = [net.train() if epoch else net.loss() for net in nets]
                record = {"epoch": epoch, "train_loss": float(np.mean(losses)), **_watch(nets, sides)}
                if not np.isfinite(list(record.values())).all():
                    raise Img2PromptError(f"mlp diverged in epoch {epoch}; lower lr, which is {self.lr:g}")
                history.append({**record, "seconds": time.perf_counter() - started})
                if report:
                    report(epoch, record["val_cosine"])
                if not stop:
                    self.epochs_ = epoch
                elif record["val_cosine"] > best:
                    self.epochs_, best = epoch, record["val_cosine"]
                    for net in nets:
                        net.keep()
                elif epoch - self.epochs_ >= self.patience:
                    break
        for net in nets:
            net.settle()
        return nets, history

    def _check_settings(self) -> None:
        for setting, valid in (("optimizer", OPTIMIZERS), ("loss", LOSSES)):
            if getattr(self, setting) not in valid:
                raise unknown(f"value of mlp's setting {setting!r}", getattr(self, setting), valid)
        least = {"lr": 0, "weight_decay": 0, "dropout": 0, "batch_size": 1, "max_epochs": 1, "patience": 1}
        for setting, low in least.items():
            if not getattr(self, setting) >= low:
                raise UsageError(f"mlp needs {setting} ≥ {low}, not {getattr(self, setting)}")
        if self.dropout >= 1:
            raise UsageError(f"mlp needs dropout < 1, not {self.dropout}")
        if self.epochs is not None and self.epochs < 0:
            raise UsageError(f"mlp needs epochs ≥ 0, not {self.epochs}")
        if len(self.hidden) > MAX_LAYERS or not all(_is_width(width) for width in self.hidden):
            raise UsageError(
                f"mlp needs at most {MAX_LAYERS} hidden layers of width 1…{MAX_WIDTH}, "
                f"not {str(self.hidden)[:100]}"
            )


def _inner(groups: Groups, seed: int) -> list[NDArray[np.bool_]]:
    """Mark the rows to hold out when the number of epochs is chosen, once or in turns."""
    folds = min(len(np.unique(groups)), FOLDS)
    if folds < 2:
        raise UsageError(
            f"mlp chooses its epochs on rows it holds out, but all {len(groups)} are one group of "
            "near-identical prompts or images; add pairs, or set --epochs"
        )
    if len(groups) < FEW:
        fold = k_folds(groups, folds, seed)
        return [fold == number for number in range(folds)]
    held = np.zeros(len(groups), bool)
    held[hold_out(groups, 0.1, seed).validation] = True
    return [held]


def _is_width(value: object) -> bool:
    return isinstance(value, int | np.integer) and 1 <= int(value) <= MAX_WIDTH


def _watch(nets: Sequence[Training], sides: Sequence[_Sides]) -> dict[str, float]:
    """Score networks on the rows held out from each, all together; nothing where none were."""
    held = [(net.predict(pair[0]), pair[1]) for net, (_, _, pair) in zip(nets, sides, strict=True) if pair]
    if not held:
        return {}
    pred, true = (np.concatenate(arrays) for arrays in zip(*held, strict=True))
    return {"val_cosine": mean_cosine(pred, true), "val_mse": mse(pred, true)}
