"""The names of a backbone's classes, embedded by a text encoder and attached to the backbone."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from img2prompt_cache.models.backbones.class_names import Classifier, ClassNames
from img2prompt_cache.models.backbones.taps import NoClassifierError
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.models.finding import find_model
from img2prompt_cache.models.fingerprints import digest, weights_digest
from img2prompt_cache.models.specs import ENCODER_FAMILIES, parse_spec

if TYPE_CHECKING:
    from pathlib import Path

    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.models.encoders.base import Encoder
    from img2prompt_cache.models.specs import Spec

FAMILIES = {"timm": "backbones.timm_models", "packaged": "backbones.packaged"}
"""Family of a spec to the module whose ``load_classifier(spec, revision, folder)`` gives its `Classifier`."""


def load_classifier(spec: str, revision: str = "", folder: Path | None = None) -> Classifier:
    """Load the classifier of a published model.

    Parameters
    ----------
    spec : str
        Of the backbone.
    revision : str, optional
        Commit of weights from the hub.
    folder : pathlib.Path, optional
        Where the weights lie, in place of where the spec says.

    Raises
    ------
    NoClassifierError
        If it has none, or what its classes are called is not known.
    Img2PromptError
        If it cannot be loaded.
    """
    parsed = parse_spec(spec)
    if parsed.family not in FAMILIES:
        raise NoClassifierError(spec)
    module = importlib.import_module(f"{__package__}.{FAMILIES[parsed.family]}")
    classifier: Classifier = module.load_classifier(parsed, revision, folder)
    return classifier


def attach_names(backbone: Backbone, encoder: str, encoder_digest: str = "") -> None:
    """Load a backbone's classifier, and embed the descriptions of its classes.

    Parameters
    ----------
    backbone : Backbone
        Its `class_names` are set, unless they are of this encoder already.
    encoder : str
        Spec of the text encoder.
    encoder_digest : str, optional
        Of its fingerprint, where a column was made with it: the encoder is then found wherever it lies now.

    Raises
    ------
    UsageError
        If the backbone has no classifier, or what its classes are called is not known.
    Img2PromptError
        If the classifier or the encoder cannot be loaded.
    """
    if backbone.class_names is not None and backbone.class_names.fingerprint["encoder"] == encoder:
        return
    classifier = load_classifier(backbone.spec, backbone.identity.get("revision", ""), backbone.folder)
    if classifier.weight.shape != (len(classifier.descriptions), backbone.dim):
        raise NoClassifierError(backbone.spec)
    table, found_digest = _embed(encoder, str(backbone.device), classifier.descriptions, encoder_digest)
    state = {"weight": classifier.weight, "bias": classifier.bias}
    fingerprint = {
        "encoder": encoder,
        "encoder_digest": found_digest,
        "classifier": weights_digest(state),
        "descriptions": digest({"descriptions": "\n".join(classifier.descriptions)}),
    }
    weight, bias = (tensor.float().to(backbone.device) for tensor in state.values())
    backbone.class_names = ClassNames(weight, bias, table, fingerprint)


def find_encoder(spec: str, device: str, wanted: str) -> Encoder:
    """Find the encoder of class names wherever it lies now.

    Parameters
    ----------
    spec : str
    device : str
    wanted : str
        Digest of its fingerprint.

    Raises
    ------
    UsageError, Img2PromptError
        If there is none at the places of this context, nor where the spec says.
    """

    def load(named: Spec, folder: Path | None) -> Encoder:
        return load_encoder(str(named), device=device, folder=folder)

    parsed = parse_spec(spec, ENCODER_FAMILIES)
    return find_model(parsed, {}, load, lambda found: digest(found.fingerprint) == wanted)


@lru_cache(maxsize=4)
def _embed(spec: str, device: str, texts: tuple[str, ...], wanted: str) -> tuple[torch.Tensor, str]:
    """Embed descriptions, which many backbones share, and give the digest of the encoder's fingerprint."""
    encoder = find_encoder(spec, device, wanted) if wanted else load_encoder(spec, device=device)
    return torch.from_numpy(encoder.encode(texts)).to(device), digest(encoder.fingerprint)
