"""Predictions: embeddings for images, with the prompts nearest to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.prediction.outputs import open_writer
from img2prompt_cache.tables import Records, counted, html_table, preview

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
    expected : numpy.ndarray, float32, shape (n,), or None
        The cosine that each prediction is expected to have with the embedding of the true prompt; None where
        the run does not say.
    flagged : numpy.ndarray, bool, shape (n,), or None
        Where `expected` is below what was asked for; None where nothing was.
    composed : list of str, length n, or None
        A prompt composed for each image, where that was asked for.
    composed_cosines : numpy.ndarray, float32, shape (n,), or None
        Cosine of each of these prompts to the prediction.
    own_prompts : list of (str or None), length n, or None
        Of an image that is in the run's cache with a prompt: that prompt. The head may have been fitted on
        it, so its prediction is no test of the head. None where no image was looked up.
    """

    ids: list[str]
    vectors: NDArray[np.float32]
    failed: dict[str, str] = field(default_factory=dict)
    prompts: list[list[str]] | None = None
    scores: NDArray[np.float32] | None = None
    expected: NDArray[np.float32] | None = None
    flagged: NDArray[np.bool_] | None = None
    composed: list[str] | None = None
    composed_cosines: NDArray[np.float32] | None = None
    own_prompts: list[str | None] | None = None

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
            expected=_joined([part.expected for part in used]),
            flagged=_joined([part.flagged for part in used]),
            composed=[prompt for part in used for prompt in part.composed or ()]
            if used and all(part.composed is not None for part in used)
            else None,
            composed_cosines=_joined([part.composed_cosines for part in used]),
            own_prompts=[prompt for part in used for prompt in part.own_prompts or ()]
            if used and all(part.own_prompts is not None for part in used)
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

    @property
    def columns(self) -> dict[str, Sequence[Any] | NDArray[Any]]:
        """What is known of each image beside its vector and its nearest prompts, by name."""
        found = {
            "expected": self.expected,
            "flagged": self.flagged,
            "composed": self.composed,
            "composed_cosine": self.composed_cosines,
        }
        return {name: values for name, values in found.items() if values is not None}

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the predictions in the format that the extension names.

        Parameters
        ----------
        path : str or pathlib.Path
            ``.npy``, ``.csv`` (Kaggle's submission), ``.parquet`` or ``.jsonl``; or a folder, ``captions/``,
            for a text file with the prompt of each image. See `outputs`.
        overwrite : bool
            Replace the file.

        Raises
        ------
        UsageError
            If the extension is unknown, the folder is not there, or the file is and `overwrite` is not set.
        Img2PromptError
            If it cannot be written.
        """
        with open_writer(path, self.vectors.shape[1], overwrite=overwrite) as writer:
            if self.ids:
                writer.write(self.ids, self.vectors, self.nearest, self.columns)

    def to_pandas(self) -> pd.DataFrame:
        """Give a data frame: `imgId`, `embedding`, the `columns`, `own_prompt`, `prompts` and `scores`.

        Those that were not asked for, or that the run does not say, are left out, and so is `own_prompt`
        where no image is in the cache.

        Raises
        ------
        Img2PromptError
            If pandas is not installed.
        """
        records: list[dict[str, Any]] = []
        for row, name in enumerate(self.ids):
            record: dict[str, Any] = {"imgId": name, "embedding": self.vectors[row]}
            record |= {column: values[row] for column, values in self.columns.items()}
            if self.own_prompts is not None and any(self.own_prompts):
                record["own_prompt"] = self.own_prompts[row]
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
        return f"Predictions({counted(len(self), 'image', 'images')}: {preview(self.ids, len(self))}{failed})"

    def _repr_html_(self) -> str:
        shown: dict[str, Sequence[object]] = {"imgId": self.ids}
        shown |= {name: np.asarray(values).tolist() for name, values in self.columns.items()}
        if self.own_prompts is not None and any(self.own_prompts):
            shown["own prompt"] = self.own_prompts
        if self.nearest is not None:
            first = [found[0] if found else (None, None) for found in self.nearest]
            shown |= {
                "nearest prompt": [prompt for prompt, _ in first],
                "cosine": [each for _, each in first],
            }
        return html_table([*shown], [list(row) for row in zip(*shown.values(), strict=True)], repr(self))


def _joined(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Put the values of batches together; None unless every batch has them."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known and len(known) == len(parts) else None
