"""The mlp head: a small neural network on the cached features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, dataclass_transform

import numpy as np
from sklearn.base import clone

from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.neural.epochs import Sides, holdouts_for_epochs
from img2prompt_cache.heads.neural.network import arrays_of, make_network, predict, restore
from img2prompt_cache.heads.neural.pairs import Pairs, checked_views, sides_of
from img2prompt_cache.heads.neural.settings import OPTIMIZERS, check_network_settings, require_layers
from img2prompt_cache.heads.neural.training import train_networks
from img2prompt_cache.heads.space import Choices, LogUniform, Space, Uniform
from img2prompt_cache.models.devices import choose_device
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from img2prompt_cache.heads.base import Features, Groups, OnStep, State, Targets

FEW = 1000
"""With fewer rows than this, the epochs are chosen on folds."""


@dataclass_transform(eq_default=False)
@dataclass(eq=False, repr=False)
class Mlp(Head):
    """A multi-layer perceptron on standardised features, which starts as the mean head.

    Each layer is dropout, then linear, with ReLU between layers. At first the last layer's weights are zero
    and its bias is the mean target.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers; none makes it linear.
    expand : int
        One more hidden layer in front of those, so many times as wide as the features; 0 for none.
    dropout : float
        Share of each layer's inputs dropped in training, the features among them.
    norm : str
        ``"batch"``: batch normalisation before each ReLU; or ``"none"``.
    residual : bool
        Add a linear layer straight from the features to the output.
    optimizer : str
        ``"adam"``, ``"adamw"`` or ``"sgd"`` (momentum 0.9).
    loss : str
        ``"mse"``, the mean over all elements; ``"cosine"``, 1 − cosine; ``"angular"``, the angle in radians;
        ``"infonce"``, finding the row's own prompt among those of the batch, at a learned temperature; or a
        weighted sum of them, ``"mse:1,cosine:0.5"``.
    lr : float
    weight_decay : float
        On weights; not on biases, nor in the norm.
    batch_size : int
        Rows in a batch, at most: batches are made of equal size.
    schedule : str
        What becomes of the learning rate: ``"none"``; ``"cosine"``, falling to 0 over `max_epochs` (or
        `epochs`, where these are more); ``"plateau"``, falling to 0.3 of itself each time the validation
        cosine has not grown for more than a third of `patience`.
    drops : sequence of int, optional
        Of the schedule ``"plateau"``: the epochs after which the rate falls. Found on validation rows if
        absent.
    warmup : float
        The rate rises from 0 over so many epochs; below 1, over such a share of those of the schedule.
    ema : float
        Decay of an exponential moving average of the weights, step by step, which is what predicts; 0 for
        none.
    clip : float
        Bound on the norm of the gradient; 0 for none.
    precision : str
        What matrices are multiplied in when training, ``"fp32"`` or ``"bf16"``; ``"auto"`` is bfloat16 where
        the device multiplies that in hardware. Weights are kept, and predictions made, in float32.
    views : bool
        Train on augmented views, too: in each epoch one of them, or the image itself, stands for a row.
    epochs : int, optional
        Exactly so many. If absent, as many as were best by mean cosine on the validation rows; 0, which is
        the mean head, where training did not help. Where no validation rows are given, a grouped tenth of the
        training rows stands in for them, or, of fewer than 1,000 rows, each of three grouped folds; then all
        rows are fitted as long.
    max_epochs, patience : int
        Where the number of epochs is chosen: how many at most, and how many to wait for an improvement.
    seed : int
        Of the first weights, the order of rows and the dropout.
    device : str
        Where it trains and predicts: ``"cpu"``, ``"cuda"``, ``"cuda:N"``, or ``"auto"``: the first GPU,
        or the CPU where there is none. Runs do not record it.
    """

    name = "mlp"
    space: ClassVar[Space] = {
        "lr": LogUniform(1e-5, 1e-2),
        "batch_size": Choices((32, 64, 128, 256)),
        "dropout": Uniform(0.0, 0.7),
        "weight_decay": LogUniform(1e-6, 1.0),
        "optimizer": Choices(OPTIMIZERS),
        "hidden": Choices(((), (256,), (512,), (1024,), (512, 512))),
        "loss": Choices(("mse", "cosine")),
    }
    warm_up = 5

    hidden: Sequence[int] = (512,)
    expand: int = 0
    dropout: float = 0.5
    norm: str = "none"
    residual: bool = False
    optimizer: str = "adam"
    loss: str = "mse"
    lr: float = 3e-4
    weight_decay: float = 1e-4
    batch_size: int = 128
    schedule: str = "none"
    drops: Sequence[int] | None = None
    warmup: float = 0.0
    ema: float = 0.99
    clip: float = 0.0
    precision: str = "auto"
    views: bool = False
    epochs: int | None = None
    max_epochs: int = 100
    patience: int = 15
    seed: int = 0
    device: str = "auto"

    def __init_subclass__(cls, **options: Any) -> None:
        """Make the subclass a dataclass too: undecorated, it would keep the defaults of its base."""
        super().__init_subclass__(**options)
        dataclass(eq=False, repr=False)(cls)

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        groups: Groups | None = None,
        widths: Sequence[int] | None = None,
        validation: tuple[Any, Any] | None = None,
        views: NDArray[np.floating[Any]] | None = None,
    ) -> Self:
        """Fit the head; see `Head.fit`.

        Parameters
        ----------
        X, y, groups, widths, validation
            As for every head.
        views : numpy.ndarray, float16 or float32, shape (n, v, p), optional
            Features of augmented views of the same images.

        Raises
        ------
        UsageError
            If a setting is unknown or out of range, or all rows are one group and `epochs` is absent.
        """
        return self._check_and_fit(X, y, groups, widths, validation, views=views)

    def _fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
        views: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        pairs = Pairs(X, y, checked_views(self, views, X))
        head, history = self, None
        if self.epochs is None and validation is None:
            inner = [sides_of(pairs, held) for held in holdouts_for_epochs(self, groups, FEW)]
            choice, drops = train_networks(self, inner)
            head, history = clone(self).set_params(epochs=choice.epochs, drops=drops), choice.history
        course, drops = train_networks(head, [Sides(pairs, validation)])
        (net,) = course.nets
        net.settle()
        self.mean_, self.scale_, self.network_ = net.mean, net.scale, net.network
        self.epochs_, self.drops_, self.history_ = course.epochs, drops, history or course.history

    def validate(
        self,
        X: Features,
        y: Targets,
        held: Sequence[NDArray[np.bool_]],
        *,
        groups: Groups,
        widths: tuple[int, ...],
        on_step: OnStep | None = None,
    ) -> float:
        """Score these settings as `fit` chooses the epochs: networks of all turns trained together.

        A step is an epoch, and the score that of the best one, or of the last where `epochs` is given.
        """
        self._check_settings()
        pairs = Pairs(X, y)
        sides = [sides_of(pairs, out) for out in held]
        course, _ = train_networks(self, sides, on_step=on_step)
        scores = [record["val_cosine"] for record in course.history]
        return max(scores) if self.epochs is None else scores[-1]

    def _predict(self, X: Features) -> Targets:
        network = self.network_.to(choose_device(self.device))
        return unit(predict(network, self.mean_, self.scale_, X))

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per epoch from 0: `epoch`, `train_loss`, `val_loss`, `val_cosine`, `val_mse`, `seconds`.

        Those of the fit that chose the epochs, if one did; means over its folds.
        """
        return self.history_

    @property
    def chosen(self) -> dict[str, Any]:
        """The number of `epochs` that the weights were fitted for, and the `drops` of a plateau."""
        return {"epochs": self.epochs_, **({"drops": self.drops_} if self.schedule == "plateau" else {})}

    def state(self) -> State:
        """Give `mean` (p,), `scale` (p,), `epochs` (1,), `drops` of a plateau, and all of the layers."""
        found = {"mean": self.mean_, "scale": self.scale_, "epochs": np.array([self.epochs_])}
        if self.schedule == "plateau":
            found["drops"] = np.array(self.drops_, np.int64)
        return {**found, **arrays_of(self.network_)}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        self._check_settings()
        self.mean_ = checks.take(state, "mean", None)
        self.n_features_in_ = len(self.mean_)
        self.scale_ = checks.take(state, "scale", len(self.mean_))
        self.epochs_ = int(checks.take(state, "epochs", 1)[0])
        self.drops_ = checks.take(state, "drops", None).tolist() if self.schedule == "plateau" else []
        self.history_ = []
        self.network_ = restore(lambda t: self.make_network(len(self.mean_), t), state)
        return self

    def make_network(self, p: int, t: int) -> nn.Module:
        """Make an untrained network of p features and t outputs; see `settings.require_layers` for limits."""
        widths = (*([self.expand * p] if self.expand else []), *self.hidden)
        require_layers(self, widths)
        return make_network(p, widths, t, dropout=self.dropout, norm=self.norm, residual=self.residual)

    def _check_settings(self) -> None:
        check_network_settings(self)
