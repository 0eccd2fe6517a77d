"""Models of open_clip: ``ARCH/TAG[@revision]``, ``hf-hub:owner/name[@revision]``, ``local-dir:PATH``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch

from img2prompt_cache.errors import Img2PromptError, UsageError, first_line, unknown
from img2prompt_cache.images.geometry import Geometry
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.build import freeze
from img2prompt_cache.models.specs import Spec
from img2prompt_cache.models.weights import hub

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""File names of open_clip's weights on the hub, best first."""


@dataclass(frozen=True, slots=True)
class Model:
    """A CLIP model with its weights.

    Attributes
    ----------
    model : torch.nn.Module
        Both towers.
    config : dict
        Its ``model_cfg``.
    architecture : str
        Its name in a backbone's identity.
    name : str
        The name by which open_clip finds its tokenizer.
    revision : str
        The commit of the hub that the weights are from; empty for other weights.
    """

    model: torch.nn.Module
    config: dict[str, Any]
    architecture: str
    name: str
    revision: str = ""


def load(spec: Spec, revision: str = "", folder: Path | None = None) -> Backbone:
    """Load the image tower of a CLIP model; its feature is the projected, un-normalised image embedding.

    Raises
    ------
    UsageError, Img2PromptError
        As `load_model` does.
    """
    found = load_model(spec, revision, folder)
    return _freeze(spec, found.model, found.architecture, found.revision)


def load_model(spec: Spec, revision: str = "", folder: Path | None = None) -> Model:
    """Load a CLIP model, of a folder in place of where the spec says, if one is given.

    Raises
    ------
    UsageError
        If open_clip has no such model, or there is no such folder.
    Img2PromptError
        If the weights cannot be loaded or do not fit.
    """
    source, _, rest = spec.name.partition(":")
    if source == "local-dir" and rest:
        return _from_folder(spec, folder or Path(rest).expanduser())
    name, revision = hub.split_revision(rest if source == "hf-hub" else spec.name, revision)
    if source == "hf-hub" and name:
        if folder is not None:
            return _from_folder(spec, folder, revision, f"hf-hub:{name}")
        snapshot = fetch(spec, revision)
        return _from_folder(spec, snapshot.folder, snapshot.commit, f"hf-hub:{name}")
    return _from_registry(spec, name, revision, folder)


def fetch(spec: Spec, revision: str = "") -> hub.Snapshot:
    """Download the files of a model that is on the hub, and of what it is there; the weights come last.

    Raises
    ------
    UsageError
        If the hub has no such files.
    Img2PromptError
        If the hub does not answer and they are not in its cache.
    """

    def listed(name: str) -> tuple[str, list[tuple[str, ...]]]:
        repository, names = _names(open_clip.get_pretrained_cfg(*name.split("/", 1)))
        return repository, [names]

    return hub.fetch_model(spec, revision, [(CONFIG,), WEIGHTS], listed)


def _names(pretrained: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Name the repository of weights that open_clip lists, and what their file may be called, best first."""
    repository, _, file = pretrained["hf_hub"].rpartition("/")
    return repository, (f"{file.rpartition('.')[0]}.safetensors", file) if file else WEIGHTS


def _from_registry(spec: Spec, name: str, revision: str, folder: Path | None) -> Model:
    architecture, _, tag = name.partition("/")
    config = open_clip.get_model_config(architecture) if ":" not in architecture else None
    pretrained = open_clip.get_pretrained_cfg(architecture, tag) if config else None
    if not config or not pretrained:
        if name.startswith((".", "/", "~")) or "\\" in name or Path(name).exists():
            raise UsageError(f"{spec} looks like a path; write open_clip:local-dir:PATH")
        raise unknown("open_clip model", name, ("/".join(pair) for pair in open_clip.list_pretrained()))
    if folder is None:
        snapshot = fetch(spec, revision)
        weights, revision = snapshot.files[0], snapshot.commit
    else:
        weights = hub.first_of(str(spec), folder, (*_names(pretrained)[1], *WEIGHTS))
    model = _create(
        spec,
        architecture,
        pretrained=str(weights),
        # Weights trained with QuickGELU are also listed under architectures without it, where open_clip warns
        # and computes something else than they were trained for.
        force_quick_gelu=bool(pretrained.get("quick_gelu") or config.get("quick_gelu")),
        force_preprocess_cfg={key: value for key, value in pretrained.items() if key != "size"},
    )
    return Model(model, config, architecture, architecture, revision)


def _from_folder(spec: Spec, folder: Path, revision: str = "", hub_name: str = "") -> Model:
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))["model_cfg"]
        architecture = json.dumps({key: config[key] for key in ("embed_dim", "vision_cfg")}, sort_keys=True)
    except OSError as error:
        raise UsageError(f"{spec}: cannot read {folder / CONFIG}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{spec}: {CONFIG} is not one of open_clip's; it must hold a model_cfg") from error
    name = f"local-dir:{folder}"
    model = _create(spec, name)
    # A tokenizer of transformers was not downloaded with the weights.
    elsewhere = hub_name and (config.get("text_cfg") or {}).get("hf_tokenizer_name")
    return Model(model, config, architecture, hub_name if elsewhere else name, revision)


def _create(spec: Spec, name: str, **options: Any) -> torch.nn.Module:
    """Build a model and load its weights; pickles are read with ``weights_only``."""
    try:
        model: torch.nn.Module = open_clip.create_model(
            name, pretrained_text=False, require_pretrained=True, weights_only=True, **options
        )
    except Exception as error:
        reason = first_line(error)
        raise Img2PromptError(f"{spec}: open_clip cannot load these weights: {reason}") from error
    return model


def _freeze(spec: Spec, model: torch.nn.Module, architecture: str, revision: str = "") -> Backbone:
    config = open_clip.get_model_preprocess_cfg(model)
    tower: torch.nn.Module = model.get_submodule("visual")
    if getattr(tower, "output_tokens", False):
        tower.output_tokens = False  # type: ignore[assignment]  # CoCa also returns the tokens for its text decoder
    return freeze(
        spec,
        tower,
        Geometry.from_open_clip(config),
        config["mean"],
        config["std"],
        architecture=architecture,
        library="open_clip",
        revision=revision,
    )
