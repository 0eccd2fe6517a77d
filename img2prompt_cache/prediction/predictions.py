"""Predictions: embeddings for images, with the prompts nearest to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.prediction.outputs import open_writer
from img2prompt_cache.tables import Records, html_table, preview

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Predictions:
    """Predicted prompt embeddings for some images, in the order in which the images were given.

    ``numpy.asarray(predictions)`` gives the vectors.

    Attributes
    ----------
    ids : list of str, length n
        imgId of each image that could be used.
    vectors : numpy.ndarray, float32, shape (n, t)
        Unit norm; t is 384 for MiniLM.
    failed : dict of str to str
        imgId of each image that could not be used, and why.
    prompts : list of list of str, or None
        The k nearest prompts of each image, best first, where they were asked for.
    scores : numpy.ndarray, float32, shape (n, k), or None
        Cosine of each of these prompts to the prediction.
    """

    ids: list[str]
    vectors: NDArray[np.float32]
    failed: dict[str, str] = field(default_factory=dict)
    prompts: list[list[str]] | None = None
    scores: NDArray[np.float32] | None = None

    @classmethod
    def concatenate(cls, batches: Iterable[Self], width: int) -> Self:
        """Put batches together; `width` is that of the vectors, for when there are none."""
        parts = list(batches)
        used = [part for part in parts if part.ids]
        with_prompts = bool(used) and all(part.prompts is not None for part in used)
        return cls(
            ids=[name for part in used for name in part.ids],
            vectors=np.concatenate([np.empty((0, width), np.float32), *(part.vectors for part in used)]),
            failed={name: reason for part in parts for name, reason in part.failed.items()},
            prompts=[found for part in used for found in part.prompts or ()] if with_prompts else None,
            scores=np.concatenate([part.scores for part in used if part.scores is not None])
            if with_prompts
            else None,
        )

    @property
    def nearest(self) -> list[list[tuple[str, float]]] | None:
        """For each image its nearest prompts with their cosines, best first."""
        if self.prompts is None or self.scores is None:
            return None
        return [
            list(zip(prompts, scores, strict=True))
            for prompts, scores in zip(self.prompts, self.scores.tolist(), strict=True)
        ]

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the predictions in the format that the extension names.

        Parameters
        ----------
        path : str or pathlib.Path
            ``.npy``, ``.csv`` (Kaggle's submission), ``.parquet`` or ``.jsonl``; see `outputs`.
        overwrite : bool
            Replace the file.

        Raises
        ------
        UsageError
            If the extension is unknown, the folder is not there, or the file is and `overwrite` is not set.
        Img2PromptError
            If it cannot be written.
        """
        with open_writer(Path(path), self.vectors.shape[1], overwrite=overwrite) as writer:
            if self.ids:
                writer.write(self.ids, self.vectors, self.nearest)

    def to_pandas(self) -> pd.DataFrame:
        """Give a data frame: `imgId`, `embedding` and, where they were asked for, `prompts` and `scores`.

        Raises
        ------
        Img2PromptError
            If pandas is not installed.
        """
        records: list[dict[str, Any]] = []
        for row, name in enumerate(self.ids):
            record: dict[str, Any] = {"imgId": name, "embedding": self.vectors[row]}
            if self.prompts is not None and self.scores is not None:
                record |= {"prompts": self.prompts[row], "scores": self.scores[row]}
            records.append(record)
        return Records(records).to_pandas()

    def __len__(self) -> int:
        return len(self.ids)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Give the vectors."""
        return np.array(self.vectors, dtype=dtype, copy=True if copy is None else copy)

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"Predictions({len(self)} images: {preview(self.ids, len(self))}{failed})"

    def _repr_html_(self) -> str:
        if self.prompts is None or self.scores is None:
            rows: list[list[object]] = [[name] for name in self.ids]
            return html_table(["imgId"], rows, repr(self))
        rows = [
            [name, prompts[0] if prompts else None, scores[0] if scores else None]
            for name, prompts, scores in zip(self.ids, self.prompts, self.scores.tolist(), strict=True)
        ]
        return html_table(["imgId", "nearest prompt", "cosine"], rows, repr(self))
