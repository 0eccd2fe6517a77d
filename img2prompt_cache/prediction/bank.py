"""Banks: prompts with their embeddings, searched for the nearest ones."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn, used_column
from img2prompt_cache.data.dataset import load_prompts
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.files import hash_file
from img2prompt_cache.models.encoders.base import tell_overlong
from img2prompt_cache.models.recorded import load_recorded_encoder
from img2prompt_cache.numerics.hubs import corrected_queries
from img2prompt_cache.numerics.ivf import Cells, cell_index, fit_cells, hold_back
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.neighbours import nearest
from img2prompt_cache.prediction.bank_file import read_bank
from img2prompt_cache.prediction.kept import encode_kept, keep, kept_path
from img2prompt_cache.prediction.starter import find_bank
from img2prompt_cache.progress import Callback, ignore, task
from img2prompt_cache.tables import counted, preview

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.encoders.base import Encoder

    F32 = NDArray[np.float32]

EXACT = 100_000
"""Prompts of a file up to which the search is exact; beyond, it looks into cells (`benchmarks/bank.py`)."""

TARGET_RECALL = 0.998
"""Recall that the cells are fitted to: predictions are farther from prompts than any sample of prompts is."""

FLOATS = 1 << 24
"""Values of embeddings that are gathered at once for the cosines of prompts: 64 MB."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Bank:
    """Distinct prompts with their embeddings.

    Attributes
    ----------
    prompts : list of str, length m
    vectors : numpy.ndarray, float32, shape (m, dim)
        Unit-norm embeddings; may be memory-mapped.
    index : faiss.Index, optional
        Of cells, over the same vectors; the search is exact where there is none.
    """

    prompts: list[str]
    vectors: F32
    index: Any = None

    @classmethod
    def from_pairs(cls, prompts: Iterable[str | None], vectors: F32) -> Self:
        """Make a bank of prompts that are encoded already, such as a cache's rows.

        Parameters
        ----------
        prompts : iterable of str or None, length n
            A blank one is passed over, and so is one that stood earlier.
        vectors : numpy.ndarray, float32, shape (n, dim)
            Unit-norm embeddings.
        """
        rows: dict[str, int] = {}
        for row, prompt in enumerate(prompts):
            if prompt and prompt.strip():
                rows.setdefault(prompt, row)
        return cls(list(rows), np.ascontiguousarray(vectors[list(rows.values())], np.float32))

    @classmethod
    def from_file(
        cls, path: Path, encoder: Encoder, tell: Callback = ignore, *, parameter: str = "bank"
    ) -> Self:
        """Make a bank of any text file: a prompt a line, or a table with a prompt column.

        Embeddings are kept in the folder ``banks`` of `weights.home`, under a name made of the file's content
        and the encoder's fingerprint, so the same file is encoded once. Beyond 100,000 prompts the cells of
        an approximate index are kept beside them, as plain arrays.

        Parameters
        ----------
        path : pathlib.Path
            CSV, TSV, JSON lines or parquet with a column `prompt`, `text` or `caption`; any other extension
            is read as UTF-8 lines, ``.txt.gz`` as such lines compressed with gzip. ``starter`` is the bank
            that ships with the package, unless there is a file of this name.
        encoder : Encoder
        tell : callable
            Told of the prompts as they are encoded and indexed; of none where that was kept.
        parameter : str
            What errors call the file.

        Raises
        ------
        UsageError
            If the file is not there, cannot be read, or holds no prompt.
        """
        path = find_bank(path)
        prompts = read_bank(path, parameter)
        tell_overlong(encoder.overlong(prompts), encoder, tell)
        kept = kept_path(f"{hash_file(path)}{path.suffix.lower()}", encoder)
        vectors = encode_kept(kept, prompts, encoder, "encode prompts", tell)
        return cls(prompts, vectors, _index(kept.with_suffix(".safetensors"), vectors, tell))

    def search(self, queries: F32, k: int) -> tuple[NDArray[np.int64], F32]:
        """Find the k nearest prompts of each query by cosine, best first.

        Exact unless the bank has an index, whose cosines are those of embeddings in float16.

        Parameters
        ----------
        queries : numpy.ndarray, float32, shape (n, dim)
            Unit vectors.
        k : int
            Cut to m where it is larger.

        Returns
        -------
        indices : numpy.ndarray, int64, shape (n, min(k, m))
            Into `prompts`.
        cosines : numpy.ndarray, float32, shape (n, min(k, m))
            Descending.

        Raises
        ------
        Img2PromptError
            If a query is not finite or has another width than the bank.
        """
        if queries.shape[1] != self.vectors.shape[1]:
            raise Img2PromptError(
                f"the bank's embeddings have {self.vectors.shape[1]} values, "
                f"the predictions {queries.shape[1]}; encode the bank with the encoder of the run"
            )
        if not np.isfinite(queries).all():
            raise Img2PromptError(
                "a prediction is not finite (NaN or infinity), so it has no nearest prompts"
            )
        if self.index is not None:
            distances, indices = nearest(self.index, queries, k)
            return indices, np.clip(1.0 - distances, -1.0, 1.0)
        import faiss

        cosines, indices = faiss.knn(
            np.ascontiguousarray(queries, np.float32),
            self.vectors,
            min(k, len(self.prompts)),
            metric=faiss.METRIC_INNER_PRODUCT,
        )
        return indices, np.clip(cosines, -1.0, 1.0)

    def nearest(
        self, queries: F32, k: int, mean_prediction: F32 | None = None
    ) -> tuple[list[list[str]], F32]:
        """Find the k nearest prompts of each query.

        Parameters
        ----------
        queries : numpy.ndarray, float32, shape (n, dim)
            Unit vectors.
        k : int
            Cut to m where it is larger.
        mean_prediction : numpy.ndarray, float32, shape (dim,), optional
            The mean of unit predictions for other images: prompts are ranked with a correction for hubs then
            (`numerics.hubs`).

        Returns
        -------
        prompts : list of list of str
        cosines : numpy.ndarray, float32, shape (n, min(k, m))
            Not corrected: where prompts are ranked with a correction, they need not descend.

        Raises
        ------
        Img2PromptError
            As `search`.
        """
        if mean_prediction is None:
            indices, cosines = self.search(queries, k)
        else:
            indices, _ = self.search(corrected_queries(queries, mean_prediction), k)
            cosines = self._cosines(queries, indices)
        return [[self.prompts[at] for at in row] for row in indices.tolist()], cosines

    def _cosines(self, queries: F32, indices: NDArray[np.int64]) -> F32:
        """Give the cosines of each query to prompts of its own; memory does not grow with the queries."""
        cosines = np.empty(indices.shape, np.float32)
        step = max(1, FLOATS // max(1, indices.shape[1] * self.vectors.shape[1]))
        for start in range(0, len(queries), step):
            rows = slice(start, start + step)
            cosines[rows] = np.einsum("nd,nkd->nk", queries[rows], self.vectors[indices[rows]])
        return np.clip(cosines, -1.0, 1.0)

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        how = "cells" if self.index is not None else "exact"
        first = preview(self.prompts, len(self))
        return (
            f"Bank({counted(len(self), 'prompt', 'prompts', ',')} × {self.vectors.shape[1]}, {how}: {first})"
        )


def cached_bank(cache: Cache, target: UsedColumn) -> Bank:
    """Make a bank of the prompts of a cache, with the embeddings that are stored there.

    Raises
    ------
    UsageError
        If the cache lacks the target column.
    Img2PromptError
        If the column was made differently from the one that a run was fitted on, or is damaged.
    """
    column = used_column(cache, target, _ADVICE, "targets")
    return Bank.from_pairs(*load_prompts(cache, column))


def encoded_bank(
    path: Path,
    target: UsedColumn,
    device: str = "auto",
    tell: Callback = ignore,
    *,
    parameter: str = "bank",
) -> Bank:
    """Make a bank of a file, encoded as the targets of a run were.

    Raises
    ------
    UsageError
        As `Bank.from_file`.
    Img2PromptError
        If the encoder is not the one that made the targets.
    """
    encoder = load_recorded_encoder(target, device=device)
    return Bank.from_file(path, encoder, tell, parameter=parameter)


_ADVICE = "Prompts are found only among embeddings made as those that the run was fitted on: fit it again."


def _index(path: Path, vectors: F32, tell: Callback) -> Any:
    """Give the index of a large bank, from its kept cells where they are whole; None for a small one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    if len(vectors) <= EXACT:
        return None
    with suppress(OSError, SafetensorError, Img2PromptError):
        return cell_index(vectors, Cells.from_arrays(load_file(path)))
    with task(tell, "index prompts", len(vectors)) as advance:
        drawn, held = hold_back(np.arange(len(vectors)), seed=0)
        # A prediction lies between the prompts that an image might have had, farther from each than a
        # prompt from its neighbours: what is found for mixtures of three is found for prompts, too.
        three = vectors[drawn]
        queries = unit(three + np.roll(three, 1, axis=0) + np.roll(three, 2, axis=0))
        cells, index = fit_cells(vectors, queries, held, seed=0, target_recall=TARGET_RECALL)
        advance(len(vectors))
    with suppress(OSError, SafetensorError):
        keep(path, lambda temporary: save_file(cells.arrays(), temporary))
    return index
