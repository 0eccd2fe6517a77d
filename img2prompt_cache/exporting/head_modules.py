"""Fitted heads as modules of torch: columns of features in, vectors and signals out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.heads.distil import Distil
from img2prompt_cache.heads.finetune import Finetune
from img2prompt_cache.heads.kernel import NEIGHBOURS, Kernel
from img2prompt_cache.heads.mean import Mean
from img2prompt_cache.heads.members import named_apart
from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.neighbours import Neighbours
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.heads.student_project import StudentTunedResnet
from img2prompt_cache.numerics.kernel_ridge import scale_blocks
from img2prompt_cache.numerics.neighbour_gains import weigh_blocks
from img2prompt_cache.numerics.neighbours import FLOOR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.numerics.within_class import Normalisation

MOST_BANK = 1 << 28
"""Bytes of the training rows that heads which look them up may have in a graph."""

_INSTEAD = "fit `head=distil` with this run as `teacher`, and export that"


@dataclass(frozen=True, slots=True, eq=False)
class Sure:
    """What a head gives: unit vectors (n, t), those before a soft bank, and its signals (n,) by name."""

    vectors: Tensor
    unsoftened: Tensor
    signals: dict[str, Tensor]

    @classmethod
    def of(cls, vectors: Tensor, signals: dict[str, Tensor] | None = None) -> Sure:
        """Make them of vectors that no soft bank has drawn."""
        return cls(vectors, vectors, signals or {})


class HeadModule(nn.Module):
    """A head that was fitted: features (n, p), or values of a trunk, to `Sure`, in float32."""

    def keep(self, name: str, values: NDArray[Any] | Tensor) -> None:
        """Keep an array as a buffer: floating-point ones in float32, unless they are float16."""
        tensor = torch.from_numpy(np.ascontiguousarray(values)) if isinstance(values, np.ndarray) else values
        self.register_buffer(name, tensor.float() if tensor.dtype == torch.float64 else tensor)

    def forward(self, x: Tensor) -> Sure:
        """Predict."""
        raise NotImplementedError


def module_of(head: Head) -> HeadModule:
    """Give a head as a module that predicts what the head does.

    Raises
    ------
    UsageError
        If there is none of its kind, or its training rows take more than `MOST_BANK` bytes.
    """
    for kind, make in _MODULES:
        if isinstance(head, kind):
            return make(head)
    if head.name == "outside":
        raise UsageError(
            "a member of the blend was fitted by another program, which nothing else can run: blend the "
            "runs without it, and export that"
        )
    raise UsageError(f"a run with the head {head.name} cannot be exported; {_INSTEAD}")


def unit(x: Tensor) -> Tensor:
    """Scale each row to length 1; a row of zeros stays zero."""
    length = lengths(x)[:, None]
    return x / torch.where(length == 0, torch.ones_like(length), length)


def lengths(x: Tensor) -> Tensor:
    """Give the length of each row."""
    return x.square().sum(1).sqrt()


def unit_blocks(x: Tensor, widths: Sequence[int]) -> Tensor:
    """Scale each block of each row to length 1."""
    return torch.cat([unit(part) for part in torch.split(x, list(widths), 1)], 1)


class Constant(HeadModule):
    """The mean head."""

    mean: Tensor

    def __init__(self, head: Mean) -> None:
        super().__init__()
        self.keep("mean", head.mean_)

    def forward(self, x: Tensor) -> Sure:
        """Repeat the vector for every row, whatever it is a row of."""
        return Sure.of(self.mean.expand(x.shape[0], -1))


class LinearMap(HeadModule):
    """Ridge: (x − mean) coef + intercept."""

    mean: Tensor
    coef: Tensor
    intercept: Tensor

    def __init__(self, head: Ridge) -> None:
        super().__init__()
        self.keep("mean", head.mean_)
        self.keep("coef", head.coef_)
        self.keep("intercept", head.intercept_)

    def forward(self, x: Tensor) -> Sure:
        """Predict; the length before scaling tells how sure it is."""
        found = (x - self.mean) @ self.coef + self.intercept
        return Sure.of(unit(found), {"norm": lengths(found)})


class Network(HeadModule):
    """An mlp on standardised features, beside ridge where that is mixed in."""

    mean: Tensor
    scale: Tensor

    def __init__(self, head: Mlp) -> None:
        super().__init__()
        self.keep("mean", head.mean_)
        self.keep("scale", head.scale_)
        self.network = copy.deepcopy(head.network_).cpu().eval()
        self.ridge = None if head.ridge_ is None else LinearMap(head.ridge_)
        self.mix = head.mix_

    def forward(self, x: Tensor) -> Sure:
        """Predict."""
        found = unit(self.network((x - self.mean) / self.scale))
        if self.ridge is not None:
            found = unit(self.mix * found + (1 - self.mix) * self.ridge(x).vectors)
        return Sure.of(found)


class TailModule(HeadModule):
    """A fine-tuned tail, in float32: values at the cut, channels last."""

    def __init__(self, head: Finetune) -> None:
        super().__init__()
        network = copy.deepcopy(head.network_).cpu()
        self.middle, self.tail, self.output = network.middle, network.tail, network.output

    def forward(self, x: Tensor) -> Sure:
        """Predict."""
        return Sure.of(unit(self.output(self.tail(self.middle(x)))))


class KernelModule(HeadModule):
    """Kernel ridge on the rows, or the landmarks, that were saved."""

    mean: Tensor
    scale: Tensor
    gains: Tensor
    rows: Tensor
    dual: Tensor
    intercept: Tensor
    targets: Tensor

    def __init__(self, head: Kernel) -> None:
        super().__init__()
        self.widths, self.total = head.widths_.tolist(), float(head.gains_.sum())
        for name in ("mean", "scale", "dual", "intercept"):
            self.keep(name, getattr(head, f"{name}_"))
        self.keep("rows", head.rows_.T)
        ones = np.ones((1, len(head.mean_)), np.float32)
        self.keep("gains", scale_blocks(ones, head.widths_, head.gains_)[0])
        self.whitening = None if head.whitening_ is None else Whitening(head.whitening_)
        self.has_targets = head.targets_ is not None
        if head.targets_ is not None:
            self.keep("targets", head.targets_)

    def forward(self, x: Tensor) -> Sure:
        """Predict; how far the targets of the most similar rows agree is a signal, too."""
        scaled = unit_blocks((x - self.mean) / self.scale, self.widths) * self.gains
        products = scaled @ self.rows
        if self.whitening is None:
            values = (products - self.total).exp()
        else:
            values = self.whitening(products, scaled.square().sum(1), self.total)
        found = values @ self.dual + self.intercept
        signals = {"norm": lengths(found)}
        if self.has_targets:
            signals["neighbours"] = agreement_of_nearest(values, self.targets, NEIGHBOURS)
        return Sure.of(unit(found), signals)


class Whitening(HeadModule):
    """The kernel of rows whose variation within classes is discounted; see `within_class`."""

    members: Tensor
    root: Tensor
    projected: Tensor
    lengths: Tensor

    def __init__(self, found: Normalisation) -> None:
        super().__init__()
        self.keep("members", found.members)
        self.keep("root", found.root.T)
        self.keep("projected", found.projected.T)
        self.keep("lengths", found.lengths)

    def forward(self, products: Tensor, squares: Tensor, total: float) -> Tensor:  # type: ignore[override]
        """Compute the kernel values of rows with these products with the saved ones."""
        projected = products[:, self.members] @ self.root
        left = squares - projected.square().sum(1)
        own = torch.where(left > 0, left, torch.ones_like(left)).sqrt()
        cosines = (products - projected @ self.projected) / own[:, None] / self.lengths
        return ((cosines - 1) * total).exp()


def agreement_of_nearest(similarities: Tensor, values: Tensor, k: int) -> Tensor:
    """Compute the length of the weighted mean of the values of the k most similar rows, at most 1."""
    weights, rows = torch.topk(similarities, min(k, values.shape[0]))
    total = (weights[:, None] @ values[rows].float()).squeeze(1)
    weight = weights.sum(1)
    tiny = torch.full_like(weight, torch.finfo(torch.float32).tiny)
    return (lengths(total) / torch.maximum(weight, tiny)).clamp(max=1.0)


class Lookup(HeadModule):
    """The mean target of the k most similar rows, all of which are in the graph, features in float16."""

    mean: Tensor
    scale: Tensor
    gains: Tensor
    vectors: Tensor
    targets: Tensor

    def __init__(self, head: Neighbours) -> None:
        super().__init__()
        rows, width = head.vectors_.shape
        size = 2 * rows * width + head.targets_.nbytes
        if size > MOST_BANK or head.cells_ is not None or head.projected_ is not None:
            raise UsageError(
                f"the head {head.name} looks up its {rows:,} training rows, {size / 1e6:,.0f} MB, and a "
                f"graph holds {MOST_BANK / 1e6:,.0f} MB of them at most; {_INSTEAD}"
            )
        self.widths, self.tells = head.widths_.tolist(), head.length_tells
        self.k = min(int(getattr(head, "k_", 1)), rows)
        self.power = float(getattr(head, "power_", 0.0))
        self.keep("mean", head.mean_)
        self.keep("scale", head.scale_)
        ones = np.ones((1, width), np.float32)
        self.keep("gains", weigh_blocks(ones, head.widths_, head.gains_)[0])
        self.keep("vectors", np.array(head.vectors_, np.float16).T)
        self.keep("targets", np.array(head.targets_))

    def forward(self, x: Tensor) -> Sure:
        """Predict."""
        units = unit_blocks((x - self.mean) / self.scale, self.widths) * self.gains
        similarity, rows = torch.topk(units @ self.vectors.float(), self.k)
        distances = (1 - similarity).clamp(min=FLOOR)
        weights = (distances[:, :1] / distances) ** self.power
        weights = weights / weights.sum(1, keepdim=True)
        found = (weights[:, None] @ self.targets[rows].float()).squeeze(1)
        return Sure.of(unit(found), {"norm": lengths(found)} if self.tells else {})


class Pieces(nn.Module):
    """A head on some of the columns of a run.

    Parameters
    ----------
    head : Head
    ranges : sequence of (int, int)
        Of the features that it takes, as if all columns were flattened and concatenated.
    widths : sequence of int
        Of the columns.
    """

    def __init__(self, head: Head, ranges: Sequence[tuple[int, int]], widths: Sequence[int]) -> None:
        super().__init__()
        self.module, self.pieces = module_of(head), pieces_of(ranges, widths)
        self.takes_one = head.takes == "trunk" or not head.reads_features

    def forward(self, columns: Sequence[Tensor]) -> Sure:
        """Predict."""
        if self.takes_one:  # as it is; the mean head counts its rows
            x = columns[self.pieces[0][0]]
        else:
            x = torch.cat([columns[at][:, start:stop] for at, start, stop in self.pieces], 1)
        found: Sure = self.module(x)
        return found


def pieces_of(ranges: Sequence[tuple[int, int]], widths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Find which columns ranges of features lie in: the number of each, and its own part [start, stop)."""
    found, edges = [], np.cumsum([0, *widths]).tolist()
    for start, stop in ranges:
        for at, (first, last) in enumerate(pairwise(edges)):
            if max(start, first) < min(stop, last):
                found.append((at, max(start, first) - first, min(stop, last) - first))
    return found


