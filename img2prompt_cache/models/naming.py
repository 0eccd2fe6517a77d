"""The names of a backbone's classes, embedded by a text encoder and attached to the backbone."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from img2prompt_cache.models.backbones.class_names import Classifier, ClassNames
from img2prompt_cache.models.backbones.taps import NoClassifierError
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.models.fingerprints import digest, weights_digest
from img2prompt_cache.models.specs import parse_spec

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.base import Backbone

FAMILIES = {"timm": "backbones.timm_models", "packaged": "backbones.packaged"}
"""Family of a spec to the module whose ``load_classifier(spec, revision)`` gives its `Classifier`."""


def attach_names(backbone: Backbone, encoder: str) -> None:
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
    table, encoder_digest = _embed(encoder, str(backbone.device), classifier.descriptions)
    state = {"weight": classifier.weight, "bias": classifier.bias}
    fingerprint = {
        "encoder": encoder,
        "encoder_digest": encoder_digest,
        "classifier": weights_digest(state),
        "descriptions": digest({"descriptions": "\n".join(classifier.descriptions)}),
    }
    weight, bias = (tensor.float().to(backbone.device) for tensor in state.values())
    backbone.class_names = ClassNames(weight, bias, table, fingerprint)


@lru_cache(maxsize=4)
def _embed(spec: str, device: str, texts: tuple[str, ...]) -> tuple[torch.Tensor, str]:
    """Embed descriptions, which many backbones share, and give the digest of the encoder's fingerprint."""
    encoder = load_encoder(spec, device=device)
    return torch.from_numpy(encoder.encode(texts)).to(device), digest(encoder.fingerprint)
