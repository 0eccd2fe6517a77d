"""The zero-shot head: what models say of an image in words, in the space of the targets. It takes no pairs.

A model that tells images apart by texts (a classifier by the names of its classes, a CLIP model by the
prompts of a bank) gives each text a probability. The expected embedding of the text, less the mean of all
texts, says how the image differs from others; added to the mean prompt of the bank it makes the prediction::

    unit(mean prompt + λ (probabilities @ embeddings − mean embedding))

λ is the slope of a least-squares fit on the prompts of the bank alone, each of which stands for an image of
the class whose name is nearest to it: how far a prompt leads from the mean prompt in the direction of its
class. Where the texts are the prompts of the bank itself it is 1, and the prediction is the mean of the
prompts under the model's probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.heads.base import Head
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

VALUES = 1 << 24
"""Probabilities that are computed at a time: 64 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Texts that a model tells images apart by.

    Attributes
    ----------
    weight : numpy.ndarray, float32, shape (m, p)
        Of each text, for the features of an image: logits are ``features @ weight.T + bias``.
    bias : numpy.ndarray, float32, shape (m,)
    embeddings : numpy.ndarray, float32, shape (m, t)
        Of the texts, in the space of the targets; unit norm.
    strength : float
        λ, how much they count.
    scaled : bool
        Whether features are scaled to length 1 first, as for a CLIP model.
    """

    weight: F32
    bias: F32
    embeddings: F32
    strength: float
    scaled: bool = False

    @classmethod
    def of_classes(cls, weight: F32, bias: F32, names: F32, prompts: F32) -> Self:
        """Make labels of a classifier's classes; the strength is found on prompts.

        Parameters
        ----------
        weight : numpy.ndarray, float32, shape (m, p)
        bias : numpy.ndarray, float32, shape (m,)
        names : numpy.ndarray, float32, shape (m, t)
            Unit embeddings of the classes' names.
        prompts : numpy.ndarray, float32, shape (n, t)
            Unit embeddings of the prompts of a bank.
        """
        return cls(weight, bias, names, strength(prompts, names))

    @classmethod
    def of_prompts(cls, texts: F32, scale: float, prompts: F32) -> Self:
        """Make labels of the prompts of a bank, for the image features of a CLIP model.

        Parameters
        ----------
        texts : numpy.ndarray, float32, shape (m, p)
            Unit embeddings of the prompts by the model's text tower.
        scale : float
            What the model multiplies cosines with.
        prompts : numpy.ndarray, float32, shape (m, t)
            Their unit embeddings in the space of the targets.
        """
        return cls(np.float32(scale) * texts, np.zeros(len(texts), np.float32), prompts, 1.0, scaled=True)

    def deviations(self, features: F32) -> F32:
        """Compute how images differ from others: λ (probabilities @ embeddings − mean), shape (n, t)."""
        found = np.empty((len(features), self.embeddings.shape[1]), np.float32)
        mean = self.embeddings.mean(axis=0, dtype=np.float64)
        step = max(1, VALUES // len(self.bias))
        for start in range(0, len(features), step):
            part = features[start : start + step]
            logits = (unit(part) if self.scaled else part) @ self.weight.T + self.bias
            logits -= logits.max(axis=1, keepdims=True)
            np.exp(logits, out=logits)
            logits /= logits.sum(axis=1, keepdims=True)
            found[start : start + step] = self.strength * (logits @ self.embeddings - mean)
        return found


def strength(prompts: F32, names: F32) -> float:
    """Fit λ on prompts alone: the slope of their deviations on those of the nearest class names.

    Parameters
    ----------
    prompts : numpy.ndarray, float32, shape (n, t)
        Unit norm.
    names : numpy.ndarray, float32, shape (m, t)
        Unit norm.

    Returns
    -------
    float
        0 where the prompts do not differ from each other, or the names do not.
    """
    import faiss

    _, nearest = faiss.knn(
        np.ascontiguousarray(prompts, np.float32),
        np.ascontiguousarray(names, np.float32),
        1,
        metric=faiss.METRIC_INNER_PRODUCT,
    )
    counts = np.bincount(nearest[:, 0], minlength=len(names)).astype(np.float64)
    centred = names - names.mean(axis=0, dtype=np.float64)
    sums = np.zeros(names.shape)  # of the prompts of each class
    np.add.at(sums, nearest[:, 0], prompts)
    sums -= counts[:, None] * prompts.mean(axis=0, dtype=np.float64)
    spread = float(counts @ np.einsum("mt,mt->m", centred, centred))
    return max(0.0, float(np.einsum("mt,mt->", sums, centred)) / spread) if spread > 0 else 0.0


class ZeroShot(Head):
    """Predict from what models say of an image in words; see the module. Made of labels, it is not fitted."""

    name = "zero-shot"

    @classmethod
    def of(cls, labels: Sequence[Labels], prior: F32) -> Self:
        """Make the head.

        Parameters
        ----------
        labels : sequence of Labels
            Of each backbone, in the order of the columns of its features.
        prior : numpy.ndarray, float32, shape (t,)
            The mean of the unit embeddings of the prompts of a bank.
        """
        head = cls()
        head.labels_, head.prior_ = tuple(labels), prior
        head.n_features_in_ = sum(each.weight.shape[1] for each in labels)
        return head

    def _predict(self, X: Any) -> F32:
        edges = np.cumsum([each.weight.shape[1] for each in self.labels_])[:-1]
        blocks = np.split(X, edges, axis=1)
        found = [labels.deviations(block) for labels, block in zip(self.labels_, blocks, strict=True)]
        return unit(self.prior_ + np.mean(found, axis=0))
