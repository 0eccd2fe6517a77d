"""The mlp head: a small neural network on the cached features, as in the seed: squared error and Adam."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.scaling import standardiser
from img2prompt_cache.metrics import mean_cosine, mse, unit
from img2prompt_cache.splits import hold_out

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, State, Targets

OPTIMIZERS = ("adam", "adamw", "sgd")
LOSSES = ("mse", "cosine")

ROWS = 8192
"""Rows predicted at a time."""


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
        Exactly so many. If absent, as many as were best by mean cosine on the validation rows. Where none are
        given, a grouped tenth of the training rows stands in for them, and then all rows are fitted as long.
    max_epochs, patience : int
        Where the number of epochs is chosen: how many at most, and how many to wait for an improvement.
    seed : int
        Of the first weights, the order of rows and the dropout.
    """

    name = "mlp"

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
            If a setting is unknown or out of range, or there are too few groups to hold out a tenth.
        """
        self._check_settings()
        X, y, groups, _ = checks.training(X, y, groups, blocks)
        if validation is not None:
            validation = checks.training(*validation, None, None)[:2]
        if self.epochs is not None:
            self.history_ = self._train(X, y, validation, self.epochs, stop=False)
        elif validation is not None:
            self.history_ = self._train(X, y, validation, self.max_epochs, stop=True)
        else:
            inner = hold_out(groups, 0.1, self.seed)
            held = X[inner.validation], y[inner.validation]
            self.history_ = self._train(X[inner.train], y[inner.train], held, self.max_epochs, stop=True)
            self._train(X, y, None, self.epochs_, stop=False)
        return self

    def predict(self, X: Features) -> Targets:
        """Predict unit-norm embeddings: float32, shape (n, t)."""
        import torch

        X = checks.queries(X, len(self.mean_))
        device = next(self.network_.parameters()).device
        self.network_.eval()
        with torch.inference_mode():
            parts = [
                self.network_(torch.from_numpy(self._inputs(part)).to(device)).cpu().numpy()
                for part in np.array_split(X, -(-len(X) // ROWS) or 1)
            ]
        return unit(np.concatenate(parts))

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per epoch: `epoch`, `train_loss`, `lr`, `seconds`, `val_cosine` and `val_mse`."""
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

        self.mean_ = checks.take(state, "mean", None)
        self.scale_ = checks.take(state, "scale", len(self.mean_))
        self.epochs_ = int(checks.take(state, "epochs", 1)[0])
        self.history_ = []
        last = f"layers.{3 * len(self.hidden) + 1}.bias"
        start = torch.tensor(checks.take(state, last, None))
        self.network_ = _network(len(self.mean_), self.hidden, start, self.dropout)
        wanted = self.network_.state_dict()
        layers = {key: checks.take(state, f"layers.{key}", *value.shape) for key, value in wanted.items()}
        self.network_.load_state_dict({key: torch.tensor(value) for key, value in layers.items()})
        return self

    def _train(
        self, X: Features, y: Targets, held: tuple[Features, Targets] | None, epochs: int, *, stop: bool
    ) -> list[dict[str, float]]:
        """Fit `network_` anew; with `stop`, keep the weights of the epoch that was best on `held`."""
        import torch

        self.mean_, self.scale_ = standardiser(X)
        cuda = range(torch.cuda.device_count())
        device = torch.device("cuda" if cuda else "cpu")
        inputs = torch.from_numpy(self._inputs(X)).to(device)
        targets = torch.tensor(y, device=device)
        history: list[dict[str, float]] = []
        started = time.perf_counter()
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(self.seed)
            start = targets.mean(dim=0).cpu()
            self.network_ = _network(X.shape[1], self.hidden, start, self.dropout).to(device)
            optimizer = self._optimizer(self.network_.parameters())
            kept: dict[str, torch.Tensor] = {}
            best = -np.inf
            for epoch in range(1, epochs + 1):
                loss = self._epoch(optimizer, inputs, targets)
                record = {"epoch": epoch, "train_loss": loss, "lr": self.lr}
                if held is not None:
                    pred = self.predict(held[0])
                    record |= {"val_cosine": mean_cosine(pred, held[1]), "val_mse": mse(pred, held[1])}
                if not np.isfinite(list(record.values())).all():
                    raise Img2PromptError(f"mlp diverged in epoch {epoch}; lower lr, which is {self.lr:g}")
                history.append({**record, "seconds": time.perf_counter() - started})
                if not stop:
                    self.epochs_ = epoch
                elif record["val_cosine"] > best:
                    self.epochs_, best = epoch, record["val_cosine"]
                    kept = {key: value.clone() for key, value in self.network_.state_dict().items()}
                elif epoch - self.epochs_ >= self.patience:
                    break
        if kept:
            self.network_.load_state_dict(kept)
        self.network_.cpu()
        return history

    def _epoch(self, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Train on all rows once, in a new order; gives the mean loss."""
        import torch

        self.network_.train()
        total = torch.zeros((), dtype=torch.float64)
        for rows in torch.split(torch.randperm(len(inputs)), self.batch_size):
            loss = _loss(self.loss, self.network_(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach().cpu() * len(rows)
        return float(total) / len(inputs)

    def _optimizer(self, parameters: Iterator[torch.nn.Parameter]) -> torch.optim.Optimizer:
        from torch import optim

        if self.optimizer == "sgd":
            return optim.SGD(parameters, self.lr, momentum=0.9, weight_decay=self.weight_decay)
        kind = optim.Adam if self.optimizer == "adam" else optim.AdamW
        return kind(parameters, self.lr, weight_decay=self.weight_decay)

    def _inputs(self, X: Features) -> Features:
        standardised: Features = (X - self.mean_) / self.scale_
        return standardised

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
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"mlp needs epochs ≥ 1, not {self.epochs}")
        if any(width < 1 for width in self.hidden):
            raise UsageError(f"mlp needs hidden layers of width ≥ 1, not {tuple(self.hidden)}")


def _network(p: int, hidden: Sequence[int], start: torch.Tensor, dropout: float) -> torch.nn.Sequential:
    """Build the layers; untrained, they predict `start` (t,) for every input, the mean target: the floor."""
    from torch import nn

    layers: list[nn.Module] = []
    for width_in, width_out in pairwise((p, *hidden)):
        layers += [nn.Dropout(dropout), nn.Linear(width_in, width_out), nn.ReLU()]
    last = nn.Linear((p, *hidden)[-1], len(start))
    nn.init.zeros_(last.weight)
    last.bias.data = start
    return nn.Sequential(*layers, nn.Dropout(dropout), last)


def _loss(name: str, pred: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    if name == "mse":
        return functional.mse_loss(pred, true)
    return 1.0 - functional.cosine_similarity(pred, true).mean()