class Mixture(nn.Module):
    """A blend: the mean of its members' unit predictions, drawn towards the prompts of a soft bank.

    Parameters
    ----------
    head : Blend
    widths : sequence of int
        Of the columns of the run.
    """

    def __init__(self, head: Blend, widths: Sequence[int]) -> None:
        super().__init__()
        asked = [at for at, each in enumerate(head.heads_) if each is not None and head.weights_[at] > 0]
        heads = [head.heads_[at] for at in asked]
        self.names = [name for name, _ in named_apart([each for each in heads if each is not None])]
        self.members = nn.ModuleList(
            Pieces(each, head.ranges_[at], widths)
            for at, each in zip(asked, heads, strict=True)
            if each is not None
        )
        self.weights = [float(head.weights_[at]) for at in asked]
        self.bank = SoftBank(head) if len(head.bank_) else None

    def forward(self, columns: Sequence[Tensor]) -> Sure:
        """Predict."""
        signals: dict[str, Tensor] = {}
        total: Tensor | float = 0.0
        for name, member, weight in zip(self.names, self.members, self.weights, strict=True):
            found = member(columns)
            signals |= {f"{signal} of {name}": values for signal, values in found.signals.items()}
            total = total + weight * unit(found.vectors)
        assert isinstance(total, Tensor)  # noqa: S101 a blend has a member
        if len(self.weights) > 1:
            signals["agreement"] = lengths(total) / sum(self.weights)
        mixed = unit(total)
        return Sure(mixed if self.bank is None else self.bank(mixed), mixed, signals)


