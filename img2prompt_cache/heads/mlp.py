"""The mlp head: a small neural network on the cached features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import clone

from img2prompt_cache.errors import DataError, UsageError, unknown
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.neural.epochs import inner_sides, train
from img2prompt_cache.heads.neural.losses import parse
from img2prompt_cache.heads.neural.network import NORMS, make_network, predict
from img2prompt_cache.heads.neural.schedules import SCHEDULES
from img2prompt_cache.heads.neural.training import OPTIMIZERS, PRECISIONS, Pairs
from img2prompt_cache.heads.space import Choices, LogUniform, Space, Uniform
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, OnStep, State, Targets

MAX_LAYERS, MAX_WIDTH = 16, 1 << 16
LEAST = {
    **dict.fromkeys(("lr", "weight_decay", "dropout", "expand", "warmup", "ema", "clip"), 0),
    **dict.fromkeys(("batch_size", "max_epochs", "patience"), 1),
}
"""The smallest value of each setting that is a number."""


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
        pairs = Pairs(X, y, self._checked(views, X))
        held = None if validation is None else Pairs(*validation)
        if self.epochs is not None:
            course = train(self, [(pairs, held)], self.epochs, stop=False)
        elif held is not None:
            course = train(self, [(pairs, held)], self.max_epochs, stop=True)
        else:
            sides = inner_sides(pairs, groups, self.seed, self.name)
            choosing = train(self, sides, self.max_epochs, stop=True)
            again = clone(self).set_params(epochs=choosing.epochs, drops=choosing.drops)
            course = replace(
                train(again, [(pairs, None)], choosing.epochs, stop=False), history=choosing.history
            )
        (net,) = course.nets
        self.mean_, self.scale_, self.network_ = net.mean, net.scale, net.network
        self.epochs_, self.drops_, self.history_ = course.epochs, course.drops, course.history

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
        sides = [(pairs.take(~out), pairs.take(out)) for out in held]
        if self.epochs is not None:
            course = train(self, sides, self.epochs, stop=False, on_step=on_step)
            return course.history[-1]["val_cosine"]
        course = train(self, sides, self.max_epochs, stop=True, on_step=on_step)
        return max(record["val_cosine"] for record in course.history)

    def _predict(self, X: Features) -> Targets:
        return unit(predict(self.network_, self.mean_, self.scale_, X))

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
        layers = {f"layers.{key}": value.numpy() for key, value in _arrays(self.network_).items()}
        drops = {"drops": np.array(self.drops_, np.int64)} if self.schedule == "plateau" else {}
        return {
            "mean": self.mean_,
            "scale": self.scale_,
            "epochs": np.array([self.epochs_]),
            **drops,
            **layers,
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        self._check_settings()
        self.mean_ = checks.take(state, "mean", None)
        self.n_features_in_ = len(self.mean_)
        self.scale_ = checks.take(state, "scale", len(self.mean_))
        self.epochs_ = int(checks.take(state, "epochs", 1)[0])
        self.drops_ = checks.take(state, "drops", None).tolist() if self.schedule == "plateau" else []
        self.history_ = []
        with torch.device("meta"):  # the settings may be anybody's: nothing is allocated for them
            last = [
                key for key in self.make_network(len(self.mean_), 1).state_dict() if key.endswith("bias")
            ][-1]
            width = len(checks.take(state, f"layers.{last}", None))
            self.network_ = self.make_network(len(self.mean_), width)
        wanted = _arrays(self.network_)
        layers = {key: checks.take(state, f"layers.{key}", *value.shape) for key, value in wanted.items()}
        tensors = {key: torch.tensor(value) for key, value in layers.items()}
        self.network_.load_state_dict(tensors, assign=True)
        return self

    def make_network(self, p: int, t: int) -> torch.nn.Module:
        """Make an untrained network of p features and t outputs.

        Raises
        ------
        UsageError
            If there are too many layers, or one is too wide.
        """
        widths = (*([self.expand * p] if self.expand else []), *self.hidden)
        if len(widths) > MAX_LAYERS or not all(map(_is_width, widths)):
            raise UsageError(
                f"{self.name} needs at most {MAX_LAYERS} hidden layers of width 1…{MAX_WIDTH}, "
                f"not {str(widths)[:100]}"
            )
        return make_network(p, widths, t, dropout=self.dropout, norm=self.norm, residual=self.residual)

    def _checked(
        self, views: NDArray[np.floating[Any]] | None, X: Features
    ) -> NDArray[np.floating[Any]] | None:
        if not self.views:
            return None
        if views is None:
            raise UsageError(f"{self.name} with views=true takes views, and there are none")
        if views.ndim != 3 or (views.shape[0], views.shape[2]) != X.shape:
            raise DataError(f"views {views.shape} do not fit features {X.shape}")
        checks.require_finite("views", views)
        return views

    def _check_settings(self) -> None:
        names = {"optimizer": OPTIMIZERS, "norm": NORMS, "schedule": SCHEDULES, "precision": PRECISIONS}
        for setting, valid in names.items():
            if getattr(self, setting) not in valid:
                raise unknown(f"value of {self.name}'s setting {setting!r}", getattr(self, setting), valid)
        parse(self.loss)
        for setting, low in LEAST.items():
            if not getattr(self, setting) >= low:
                raise UsageError(f"{self.name} needs {setting} ≥ {low}, not {getattr(self, setting)}")
        for setting in ("dropout", "ema"):
            if getattr(self, setting) >= 1:
                raise UsageError(f"{self.name} needs {setting} < 1, not {getattr(self, setting)}")
        if self.epochs is not None and self.epochs < 0:
            raise UsageError(f"{self.name} needs epochs ≥ 0, not {self.epochs}")
        if self.epochs is not None and self.schedule == "plateau" and self.drops is None:
            raise UsageError(
                f"{self.name} finds a plateau on the rows it chooses its epochs on; give drops with epochs"
            )
        if self.norm == "batch" and self.batch_size < 4:  # so that no batch is a single row
            raise UsageError(f"{self.name} needs batch_size ≥ 4 with norm=batch, not {self.batch_size}")


def _arrays(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Give what a network predicts with; the norm's count of batches, a number, has no part in that."""
    return {key: value for key, value in network.state_dict().items() if value.ndim}


def _is_width(value: object) -> bool:
    return isinstance(value, int | np.integer) and 1 <= int(value) <= MAX_WIDTH
