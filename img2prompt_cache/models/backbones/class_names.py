"""What a backbone's own classifier sees in an image, said in the space of a text encoder.

Softmax(logits / 2) over the classes weighs the embeddings of their descriptions. The classifier is that of
the published model, whose feature without it is the backbone's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TEMPERATURE = 2.0
"""Logits are divided by it before the softmax: at 1 it all but names one class."""


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """The last layer of a published model.

    Attributes
    ----------
    weight : torch.Tensor, float32, shape (classes, dim)
    bias : torch.Tensor, float32, shape (classes,)
    descriptions : tuple of str
        Of the classes: ``"goldfish, Carassius auratus"``.
    """

    weight: Tensor
    bias: Tensor
    descriptions: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ClassNames:
    """A classifier with the embeddings of its classes' descriptions.

    Attributes
    ----------
    weight : torch.Tensor, float32, shape (classes, dim)
    bias : torch.Tensor, float32, shape (classes,)
    table : torch.Tensor, float32, shape (classes, width)
    fingerprint : dict of str to str
        What the output depends on besides the backbone's own fingerprint.
    """

    weight: Tensor
    bias: Tensor
    table: Tensor
    fingerprint: dict[str, str]

    def read(self, features: Tensor) -> Tensor:
        """Compute the output: features (n, dim) to (n, width), float32."""
        logits = torch.nn.functional.linear(features, self.weight, self.bias)
        return (logits / TEMPERATURE).softmax(1) @ self.table


def imagenet_descriptions(classes: int) -> tuple[str, ...]:
    """Give the descriptions of the classes of the ImageNet subset with so many of them; () if none has."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes})
    if not subset:
        return ()
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(number, detailed=False) for number in range(classes))
