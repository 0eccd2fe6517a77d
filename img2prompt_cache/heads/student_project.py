"""The three systems of the student project that this one grew from, as presets on the cache.

Each trains for exactly its number of epochs on one backbone's pooled feature with MSE, as the project did.
Two things are as everywhere here: features are standardised, and the output starts at the mean target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from img2prompt_cache.data.inner_holdouts import hold_out_many
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.settings import DEVICE, setting
from img2prompt_cache.heads.space import Choices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, State, Targets

RESNETS = {
    "ResNet50": r"\bresnet-?50\b",
    "another ResNet": r"resne[sx]?t",
    "another CNN": r"efficientnet|convnext|regnet|densenet|mobilenet|inception|vgg|nfnet|\bRN\d",
}
VITS = {
    "ViT-B/16": r"^(?!open_clip:).*\bvit_base_patch16_224\b",
    "another ViT": r"^(?!open_clip:).*\b(vit|deit|beit|eva)",
    "a CLIP ViT": r"^open_clip:.*\bViT",
}
"""What the systems were made for, and what may stand in for it, by expressions that find it in a spec."""

STUDENT_SPACE: dict[str, tuple[Any, ...]] = {
    "lr": (1e-5, 3e-5, 1e-4, 3e-4),
    "batch_size": (16, 32, 64),
    "dropout": (0.2, 0.3, 0.4),
    "weight_decay": (1e-5, 1e-4, 0.0),
    "optimizer": ("adam", "sgd"),
}
"""What the tuned system draws its settings from."""

INNER = 0.2
"""Share of the training rows that the curves, and the choice between trials, are taken on."""


class StudentMlp(Mlp):
    """An `Mlp` with nothing that the project did not have."""

    streams = False

    hidden: Sequence[int] = setting(default=(), search=None)
    expand: int = 0
    dropout: float = setting(default=0.3, search=Choices(STUDENT_SPACE["dropout"]))
    norm: str = "none"
    residual: bool = False
    optimizer: str = setting(default="adam", search=Choices(STUDENT_SPACE["optimizer"]))
    loss: str = setting(default="mse", search=None)
    lr: float = setting(default=1e-4, search=Choices(STUDENT_SPACE["lr"]))
    weight_decay: float = setting(default=0.0, search=Choices(STUDENT_SPACE["weight_decay"]))
    batch_size: int = setting(default=32, search=Choices(STUDENT_SPACE["batch_size"]))
    schedule: str = "none"
    warmup: float = 0.0
    ema: float = 0.0
    clip: float = 0.0
    precision: str = "fp32"
    views: bool = False
    epochs: int = 15
    mix: float = 1.0


class StudentResnet50(StudentMlp):
    """Linear regression on ResNet50's pooled feature: 15 epochs of Adam.

    The loss curves in `history` are those of a fit without a grouped fifth of the rows, which it watches;
    then all rows are fitted as long. The settings are those of `Mlp`, but for `epochs`: exactly so many.
    """

    name = "seed-resnet50"
    prefers: ClassVar[Mapping[str, str]] = RESNETS

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
        watched = _watched(clone(self), X, y, groups, views) if validation is None else self
        super()._fit(X, y, groups=groups, widths=widths, validation=validation, views=views)
        self.history_ = watched.history


class StudentVit(StudentResnet50):
    """The same on the pooled feature of a ViT."""

    name = "seed-vit"
    prefers: ClassVar[Mapping[str, str]] = VITS


class StudentTunedResnet(Head):
    """One hidden layer on ResNet50's pooled feature: 20 epochs, its settings found by random search.

    Settings that are absent are drawn from `STUDENT_SPACE`, no draw twice. Each trial is fitted without a
    grouped fifth of the rows; what had the smallest squared error on these after its last epoch is fitted to
    all rows.
    """

    name = "seed-tuned-resnet"
    costly: ClassVar[bool] = True
    prefers: ClassVar[Mapping[str, str]] = RESNETS

    trials: int = setting("Number of draws.", default=10)
    lr: float | None = setting("Learning rate; drawn if absent.", default=None)
    batch_size: int | None = setting("Number of rows in a batch, at most; drawn if absent.", default=None)
    dropout: float | None = setting(
        "Share of each layer's inputs that is dropped in training; drawn if absent.", default=None
    )
    weight_decay: float | None = setting("Weight decay; drawn if absent.", default=None)
    optimizer: str | None = setting('"adam" or "sgd" (momentum 0.9); drawn if absent.', default=None)
    hidden: Sequence[int] = setting(
        "Widths of the hidden layers; none makes the network linear.", default=(512,)
    )
    epochs: int = setting("Number of epochs.", default=20)
    seed: int = setting("Seed of the draws, and of each network.", default=0)
    device: str = setting(DEVICE, default="auto", recorded=False)

    def _check_settings(self) -> None:
        if self.optimizer is not None:
            checks.require_one_of(self, "optimizer", STUDENT_SPACE["optimizer"])
        checks.require(self, "trials", self.trials >= 1, "at least 1")

    def _fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
    ) -> None:
        draws = self._draw()
        watched = [_watched(self._network(**draw), X, y, groups) for draw in draws]
        best = min(range(len(draws)), key=lambda trial: watched[trial].history[-1]["val_loss"])
        self.drawn_ = draws[best]
        self.head_ = self._network(**self.drawn_).fit(X, y)
        self.history_ = [
            {"trial": trial, **record, **_numbers(draw)}
            for trial, (draw, each) in enumerate(zip(draws, watched, strict=True))
            for record in each.history
        ]

    def _predict(self, X: Features) -> Targets:
        return self.head_.use_device(self.device).predict(X)

    @property
    def history(self) -> list[dict[str, float]]:
        """The curves of all trials: `trial`, a record of `Mlp.history`, and what was drawn; `sgd` 0 or 1."""
        return self.history_

    @property
    def chosen(self) -> dict[str, Any]:
        """What was drawn in the best trial."""
        return self.drawn_

    def state(self) -> State:
        """Give the state of the network, and what was drawn as its places in `STUDENT_SPACE`."""
        drawn = {f"drawn.{name}": np.array([value]) for name, value in _numbers(self.drawn_).items()}
        return {**self.head_.state(), **drawn}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        numbers = {name: checks.saved_array(state, f"drawn.{name}", 1)[0].item() for name in _NUMBERS}
        sgd = numbers.pop("sgd")
        self.drawn_ = {**numbers, "optimizer": "sgd" if sgd else "adam"}
        self.head_ = self._network(**self.drawn_).load_state(state)
        self.n_features_in_ = self.head_.n_features_in_
        self.history_ = []
        return self

    def _draw(self) -> list[dict[str, Any]]:
        given = {name: getattr(self, name) for name in STUDENT_SPACE}
        options = [
            values if given[name] is None else (given[name],) for name, values in STUDENT_SPACE.items()
        ]
        space = [dict(zip(STUDENT_SPACE, values, strict=True)) for values in product(*options)]
        random = np.random.default_rng(self.seed)
        return [space[i] for i in random.choice(len(space), min(self.trials, len(space)), replace=False)]

    def _network(self, **drawn: Any) -> StudentMlp:
        return StudentMlp(hidden=self.hidden, epochs=self.epochs, seed=self.seed, device=self.device, **drawn)


_NUMBERS = ("lr", "batch_size", "dropout", "weight_decay", "sgd")


def _numbers(drawn: Mapping[str, Any]) -> dict[str, float]:
    """Give a draw as numbers: history and state hold no words."""
    return {name: int(drawn["optimizer"] == "sgd") if name == "sgd" else drawn[name] for name in _NUMBERS}


def _watched(
    head: Mlp, X: Features, y: Targets, groups: Groups, views: NDArray[np.floating[Any]] | None = None
) -> Mlp:
    """Fit a head to all but a grouped fifth of the rows, and watch it on these."""
    held = hold_out_many(groups, INNER, head.seed)
    rows = ~held
    seen = None if views is None else views[rows]
    return head.fit(X[rows], y[rows], validation=(X[held], y[held]), views=seen)
