"""The mlp head: a small neural network on the cached features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.neural import by_rows
from img2prompt_cache.heads.neural.beside import add_ridge, mean_penalty
from img2prompt_cache.heads.neural.epochs import Sides, holdouts_for_epochs
from img2prompt_cache.heads.neural.network import arrays_of, make_network, predict, restore
from img2prompt_cache.heads.neural.pairs import Pairs, checked_views, sides_of
from img2prompt_cache.heads.neural.settings import OPTIMIZERS, check_network_settings, require_layers
from img2prompt_cache.heads.neural.training import train_networks
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.heads.settings import DEVICE, setting
from img2prompt_cache.heads.space import Choices, LogUniform, Uniform
from img2prompt_cache.models.devices import choose_device
from img2prompt_cache.numerics.blending import mix_two
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from img2prompt_cache.heads.base import Features, Groups, OnStep, State, Targets

FEW = 1000
"""With fewer rows than this, the epochs are chosen on folds."""
RIDGE = "ridge."
"""What the names of the saved arrays of ridge begin with."""


class Mlp(Head):
    """A multi-layer perceptron on standardised features, which starts as the mean head, beside ridge.

    Each layer is dropout, then linear, with ReLU between layers. At first the last layer's weights are zero
    and its bias is the mean target. Where `dropout` is absent, it is 0.5 up to 2,000 rows, and less the more
    rows there are (see `training.dropped_share`).

    Other settings that are absent also depend on the number of rows (see `by_rows`): below 10,000 one hidden
    layer of 512, squared error, a weight decay of 1e-4 and batches of 128 at a constant rate, until 15 epochs
    have not improved. From 10,000 on two hidden layers of 1,024, cosine loss, batches of 512, a weight
    decay that falls as rows grow, and a rate that falls to 0 over as many passes as `by_rows.passes` says: 15
    of 100,000 rows, 8 of a million. Few rows limit what can be learned; a penalty that they need would limit
    it with many. An epoch is then at most 200,000 rows, and at most 20,000 rows are held out to choose it and
    the mix. `rows` says which number of rows counts; if it is absent it is that of the rows to fit, but where
    `epochs` is given the settings are those for few rows.

    The loss ``"mse"`` is the mean over all elements; ``"cosine"`` is 1 − cosine; ``"angular"`` is the angle
    in radians; ``"infonce"`` is that of finding the row's own prompt among those of the batch, at a learned
    temperature. With the schedule ``"cosine"`` the learning rate falls to 0 over `max_epochs` (or `epochs`,
    where these are more); with ``"plateau"`` it falls to 0.3 of itself each time the validation cosine has
    not grown for more than a third of `patience`. With `views`, one of the views of a row, or the image
    itself, stands for it in each epoch. Weights are kept, and predictions made, in float32.

    Where `epochs` is absent, their number is the one that was best by mean cosine on the validation rows:
    0 where training did not help. Where no validation rows are given, a grouped tenth of the training rows
    stands in for them, or, of fewer than 1,000 rows, each of three grouped folds; then all rows are fitted
    for as many epochs.

    The prediction is the mean of the network's and that of `Ridge` on the same rows, `mix` the weight of
    the network, scaled to length 1. Where `mix` and `epochs` are absent, the epoch and the mix (0, 0.05, …,
    1) are chosen together, so on the validation rows the head is never worse than ridge. Where `epochs` is
    given, the network is alone unless `mix` is given, too. The validation rows have no say in the ridge
    solution that they compare: it is fitted, and its penalty chosen by grouped folds, on the rows that the
    network is trained on. Then all rows are fitted with the same penalty; with three folds, with the
    geometric mean of theirs. A network that starts from the ridge solution, and learns what that leaves,
    is not as good; docs/measurements.md has the figures.
    """

    name = "mlp"
    warm_up = 5
    streams = True
    few: ClassVar[Mapping[str, Any]] = {
        "hidden": (512,),
        "loss": "mse",
        "lr": 3e-4,
        "weight_decay": 1e-4,
        "batch_size": 128,
        "schedule": "none",
        "max_epochs": 100,
        "patience": 15,
    }
    many: ClassVar[Mapping[str, Any]] = {
        "hidden": (1024, 1024),
        "loss": "cosine",
        "lr": 1e-3,
        "batch_size": 512,
        "schedule": "cosine",
    }

    hidden: Sequence[int] | None = setting(
        "Widths of the hidden layers; none makes the network linear. By the number of rows if absent.",
        default=None,
        search=Choices(((), (256,), (512,), (1024,), (512, 512))),
    )
    expand: int = setting(
        "Width of one more hidden layer before those, as a multiple of the features'; 0 for no such layer.",
        default=0,
    )
    dropout: float | None = setting(
        "Share of each layer's inputs dropped in training; 0.5, or less for over 2,000 rows, if absent.",
        default=None,
        search=Uniform(0.0, 0.7),
    )
    norm: str = setting('"batch" for batch normalisation before each ReLU, or "none".', default="none")
    residual: bool = setting(
        "Whether to add a linear layer straight from the features to the output.", default=False
    )
    optimizer: str = setting(
        '"adam", "adamw" or "sgd" (momentum 0.9).', default="adam", search=Choices(OPTIMIZERS)
    )
    loss: str | None = setting(
        '"mse", "cosine", "angular", "infonce", or a sum, "mse:1,cosine:0.5"; by number of rows if absent.',
        default=None,
        search=Choices(("mse", "cosine")),
    )
    lr: float | None = setting(
        "Learning rate; by the number of rows if absent.", default=None, search=LogUniform(1e-5, 1e-2)
    )
    weight_decay: float | None = setting(
        "Weight decay; of the weights, not of biases and norms. By the number of rows if absent.",
        default=None,
        search=LogUniform(1e-6, 1.0),
    )
    batch_size: int | None = setting(
        "Number of rows in a batch, at most; all are of about equal size. By the number of rows if absent.",
        default=None,
        search=Choices((32, 64, 128, 256)),
    )
    schedule: str | None = setting(
        'How the learning rate falls: "none", "cosine" or "plateau"; by the number of rows if absent.',
        default=None,
    )
    drops: Sequence[int] | None = setting(
        'Epochs after which the rate of the schedule "plateau" falls; found on validation rows if absent.',
        default=None,
    )
    warmup: float = setting(
        "Number of epochs in which the learning rate rises from 0; below 1, a share of all epochs.",
        default=0.0,
    )
    ema: float = setting(
        "Largest decay of the moving average of the weights, which predicts; 0 for none.",
        default=0.99,
    )
    clip: float = setting("Largest norm of the gradient; 0 for no limit.", default=0.0)
    precision: str = setting(
        'Precision of matrix products in training: "fp32", "bf16", or "auto" for bf16 where it is fast.',
        default="auto",
    )
    views: bool = setting("Whether to train on augmented views of the images, too.", default=False)
    epochs: int | None = setting("Number of epochs; chosen by early stopping if absent.", default=None)
    max_epochs: int | None = setting(
        "Most epochs, where early stopping chooses their number; by the number of rows if absent.",
        default=None,
    )
    patience: int | None = setting(
        "Epochs to wait for an improvement, where they are chosen; by the number of rows if absent.",
        default=None,
    )
    rows: int | None = setting(
        "Number of rows that absent settings are for; that of the rows to fit if absent.", default=None
    )
    mix: float | None = setting(
        "Mean of ridge's prediction, 0, and the network's, 1; chosen with `epochs` if absent.", default=None
    )
    alpha: float | Sequence[float] | None = setting(
        "Penalty of ridge, or one per backbone; chosen if absent.", default=None
    )
    seed: int = setting("Seed of the first weights, the order of rows and the dropout.", default=0)
    device: str = setting(DEVICE, default="auto", recorded=False)

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
        pairs = Pairs(X, y, checked_views(self, views, X), widths)
        head, history = by_rows.settle(self, len(X)), None
        if self.epochs is None and validation is None:
            held = holdouts_for_epochs(head, groups, FEW, by_rows.HELD)
            inner = [sides_of(pairs, out) for out in held]
            inner, ridges = add_ridge(head, inner, [groups[~out] for out in held])
            choice, drops = train_networks(head, inner)
            found = {"epochs": choice.epochs, "drops": drops, "mix": choice.mix}
            head = clone(head).set_params(**found, alpha=mean_penalty(ridges))
            history = choice.history
        sides, ridges = add_ridge(head, [Sides(pairs, validation)], [groups])
        course, drops = train_networks(head, sides)
        (net,) = course.nets
        net.settle()
        self.mean_, self.scale_, self.network_ = net.mean, net.scale, net.network
        self.epochs_, self.drops_, self.history_ = course.epochs, drops, history or course.history
        self.ridge_: Ridge | None = ridges[0] if ridges and course.mix < 1 else None
        self.mix_ = 1.0 if self.ridge_ is None else course.mix
        self.rows_, self.hidden_ = head.rows, head.hidden

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

        A step is an epoch, and the score that of the best one, or of the last where `epochs` is given. Where
        `mix` is absent, it is that of the network alone: ridge would be the same with all settings.
        """
        self._check_settings()
        head = by_rows.settle(self, len(X)).set_params(mix=1.0 if self.mix is None else self.mix)
        pairs = Pairs(X, y, widths=widths)
        sides, _ = add_ridge(head, [sides_of(pairs, out) for out in held], [groups[~out] for out in held])
        course, _ = train_networks(head, sides, on_step=on_step)
        scores = [record["val_cosine"] for record in course.history]
        return max(scores) if self.epochs is None else scores[-1]

    def _predict(self, X: Features) -> Targets:
        network = self.network_.to(choose_device(self.device))
        found = unit(predict(network, self.mean_, self.scale_, X))
        return found if self.ridge_ is None else mix_two(found, self.ridge_.predict(X), self.mix_)

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per epoch from 0: `epoch`, `train_loss`, `val_loss`, `val_cosine`, `val_mse`, `seconds`.

        Those of the fit that chose the epochs, if one did; means over its folds. Where the mix with ridge is
        chosen, `val_cosine` and `val_mse` are those of the best one, `mix` is its weight, and
        `network_cosine` that of the network alone.
        """
        return self.history_

    @property
    def chosen(self) -> dict[str, Any]:
        """The number of `epochs`, the `drops` of a plateau, the `mix`, and the penalty `alpha` of ridge.

        Also the number of `rows` that absent settings are for, if they are those for many rows.
        """
        drops = {"drops": self.drops_} if self.schedule == "plateau" else {}
        rows = {} if self.rows_ is None else {"rows": self.rows_}
        ridge = {} if self.ridge_ is None else {"mix": self.mix_, "alpha": self.ridge_.alpha_.tolist()}
        return {"epochs": self.epochs_, **drops, **rows, **ridge}

    def state(self) -> State:
        """Give `mean` (p,), `scale` (p,), `epochs` (1,), `drops` of a plateau, and all of the layers.

        Where absent settings are those for many rows, also the number of `rows` (1,) and the widths `hidden`.
        Where ridge is mixed in, also `mix` (1,), and its state, as `ridge.coef`.
        """
        found = {"mean": self.mean_, "scale": self.scale_, "epochs": np.array([self.epochs_])}
        if self.schedule == "plateau":
            found["drops"] = np.array(self.drops_, np.int64)
        if self.rows_ is not None:
            found["rows"] = np.array([self.rows_])
            found["hidden"] = np.array(self.hidden_, np.int64)
        if self.ridge_ is not None:
            found["mix"] = np.array([self.mix_])
            found |= {f"{RIDGE}{name}": array for name, array in self.ridge_.state().items()}
        return {**found, **arrays_of(self.network_)}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        self._check_settings()
        self.mean_ = checks.saved_array(state, "mean", None)
        self.n_features_in_ = len(self.mean_)
        self.scale_ = checks.saved_array(state, "scale", len(self.mean_))
        self.epochs_ = int(checks.saved_array(state, "epochs", 1)[0])
        self.drops_ = checks.saved_array(state, "drops", None).tolist() if self.schedule == "plateau" else []
        self.history_ = []
        head = self._settled_as(state)
        self.rows_, self.hidden_ = head.rows, head.hidden
        self.network_ = restore(lambda t: head.make_network(len(self.mean_), t, 0.0), state)
        self.mix_, self.ridge_ = 1.0, None
        if "mix" in state or any(name.startswith(RIDGE) for name in state):  # in version 0.1 none were
            self.mix_ = float(checks.saved_array(state, "mix", 1)[0])
            if not 0 <= self.mix_ <= 1:
                raise Img2PromptError(
                    f"the saved head's 'mix', {self.mix_}, is not from 0 to 1; fit it again"
                )
            self.ridge_ = self._load_ridge(state)
        return self

    def _settled_as(self, state: Mapping[str, NDArray[Any]]) -> Mlp:
        """Settle the head as it was fitted; what it was fitted with decides, not what would be chosen now."""
        if "rows" not in state:
            few: Mlp = clone(self).set_params(rows=None)
            return by_rows.settle(few, 0)
        head = by_rows.settle(self, int(checks.saved_array(state, "rows", 1)[0]))
        hidden = checks.saved_array(state, "hidden", None).tolist()
        if self.hidden is None:
            head.set_params(hidden=hidden)
        return head

    def _load_ridge(self, state: Mapping[str, NDArray[Any]]) -> Ridge:
        *_, last = self.network_.parameters()
        shapes = {"coef": (len(self.mean_), len(last)), "mean": (len(self.mean_),), "intercept": (len(last),)}
        for name, shape in {**shapes, "alpha": (None,)}.items():
            checks.saved_array(state, f"{RIDGE}{name}", *shape)
        own = {name.removeprefix(RIDGE): array for name, array in state.items() if name.startswith(RIDGE)}
        return Ridge().load_state(own)

    def make_network(self, p: int, t: int, dropout: float) -> nn.Module:
        """Make an untrained network of p features and t outputs; see `settings.require_layers` for limits."""
        widths = (*([self.expand * p] if self.expand else []), *(self.hidden or ()))
        require_layers(self, widths)
        return make_network(p, widths, t, dropout=dropout, norm=self.norm, residual=self.residual)

    def _check_settings(self) -> None:
        check_network_settings(self)
