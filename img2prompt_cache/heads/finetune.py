"""The finetune head: a backbone's last blocks, trained from what its trunk said."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from img2prompt_cache.data.inner_holdouts import inner_holdouts
from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.data.trunk_rows import TrunkRows
from img2prompt_cache.errors import DataError, Img2PromptError, UsageError, unknown
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.heads.space import Choices, LogUniform, Space, Uniform
from img2prompt_cache.numerics.gram import Rows
from img2prompt_cache.numerics.metrics import mean_cosine, mse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Groups, OnStep, State, Targets
    from img2prompt_cache.heads.neural.finetuning import Inputs, Tuning
    from img2prompt_cache.models.backbones.taps import Described

FEW = 4000
"""With fewer rows than this, one hold-out tells little, and the epochs are chosen on folds."""
PRECISIONS = ("auto", "fp32", "bf16")
MIXES = (0.25, 0.5, 0.75, 1.0)
"""Weights of the tuned tensors that are tried once the epochs are chosen."""
CHUNK = 4096
"""Rows of pooled features taken at a time."""


class Side(NamedTuple):
    """Rows to train on, and values and targets to watch, if any."""

    rows: NDArray[np.int64]
    held: tuple[Inputs, Targets] | None


class Finetune(Head):
    """The last blocks of a backbone, fine-tuned from its linear probe on rows of a trunk column.

    The probe is ridge on the pooled features that the pre-trained tail makes of the trunk; its solution is
    the output layer that training starts with. Then AdamW on 1 − cosine trains the output layer and the tail.
    Rates are relative: with `lr` 0.001 a step moves a weight by at most about 0.1 % of its tensor's root mean
    square, and with `pull` 10 it settles at most about a tenth of that away from where it started. Training
    is judged on rows it never saw, and where it does not help there the head is its probe.

    Parameters
    ----------
    blocks : int, optional
        How many of the last blocks are trained. All behind the cut if absent; where there are more, the
        others are run as they are.
    lr : float
        Relative learning rate of the output layer, at its peak.
    layer_decay : float
        Its factor from the output layer to the last block, and from each block to the one before.
    pull : float
        Towards the pre-trained weights and the probe, relative to `lr`.
    ema : float
        Share of the averaged weights that a step leaves as they are.
    clip : float
        Largest norm of a step's gradient.
    warmup : float
        Share of the steps in which the rate rises, before it falls with half a cosine.
    mixup : float
        Both parameters of the beta distribution that says how two rows are mixed, values at the cut and
        targets alike; 0 for none.
    dropout : float
        Share of the pooled features dropped in training.
    views : bool
        Train also on augmented views of the trunk, where the cache holds them.
    batch_size : int
    epochs : int, optional
        Exactly so many. If absent, as many as were best by mean cosine on the validation rows, 0 for the
        probe itself. Where no validation rows are given, a grouped tenth of the rows stands in for them, or,
        of fewer than 4,000 rows, each of three grouped folds; then all rows are fitted as long.
    mix : float, optional
        Where the weights lie between the probe, 0, and the tuned ones, 1. If absent, chosen with the epochs;
        1 where these are given.
    max_epochs, patience : int
        How many epochs the schedule of the rate spans; and how many to wait for an improvement.
    alpha : float, optional
        Penalty of the probe; chosen on grouped folds if absent.
    folds : int
        Folds to choose the penalty on.
    precision : str
        ``"fp32"``, ``"bf16"`` for bfloat16 products of float32 weights, or ``"auto"``: that where the
        processor or GPU multiplies them in hardware, float32 otherwise.
    seed : int
        Of the folds, the order of rows, their views, mix-up and dropout.
    """

    name = "finetune"
    takes = "trunk"
    costly = True
    space: ClassVar[Space] = {
        "lr": LogUniform(1e-4, 1e-2),
        "layer_decay": Uniform(0.3, 1.0),
        "pull": LogUniform(1.0, 100.0),
        "mixup": Uniform(0.0, 1.0),
        "dropout": Uniform(0.0, 0.5),
        "batch_size": Choices((32, 64, 128)),
    }
    warm_up = 2
    epochs_: int
    mix_: float
    alpha_: float

    def __init__(
        self,
        blocks: int | None = None,
        lr: float = 1e-3,
        layer_decay: float = 0.7,
        pull: float = 10.0,
        ema: float = 0.99,
        clip: float = 1.0,
        warmup: float = 0.1,
        mixup: float = 0.2,
        dropout: float = 0.0,
        views: bool = True,
        batch_size: int = 64,
        epochs: int | None = None,
        mix: float | None = None,
        max_epochs: int = 10,
        patience: int = 3,
        alpha: float | None = None,
        folds: int = 5,
        precision: str = "auto",
        seed: int = 0,
    ) -> None:
        self.blocks = blocks
        self.lr = lr
        self.layer_decay = layer_decay
        self.pull = pull
        self.ema = ema
        self.clip = clip
        self.warmup = warmup
        self.mixup = mixup
        self.dropout = dropout
        self.views = views
        self.batch_size = batch_size
        self.epochs = epochs
        self.mix = mix
        self.max_epochs = max_epochs
        self.patience = patience
        self.alpha = alpha
        self.folds = folds
        self.precision = precision
        self.seed = seed

    def bind(self, columns: Sequence[Described]) -> Self:
        """Load the tail behind a trunk column, and check that it is the one the column was cut from.

        Raises
        ------
        UsageError
            If it is not one trunk column, or has too few blocks behind it.
        Img2PromptError
            If the backbone is not what the column was made with.
        """
        from img2prompt_cache.models.backbones.tail import load_tail

        self._check_settings()
        if len(columns) != 1:
            raise UsageError(f"finetune trains one backbone, not {len(columns)}; name one with `features`")
        self._ending = load_tail(columns[0], self.blocks)
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
        if not hasattr(self, "_ending"):
            raise UsageError("finetune takes rows of a trunk column; `extract()` makes one with `trunk`")
        values: Inputs = X if isinstance(X, TrunkRows) else np.asarray(X, np.float32)
        if values.shape[1:] != self._ending.shape:
            raise DataError(f"values {values.shape} do not fit a trunk of shape {self._ending.shape}")
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
        self._prepare(X, y, groups)
        everything = Side(np.arange(len(X)), validation)
        if self.epochs is not None:
            self.epochs_, self.mix_ = self.epochs, 1.0 if self.mix is None else self.mix
            nets, self.history_ = self._run([everything], self.epochs, stop=False)
        elif validation is not None:
            nets, self.history_ = self._run([everything], self.max_epochs, stop=True)
        else:
            turns = inner_holdouts(
                groups,
                self.seed,
                few=FEW,
                share=0.1,
                what="finetune chooses its epochs",
                instead=", or set --epochs",
            )
            inner = [Side(np.flatnonzero(~held), (X[held], y[held])) for held in turns]
            _, self.history_ = self._run(inner, self.max_epochs, stop=True)
            nets, _ = self._run([everything], self.epochs_, stop=False)
        self.network_ = nets[0].settle(self.mix_)
        del self._pooled, self._X, self._y

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
        self._prepare(self._check_inputs(X), y, groups)
        sides = [Side(np.flatnonzero(~out), (X[out], y[out])) for out in held]
        epochs = self.max_epochs if self.epochs is None else self.epochs
        nets, history = self._run(sides, epochs, stop=self.epochs is None, on_step=on_step)
        del self._pooled, self._X, self._y
        if self.epochs is not None:
            return _watch(nets, sides, 1.0 if self.mix is None else self.mix)["val_cosine"]
        return max(record["val_cosine"] for record in history if not record["epoch"] or "mix" in record)

    def _predict(self, X: Inputs) -> Targets:
        from img2prompt_cache.heads.neural import finetuning

        return finetuning.predict(self.network_, X)

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
        blocks = len(self._ending.tail.blocks)
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
        from img2prompt_cache.heads.neural import finetuning

        self._check_settings()
        width = len(checks.take(state, "output.bias", None))
        self.n_features_in_ = math.prod(self._ending.shape)
        network = finetuning.Network(self._ending, width, precision=self.precision)
        wanted = network.weights()
        finetuning.load(
            network, {key: checks.take(state, key, *value.shape) for key, value in wanted.items()}
        )
        self.network_ = network
        self.alpha_ = float(checks.take(state, "alpha", 1)[0])
        self.epochs_ = int(checks.take(state, "epochs", 1)[0])
        self.mix_ = float(checks.take(state, "mix", 1)[0])
        self.history_ = []
        return self

    def _prepare(self, X: Inputs, y: Targets, groups: Groups) -> None:
        """Pool the rows, and choose the probe's penalty on them."""
        from img2prompt_cache.heads.neural import finetuning

        net = finetuning.Network(self._ending, y.shape[1], precision=self.precision)
        self._pooled, self._X, self._y = finetuning.pool(net, X), X, y
        fold = None if self.alpha is not None else k_folds(groups, self.folds, self.seed)
        self.alpha_ = float(self._probe(np.arange(len(X)), self.alpha, fold).alpha_[0])

    def _probe(
        self, rows: NDArray[np.int64], alpha: float | None, fold: NDArray[np.int64] | None = None
    ) -> Ridge:
        """Fit ridge on pooled features of some rows, whose `fold` tells where alpha is to be chosen."""
        fold = np.zeros(len(rows), np.int64) if fold is None else fold

        def chunks() -> Iterator[Rows]:
            for start in range(0, len(rows), CHUNK):
                some = rows[start : start + CHUNK]
                yield Rows(self._pooled[some], self._y[some], fold[start : start + CHUNK])

        return Ridge(alpha, self.folds, seed=self.seed).fit_stream(
            chunks, len(rows), (self._pooled.shape[1],)
        )

    def _run(
        self, sides: Sequence[Side], epochs: int, *, stop: bool, on_step: OnStep | None = None
    ) -> tuple[list[Tuning], list[dict[str, float]]]:
        """Train one network for each side, epoch by epoch together; choose `epochs_` and `mix_` if `stop`.

        Returns
        -------
        nets : list of Tuning
            To be settled; with `stop` they keep what they were after the best epoch.
        history : list of dict
            Means over the networks.
        """
        import torch

        from img2prompt_cache.heads.neural.finetuning import Tuning

        history: list[dict[str, float]] = []
        started = time.perf_counter()
        best, at = -np.inf, 0
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            probes = [self._probe(side.rows, self.alpha_) for side in sides]
            nets = [
                Tuning(self, self._ending, probe, self._X[side.rows], self._y[side.rows])
                for side, probe in zip(sides, probes, strict=True)
            ]
            for epoch in range(epochs + 1):
                pairs = zip(nets, sides, probes, strict=True)
                losses = [net.train() if epoch else self._loss(side, probe) for net, side, probe in pairs]
                record = {"epoch": epoch, "train_loss": float(np.mean(losses)), **_watch(nets, sides)}
                if not np.isfinite(list(record.values())).all():
                    raise Img2PromptError(
                        f"finetune diverged in epoch {epoch}; lower lr, which is {self.lr:g}"
                    )
                history.append({**record, "seconds": time.perf_counter() - started})
                if on_step:
                    on_step(epoch, record["val_cosine"])
                if not stop or not epoch or record["val_cosine"] > best:
                    # The probe is held against the mixes in the end, so it is none to be better than here.
                    best, at = record["val_cosine"] if stop and epoch else best, epoch
                    for net in nets:
                        net.keep()
                elif epoch - at >= self.patience:
                    break
        if stop:
            self._choose(nets, sides, at, history)
        return nets, history

    def _choose(
        self, nets: Sequence[Tuning], sides: Sequence[Side], epoch: int, history: list[dict[str, float]]
    ) -> None:
        """Settle on `epochs_` and `mix_` by the rows held out: those of the best epoch, or the probe."""
        mixes = MIXES if self.mix is None else (self.mix,)
        known = {key: history[epoch][key] for key in ("val_cosine", "val_mse")}  # of the weights as they are
        scores = [known if mix == 1 else _watch(nets, sides, mix) for mix in mixes]
        tried = [{"epoch": epoch, "mix": mix, **score} for mix, score in zip(mixes, scores, strict=True)]
        best = max(tried, key=lambda record: record["val_cosine"])
        better = best["val_cosine"] > history[0]["val_cosine"]
        self.epochs_, self.mix_ = (epoch, best["mix"]) if better else (0, 0.0)
        history += tried

    def _loss(self, side: Side, probe: Ridge) -> float:
        """Mean loss of a probe on the rows it was fitted on."""
        total = 0.0
        for start in range(0, len(side.rows), CHUNK):
            some = side.rows[start : start + CHUNK]
            total += len(some) * (1 - mean_cosine(probe.predict(self._pooled[some]), self._y[some]))
        return total / len(side.rows)

    def _check_settings(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown("value of finetune's setting 'precision'", self.precision, PRECISIONS)
        if not 0 <= self.lr <= 1:
            raise UsageError(f"finetune needs lr of 0 to 1, relative to a tensor's size, not {self.lr}")
        least = {"pull": 0, "mixup": 0, "batch_size": 1, "max_epochs": 1, "patience": 1}
        for setting, low in least.items():
            if not getattr(self, setting) >= low:
                raise UsageError(f"finetune needs {setting} ≥ {low}, not {getattr(self, setting)}")
        for setting in ("ema", "dropout", "warmup"):
            if not 0 <= getattr(self, setting) < 1:
                raise UsageError(f"finetune needs {setting} of 0 to below 1, not {getattr(self, setting)}")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"finetune needs layer_decay above 0, at most 1, not {self.layer_decay}")
        if not self.clip > 0:
            raise UsageError(f"finetune needs clip > 0, not {self.clip}")
        for setting, low in {"blocks": 1, "epochs": 0}.items():
            value = getattr(self, setting)
            if value is not None and value < low:
                raise UsageError(f"finetune needs {setting} ≥ {low}, not {value}")
        if self.mix is not None and not 0 <= self.mix <= 1:
            raise UsageError(f"finetune needs mix of 0 to 1, not {self.mix}")


def _watch(nets: Sequence[Tuning], sides: Sequence[Side], mix: float | None = None) -> dict[str, float]:
    """Score networks on the rows held out from each, all together; nothing where none were."""
    held = [
        (net.predict(side.held[0], mix), side.held[1])
        for net, side in zip(nets, sides, strict=True)
        if side.held
    ]
    if not held:
        return {}
    pred, true = (np.concatenate(arrays) for arrays in zip(*held, strict=True))
    return {"val_cosine": mean_cosine(pred, true), "val_mse": mse(pred, true)}
