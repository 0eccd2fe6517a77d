"""Specs: the names of backbones and encoders, ``family:name``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.models.weights.wheels import PACKAGED

BACKBONE_FAMILIES = ("timm", "open_clip", "packaged")
ENCODER_FAMILIES = ("st", "packaged", "open_clip")

STANDARD_BACKBONES = (
    "timm:resnet50.a1_in1k",
    "timm:vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "open_clip:ViT-B-32/laion2b_s34b_b79k",
)
PACKAGED_BACKBONES = (
    "packaged:efficientnet-lite0",
    "packaged:efficientnet-lite2",
    "packaged:vit-small-saliency",
)
PRESETS = {
    "standard": (STANDARD_BACKBONES, "st:all-MiniLM-L6-v2"),
    "packaged": (PACKAGED_BACKBONES, "packaged:all-MiniLM-L6-v2"),
}

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed spec.

    Attributes
    ----------
    family : str
        The library that builds the model.
    name : str
        The model's name as that library spells it.
    """

    family: str
    name: str

    def __str__(self) -> str:
        return f"{self.family}:{self.name}"


def parse_spec(text: str, families: tuple[str, ...] = BACKBONE_FAMILIES) -> Spec:
    """Split ``family:name`` and check the family and, of a packaged model, the name.

    Raises
    ------
    UsageError
        If there is no family, it is not one of `families`, the name is empty, or there is no packaged model
        of that name.
    """
    family, colon, name = text.strip().partition(":")
    kind, parameter = ("backbone", "backbones") if families == BACKBONE_FAMILIES else ("encoder", "encoder")
    if not colon or not name:
        raise UsageError(
            f"{kind} {text!r} is not a spec; write family:name with family one of {', '.join(families)}, "
            f"e.g. {families[0]}:{name or family or 'NAME'}",
            parameter=parameter,
        )
    if family not in families:
        raise unknown(f"{kind} family", family, families, parameter=parameter)
    if family == "packaged":
        names = [name for name, wheel in PACKAGED.items() if bool(wheel.architecture) == (kind == "backbone")]
        if name not in names:
            raise unknown(f"packaged {kind}", name, names, parameter=parameter)
    return Spec(family, name)


def split_alias(text: str) -> tuple[str, str]:
    """Split ``NAME=SPEC`` into the name that a column gets and the spec of its model.

    A spec alone, or the name of a column that is there, is both the name and the spec.

    Raises
    ------
    UsageError
        If the name is none: letters, digits, ``._-``, 64 at most.
    """
    name, equals, spec = text.strip().partition("=")
    if not equals or ":" in name:  # the path of a spec may have an = in it
        return text.strip(), text.strip()
    if not _ALIAS.fullmatch(name):
        raise UsageError(
            f"{name!r} in {text!r} is no name; write letters, digits, hyphens and dots, e.g. "
            f"clip-l={spec or 'SPEC'}"
        )
    return name, spec


def require_folder(spec: Spec, parameter: str) -> None:
    """Refuse ``FAMILY:local-dir:PATH`` where there is no such folder; other specs are fine.

    Raises
    ------
    UsageError
        Naming the folder.
    """
    source, _, path = spec.name.partition(":")
    if source == "local-dir" and path and not Path(path).expanduser().is_dir():
        raise UsageError(f"{spec}: there is no folder {path}", parameter=parameter)