class SoftBank(HeadModule):
    """Unit predictions drawn towards near prompts; see `soft_bank.soften`."""

    bank: Tensor

    def __init__(self, head: Blend) -> None:
        super().__init__()
        self.keep("bank", head.bank_)
        self.temperature, self.pull, self.nearest = head.temperature_, head.pull_, head.nearest_

    def forward(self, vectors: Tensor) -> Tensor:  # type: ignore[override]
        """Draw them."""
        bank = self.bank.float()
        cosines = vectors @ bank.T
        if 0 < self.nearest < bank.shape[0]:
            cosines, rows = torch.topk(cosines, self.nearest)
            means = ((cosines / self.temperature).softmax(1)[:, None] @ bank[rows]).squeeze(1)
        else:
            means = (cosines / self.temperature).softmax(1) @ bank
        return unit(vectors + self.pull * unit(means))


_MODULES: tuple[tuple[type[Head], Callable[[Any], HeadModule]], ...] = (
    (Mean, Constant),
    (Ridge, LinearMap),
    (Mlp, Network),
    (Distil, lambda head: module_of(head.head_)),
    (StudentTunedResnet, lambda head: module_of(head.head_)),
    (Kernel, KernelModule),
    (Neighbours, Lookup),
    (Finetune, TailModule),
)
