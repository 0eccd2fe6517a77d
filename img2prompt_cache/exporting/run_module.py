"""What a run does with columns of features, as a module of torch and as an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.exporting.head_modules import HeadModule, Mixture, Pieces, Sure, pieces_of
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.models.backbones.taps import blocks_of, split_spec
from img2prompt_cache.models.onnx_graph import export_graph
from img2prompt_cache.numerics.expected_cosine import CONCENTRATION_TEMPERATURE, NEAREST_AVERAGED

if TYPE_CHECKING:
    import onnx

    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.prediction.expectation import Expectation

VECTORS, EXPECTED = "vectors", "expected"
"""Names of the outputs."""


class RunModule(nn.Module):
    """A head and its expectation: the columns that it needs to unit vectors, and expected cosines.

    Values are rounded as a cache keeps them, because the head was fitted on such.

    Parameters
    ----------
    head : Head
        Fitted.
    columns : sequence of UsedColumn
        Those of the run.
    expectation : Expectation or None

    Attributes
    ----------
    needed : list of int
        Numbers of the columns that it takes. None where it takes any tensor with a row for each image.

    Raises
    ------
    UsageError
        If the head cannot be exported.
    """

    def __init__(self, head: Head, columns: Sequence[UsedColumn], expectation: Expectation | None) -> None:
        super().__init__()
        widths = [column.width for column in columns]
        self.needed = needed_columns(head, widths)
        self.coded = [is_coded(column) for column in columns]
        self.count = len(columns)
        everything = [(0, sum(widths))]
        self.reads = head.reads_features
        self.head = Mixture(head, widths) if isinstance(head, Blend) else Pieces(head, everything, widths)
        self.expected = None if expectation is None else ExpectedModule(expectation)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Predict: vectors (n, t), and where they are expected, cosines (n,)."""
        columns = [given[0]] * self.count
        for at, values in zip(self.needed, given if self.reads else (), strict=True):
            columns[at] = stored(values, coded=self.coded[at])
        found: Sure = self.head(columns)
        return (found.vectors,) if self.expected is None else (found.vectors, self.expected(found))


def needed_columns(head: Head, widths: Sequence[int]) -> list[int]:
    """Find the columns that a head's predictions depend on."""
    if not head.reads_features:
        return []
    if not isinstance(head, Blend):
        return list(range(len(widths)))
    used: set[int] = set()
    for member, ranges, weight in zip(head.heads_, head.ranges_, head.weights_, strict=True):
        if member is not None and weight > 0:
            used.update(at for at, _, _ in pieces_of(ranges, widths))
    return sorted(used)


def is_coded(column: UsedColumn) -> bool:
    """Say whether a column is kept in int8."""
    return split_spec(column.spec)[1].dtype == "int8"


def stored(values: Tensor, *, coded: bool) -> Tensor:
    """Round values as a column keeps them, to float16 or int8; see `quantise.quantise`."""
    kept = values.to(torch.float16)
    if not coded:
        return kept.float()
    wide = kept.float()
    between = tuple(range(1, wide.ndim - 1))
    largest = wide.abs().amax(between, keepdim=True)
    scale = (largest / 127).to(torch.float16)
    # The next number of float16 where the nearest is too small: 0.6 to 1.2 steps away, and rounded to it.
    wider = scale.float() + (scale.float() * (1.2 * 2**-11)).clamp(min=0.6 * 2**-24)
    step = torch.where(largest > 127.5 * scale.float(), wider.to(torch.float16), scale).float()
    codes = torch.where(step > 0, wide / torch.where(step > 0, step, torch.ones_like(step)), 0.0)
    return codes.round().clamp(-127, 127) * step


class ExpectedModule(HeadModule):
    """The cosine that predictions are expected to have; see `expected_cosine`."""

    low: Tensor
    reach: Tensor
    weight: Tensor
    knots: Tensor
    steps: Tensor
    slopes: Tensor
    bank: Tensor

    def __init__(self, expectation: Expectation) -> None:
        super().__init__()
        curve = expectation.curve
        self.names = expectation.signals
        # Signals are counted from their lowest value, and the knots, too: float32 has few digits.
        self.keep("low", curve.low)
        self.keep("reach", curve.high - curve.low)
        self.keep("weight", curve.weight)
        steps = curve.knots[1:] - curve.knots[:-1]
        self.keep("knots", curve.knots[:-1] - curve.low @ curve.weight)
        self.keep("steps", steps)
        self.keep("slopes", (curve.levels[1:] - curve.levels[:-1]) / steps)
        self.start = float(curve.levels[0])
        self.constant = 0.0 if self.names else float(curve(np.empty((1, 0)))[0])
        self.has_bank = len(expectation.bank) > 0
        if self.has_bank:
            self.keep("bank", expectation.bank)

    def forward(self, found: Sure) -> Tensor:  # type: ignore[override]
        """Compute the expected cosines (n,)."""
        if not self.names:
            return torch.full_like(found.vectors[:, 0], self.constant)
        signals = dict(found.signals)
        if self.has_bank:
            signals |= bank_signals(found.unsoftened, self.bank.float())
        values = torch.stack([signals[name] for name in self.names], 1)
        values = torch.minimum((values - self.low).clamp(min=0), self.reach) @ self.weight
        # Each piece adds its slope times how far along it the value lies: flat beyond both ends.
        along = torch.minimum((values[:, None] - self.knots).clamp(min=0), self.steps)
        return self.start + along @ self.slopes


def bank_signals(vectors: Tensor, bank: Tensor) -> dict[str, Tensor]:
    """Say how near predictions are to the prompts of a bank; see `expected_cosine.bank_signals`."""
    cosines = vectors @ bank.T
    top = torch.topk(cosines, min(NEAREST_AVERAGED, bank.shape[0]))[0]
    logits = (cosines - top[:, :1]) / CONCENTRATION_TEMPERATURE
    weights = logits.exp()
    total = weights.sum(1)
    return {
        "nearest": top[:, 0],
        "nearest_5": top.mean(1),
        "near": (weights * cosines).sum(1) / total,
        "concentration": (weights * logits).sum(1) / total - total.log(),
    }


def head_graph(
    module: RunModule, columns: Sequence[UsedColumn], pixels: tuple[int, int] = (1, 1)
) -> onnx.ModelProto:
    """Write a run's head as an ONNX graph; its inputs are named by `column_input`.

    Where it reads no features, its input is pixels of this height and width, of which it takes the number.
    """
    outputs = [VECTORS] if module.expected is None else [VECTORS, EXPECTED]
    if not module.needed:
        return export_graph(module, {column_input(0): torch.zeros(2, *pixels, 3, dtype=torch.uint8)}, outputs)
    random = torch.Generator().manual_seed(0)
    inputs = {}
    for at in module.needed:
        column = columns[at]
        values = torch.randn(2, *(column.shape or (column.width,)), generator=random)
        trunk = blocks_of(split_spec(column.spec)[1].name)
        inputs[column_input(at)] = values.to(torch.float16) if trunk else values
    return export_graph(module, inputs, outputs)


def column_input(at: int) -> str:
    """Name the input of a column."""
    return f"column_{at}"
