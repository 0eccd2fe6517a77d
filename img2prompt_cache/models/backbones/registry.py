"""The families of backbones by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from img2prompt_cache.errors import unknown
from img2prompt_cache.models.specs import parse_spec

if TYPE_CHECKING:
    from pathlib import Path

    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.models.devices import Precision

FAMILIES = {"timm": "timm_models", "open_clip": "open_clip_models", "packaged": "packaged"}
"""Family of a spec to the module whose ``load(spec, revision, folder)`` gives its `Backbone`, in fp32."""


def load_backbone(
    spec: str,
    *,
    precision: Precision = "fp32",
    device: str = "cpu",
    revision: str = "",
    folder: Path | None = None,
) -> Backbone:
    """Load a frozen image encoder.

    Parameters
    ----------
    spec : str
        ``timm:NAME[@revision]``, ``open_clip:ARCH/TAG[@revision]`` or ``packaged:NAME``; after ``timm:`` and
        ``open_clip:`` also ``hf-hub:owner/name[@revision]`` and ``local-dir:PATH``.
    precision : {"fp32", "bf16", "fp16"}
        What it computes in; the features are float32 in any case.
    device : str
        As torch spells it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    revision : str, optional
        Commit, tag or branch of weights from the hub, instead of the spec's; a commit that was recorded
        earlier (``identity["revision"]``) loads from the hub's local cache.
    folder : pathlib.Path, optional
        Where its weights lie, with their configuration, in place of where the spec says.

    Raises
    ------
    UsageError
        If there is no such model, precision or device.
    Img2PromptError
        If the weights cannot be loaded or do not fit their architecture.
    """
    parsed = parse_spec(spec)
    from img2prompt_cache.models.devices import PRECISIONS, choose_device

    known = tuple(name for name in PRECISIONS if name != "auto")
    if precision not in known:
        raise unknown("precision", precision, known, parameter="precision")

    place = choose_device(device)
    module = importlib.import_module(f"{__package__}.{FAMILIES[parsed.family]}")
    backbone: Backbone = module.load(parsed, revision, folder)
    backbone.folder = folder
    backbone.compute_in(precision, place)
    return backbone
