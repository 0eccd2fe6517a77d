"""What a backbone's own classifier sees in an image, said in the space of a text encoder.

Softmax(logits / 2) over the classes weighs the embeddings of their descriptions. The classifier is that of
the published model, whose feature without it is the backbone's.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from img2prompt_cache.models.backbones.taps import NoClassifierError
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.models.fingerprints import digest, weights_digest
from img2prompt_cache.models.specs import parse_spec

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.base import Backbone

TEMPERATURE = 2.0
"""Logits are divided by it before the softmax: at 1 it all but names one class."""

FAMILIES = {"timm": "timm_models", "packaged": "packaged"}
"""Family of a spec to the module whose ``load_classifier(spec, revision)`` gives its `Classifier`."""


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


def attach(backbone: Backbone, encoder: str) -> None:
    """Load a backbone's classifier, and embed the descriptions of its classes.

    Parameters
    ----------
    backbone : Backbone
        Its `class_names` are set, unless they are of this encoder already.
    encoder : str
        Spec of the text encoder.

    Raises
    ------
    UsageError
        If the backbone has no classifier, or what its classes are called is not known.
    Img2PromptError
        If the classifier or the encoder cannot be loaded.
    """
    if backbone.class_names is not None and backbone.class_names.fingerprint["encoder"] == encoder:
        return
    spec = parse_spec(backbone.spec)
    if spec.family not in FAMILIES:
        raise NoClassifierError(backbone.spec)
    module = importlib.import_module(f"{__package__}.{FAMILIES[spec.family]}")
    classifier: Classifier = module.load_classifier(spec, backbone.identity.get("revision", ""))
    if classifier.weight.shape != (len(classifier.descriptions), backbone.dim):
        raise NoClassifierError(backbone.spec)
    writer = load_encoder(encoder, device=str(backbone.device))
    table = torch.from_numpy(writer.encode(classifier.descriptions)).to(backbone.device)
    state = {"weight": classifier.weight, "bias": classifier.bias}
    fingerprint = {
        "encoder": encoder,
        "encoder_digest": digest(writer.fingerprint),
        "classifier": weights_digest(state),
        "descriptions": digest({"descriptions": "\n".join(classifier.descriptions)}),
    }
    weight, bias = (tensor.float().to(backbone.device) for tensor in state.values())
    backbone.class_names = ClassNames(weight, bias, table, fingerprint)


def imagenet_descriptions(classes: int) -> tuple[str, ...]:
    """Give the descriptions of the classes of the ImageNet subset with so many of them; () if none has."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes})
    if not subset:
        return ()
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(number, detailed=False) for number in range(classes))
