"""Rows to train a network on, batch by batch in a new order each time: held, or read when they are used."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from img2prompt_cache.data.column_rows import ColumnRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features
    from img2prompt_cache.heads.neural.pairs import Pairs

BLOCK = 2048
"""Neighbouring rows that stay together when rows are shuffled in blocks: a disk reads them in one go."""
MIXED = 8
"""Blocks whose rows are mixed with each other."""
SAMPLE = 16_384
"""Most rows that are measured where a mean over all would do: the statistics of norms, the first loss."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Rows that are in memory together: their numbers (m,), ascending, and the positions of each batch."""

    rows: Tensor
    batches: tuple[Tensor, ...]


class Order:
    """The order in which rows are trained on.

    Up to `BLOCK` times `MIXED` rows are shuffled as a whole; more are shuffled in blocks of neighbours, and
    the rows of a few blocks among each other. Whether the rows are held in memory makes no difference.

    Parameters
    ----------
    n : int
        Number of rows.
    size : int
        Rows of a batch, at most.
    parts : int
        Epochs of one pass over the rows.
    """

    def __init__(self, n: int, size: int, parts: int = 1) -> None:
        # A part has a batch at least, and is of whole blocks.
        self._n, self._size, self.parts = n, size, max(1, min(parts, n // size))
        self._block = max(1, min(BLOCK, n // self.parts))
        self._waiting: list[list[Tensor]] = []

    def epoch(self) -> list[Chunk]:
        """Draw the order of the next epoch; `torch.manual_seed` decides on it."""
        if self._n <= BLOCK * MIXED and self.parts == 1:
            return [self._chunk(torch.arange(self._n))]
        if not self._waiting:
            self._waiting = self._shuffled()
        return [self._chunk(rows) for rows in self._waiting.pop(0)]

    def _shuffled(self) -> list[list[Tensor]]:
        """Draw a pass: the rows of each chunk of each of its parts."""
        n, size = self._n, self._block
        blocks = torch.randperm(-(-n // size))
        mixed = torch.tensor_split(blocks, max(-(-len(blocks) // MIXED), self.parts))
        chunks = [
            torch.cat(
                [torch.arange(each * size, min(each * size + size, n)) for each in sorted(some.tolist())]
            )
            for some in mixed
        ]
        bounds = [round(len(chunks) * part / self.parts) for part in range(self.parts + 1)]
        return [chunks[start:stop] for start, stop in pairwise(bounds)]

    def _chunk(self, rows: Tensor) -> Chunk:
        # Sizes differ by one at most: no batch is left with a row or two, on which a norm would be noise.
        return Chunk(rows, torch.tensor_split(torch.randperm(len(rows)), -(-len(rows) // self._size)))


class TrainingRows:
    """Standardised features and targets of the rows to train on.

    They are held on the device where they are few, or the device is a GPU and they are in this machine's
    memory; otherwise a thread reads the next rows while the device computes.

    Parameters
    ----------
    pairs : Pairs
    mean, scale : numpy.ndarray, float32, shape (p,)
        What features are standardised by.
    device : torch.device
    """

    def __init__(self, pairs: Pairs, mean: Features, scale: Features, device: torch.device) -> None:
        self._pairs, self._mean, self._scale, self._device = pairs, mean, scale, device
        few = len(pairs.X) <= BLOCK * MIXED
        in_memory = not any(isinstance(each, ColumnRows) and not each.held for each in (pairs.X, pairs.y))
        whole = few or pairs.views is not None or (device.type == "cuda" and in_memory)
        self._held = self._read(slice(None)) if whole else None
        self._views = None if pairs.views is None else torch.from_numpy(pairs.views).to(device)
        self._sample: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._pairs.X)

    def sample(self) -> tuple[Tensor, Tensor]:
        """Give features (m, p) and targets (m, t) of all rows, or of `SAMPLE` from all over them."""
        if self._sample is None:
            rows = np.linspace(0, len(self) - 1, SAMPLE).astype(np.int64)
            if self._held is None:
                self._sample = self._read(rows)
            elif len(self) <= SAMPLE:
                self._sample = self._held
            else:
                inputs, targets = self._held
                self._sample = inputs[rows], targets[rows]
        return self._sample

    def batches(self, chunks: list[Chunk]) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of chunks: features (b, p) and targets (b, t).

        Where there are views, one of them may stand for a row; see `with_views`.
        """
        if self._held is not None:
            inputs, targets = self.with_views(self._held[0]), self._held[1]
            for chunk in chunks:
                for positions in chunk.batches:
                    rows = chunk.rows[positions].to(self._device)
                    yield inputs.index_select(0, rows), targets.index_select(0, rows)
            return
        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(self._read, chunks[0].rows.numpy())
            for number, chunk in enumerate(chunks):
                inputs, targets = following.result()
                if number + 1 < len(chunks):
                    following = ahead.submit(self._read, chunks[number + 1].rows.numpy())
                for positions in chunk.batches:
                    rows = positions.to(self._device)
                    yield inputs.index_select(0, rows), targets.index_select(0, rows)

    def with_views(self, inputs: Tensor) -> Tensor:
        """Draw a view or the image itself, all equally likely, for each of the rows, which are all held."""
        if self._views is None:
            return inputs
        n, count, _ = self._views.shape
        drawn = torch.randint(count + 1, (n,))
        rows = torch.nonzero(drawn < count)[:, 0]
        inputs = inputs.clone()
        mean, scale = (torch.from_numpy(values).to(self._device) for values in (self._mean, self._scale))
        inputs[rows] = (self._views[rows, drawn[rows]].float() - mean) / scale
        return inputs

    def _read(self, rows: slice | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        inputs = np.asarray(self._pairs.X[rows]) - self._mean
        inputs /= self._scale
        return self._on_device(inputs), self._on_device(np.array(self._pairs.y[rows]))  # may be read-only

    def _on_device(self, values: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(values)
        if self._device.type == "cuda":
            # Only from pinned memory does a copy run beside the computation.
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor
