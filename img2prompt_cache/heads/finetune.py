"""The finetune head: a backbone's last blocks, trained on cached values of the blocks before them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import clone

from img2prompt_cache.data.trunk_rows import TrunkRows
from img2prompt_cache.errors import DataError, UsageError
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.neural.epochs import holdouts_for_epochs
from img2prompt_cache.heads.neural.finetuning import fine_tune
from img2prompt_cache.heads.neural.settings import check_finetune_settings
from img2prompt_cache.heads.neural.tail_data import TailData
from img2prompt_cache.heads.neural.tail_network import TailNetwork, load, predict
from img2prompt_cache.heads.settings import DEVICE, setting
from img2prompt_cache.heads.space import Choices, LogUniform, Uniform
from img2prompt_cache.models.backbones.tail import load_tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Groups, OnStep, State, Targets
    from img2prompt_cache.heads.neural.tail_network import Inputs
    from img2prompt_cache.models.backbones.taps import Described

FEW = 4000
"""With fewer rows than this, the epochs are chosen on folds."""


class Finetune(Head):
    """The last blocks of a backbone, fine-tuned from its linear probe on rows of a trunk column.

    The probe is ridge on the pooled features that the pre-trained tail makes of the trunk; its solution is
    the output layer that training starts with. Then AdamW on 1 − cosine trains the output layer and the tail.
    Rates are relative: with `lr` 0.001 a step moves a weight by at most about 0.1 % of its tensor's root mean
    square, and with `pull` 10 a weight ends at most about a tenth of that away from its pre-trained value.
    Training is evaluated on rows it never saw, and where it does not help there the head is its probe.

    The penalty towards the pre-trained weights and the probe is relative to the learning rate. Rows are
    mixed in their values at the cut and their targets alike. Blocks behind the cut that are not trained
    keep their pre-trained weights.

    Where `epochs` is absent, their number is the one that was best by mean cosine on the validation rows, 0
    for the probe itself. Where no validation rows are given, a grouped tenth of the rows stands in for
    them, or, of fewer than 4,000 rows, each of three grouped folds; then all rows are fitted for as many
    epochs. `mix` is chosen with the epochs, and is 1 where these are given.
    """

    name = "finetune"
    takes = "trunk"
    costly = True
    warm_up = 2

    blocks: int | None = setting(
        "Number of last blocks to train; all behind the cut of the trunk if absent.", default=None
    )
    lr: float = setting(
        "Relative learning rate of the output layer, at its peak.",
        default=1e-3,
        search=LogUniform(1e-4, 1e-2),
    )
    layer_decay: float = setting(
        "Factor of the learning rate from each layer to the one before, starting at the output layer.",
        default=0.7,
        search=Uniform(0.3, 1.0),
    )
    pull: float = setting(
        "Strength of the penalty that keeps weights close to where they start, relative to `lr`.",
        default=10.0,
        search=LogUniform(1.0, 100.0),
    )
    ema: float = setting(
        "Decay of the exponential moving average of the weights, which predicts.", default=0.99
    )
    clip: float = setting("Largest norm of the gradient.", default=1.0)
    warmup: float = setting(
        "Share of the steps in which the learning rate rises, before it falls with half a cosine.",
        default=0.1,
    )
    mixup: float = setting(
        "Parameter of the beta distribution that two rows are mixed by, values and targets; 0 for none.",
        default=0.2,
        search=Uniform(0.0, 1.0),
    )
    dropout: float = setting(
        "Share of the pooled features that is dropped in training.", default=0.0, search=Uniform(0.0, 0.5)
    )
    views: bool = setting(
        "Whether to train on augmented views of the trunk, too, where the cache holds them.", default=True
    )
    batch_size: int = setting("Number of rows in a batch.", default=64, search=Choices((32, 64, 128)))
    epochs: int | None = setting("Number of epochs; chosen by early stopping if absent.", default=None)
    mix: float | None = setting(
        "Mean of the probe's weights, 0, and the fine-tuned ones, 1; chosen with `epochs` if absent.",
        default=None,
    )
    max_epochs: int = setting("Number of epochs that the schedule of the learning rate spans.", default=10)
    patience: int = setting(
        "Epochs to wait for an improvement, where early stopping chooses their number.", default=3
    )
    alpha: float | None = setting("Penalty of the probe; chosen if absent.", default=None)
    folds: int = setting("Number of grouped folds to choose the penalty on.", default=5)
    precision: str = setting(
        'Precision of matrix products in training: "fp32", "bf16", or "auto" for bf16 where it is fast.',
        default="auto",
    )
    seed: int = setting(
        "Seed of the folds, the order of rows, their views, the mixing and the dropout.", default=0
    )
    device: str = setting(DEVICE, default="auto", recorded=False)

    def bind(self, columns: Sequence[Described]) -> Self:
        """Load the tail behind a trunk column, and check that it is the one the column was cut from.

        Raises
        ------
        UsageError
            If it is not one trunk column, or has too few blocks behind it.
        Img2PromptError
            If the backbone is not what the column was made with.
        """
        self._check_settings()
        if len(columns) != 1:
            raise UsageError(f"finetune trains one backbone, not {len(columns)}; name one with `features`")
        self._tail = load_tail(columns[0], self.blocks)
        return self

    def _check_and_fit(self, X: Any, *rest: Any, **more: Any) -> Self:
        if isinstance(X, TrunkRows):
            self.bind((X.column,))
        return super()._check_and_fit(X, *rest, **more)

    def _check_inputs(self, X: Any) -> Inputs:
        """Check values at the cut: TrunkRows, or an array of such values once `bind` was called.

        Raises
        ------
        UsageError
            If they are rows of no trunk.
        DataError
            If their shape is not that of the trunk.
        """
        if not hasattr(self, "_tail"):
            raise UsageError("finetune takes rows of a trunk column; `extract()` makes one with `trunk`")
        values: Inputs = X if isinstance(X, TrunkRows) else np.asarray(X, np.float32)
        if values.shape[1:] != self._tail.shape:
            raise DataError(f"values {values.shape} do not fit a trunk of shape {self._tail.shape}")
        return values

    def _fit(
        self,
        X: Inputs,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Inputs, Targets] | None = None,
    ) -> None:
        data = TailData(self, self._tail, X, y, groups)
        head, history = self, None
        if self.epochs is None and validation is None:
            inner = [data.sides(held) for held in holdouts_for_epochs(self, groups, FEW)]
            choice = fine_tune(self, data.start, inner)
            head, history = clone(self).set_params(epochs=choice.epochs, mix=choice.mix), choice.history
        tuned = fine_tune(head, data.start, [replace(data.sides(), held_out=validation)])
        self.network_, self.alpha_ = tuned.nets[0].settle(tuned.mix), data.alpha
        self.epochs_, self.mix_, self.history_ = tuned.epochs, tuned.mix, history or tuned.history

    def validate(
        self,
        X: Inputs,
        y: Targets,
        held: Sequence[NDArray[np.bool_]],
        *,
        groups: Groups,
        widths: tuple[int, ...],
        on_step: OnStep | None = None,
    ) -> float:
        """Score these settings as `fit` chooses the epochs: networks of all turns trained together.

        A step is an epoch, and the score that of the best one and its best mix, or of the last where `epochs`
        is given.
        """
        if isinstance(X, TrunkRows):
            self.bind((X.column,))
        self._check_settings()
        data = TailData(self, self._tail, self._check_inputs(X), y, groups)
        return fine_tune(self, data.start, [data.sides(out) for out in held], on_step=on_step).score

    def _predict(self, X: Inputs) -> Targets:
        return predict(self.network_.place(self.device), X)

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per epoch, from 0, the probe: `epoch`, `train_loss`, `val_cosine`, `val_mse`, `seconds`.

        Those of the fit that chose the epochs, if one did; means over its folds. Then one for each `mix` of
        the best epoch's weights that was tried.
        """
        return self.history_

    @property
    def chosen(self) -> dict[str, Any]:
        """The `blocks` that were trained, the probe's `alpha`, the `epochs`, and the `mix` of weights."""
        blocks = len(self._tail.tail.blocks)
        return {"blocks": blocks, "alpha": self.alpha_, "epochs": self.epochs_, "mix": self.mix_}

    def state(self) -> State:
        """Give the tensors of the tail and the output layer, and `alpha`, `epochs` and `mix`, (1,) each."""
        weights = self.network_.weights()
        return {
            **{key: np.ascontiguousarray(value.detach().cpu().numpy()) for key, value in weights.items()},
            "alpha": np.array([self.alpha_]),
            "epochs": np.array([self.epochs_]),
            "mix": np.array([self.mix_]),
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back, once `bind` was called."""
        self._check_settings()
        self.n_features_in_ = math.prod(self._tail.shape)
        width = len(checks.saved_array(state, "output.bias", None))
        network = TailNetwork(self._tail, width, precision=self.precision, device=self.device)
        wanted = network.weights()
        load(network, {key: checks.saved_array(state, key, *value.shape) for key, value in wanted.items()})
        self.network_ = network
        self.alpha_ = float(checks.saved_array(state, "alpha", 1)[0])
        self.epochs_ = int(checks.saved_array(state, "epochs", 1)[0])
        self.mix_ = float(checks.saved_array(state, "mix", 1)[0])
        self.history_ = []
        return self

    def _check_settings(self) -> None:
        check_finetune_settings(self)
