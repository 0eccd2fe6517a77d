"""Models as a column was made with them: loaded from its record, refused where they have changed since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.taps import NAMES, model_of, split_spec
from img2prompt_cache.models.devices import choose_device, choose_precision
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.models.finding import find_model
from img2prompt_cache.models.fingerprints import Fingerprint, require_equal
from img2prompt_cache.models.runtimes import obstacle, runtime_of
from img2prompt_cache.models.specs import ENCODER_FAMILIES, parse_spec

if TYPE_CHECKING:
    from pathlib import Path

    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.models.backbones.taps import Described, Tap
    from img2prompt_cache.models.devices import Precision
    from img2prompt_cache.models.encoders.base import Encoder
    from img2prompt_cache.models.runtimes import Runtime
    from img2prompt_cache.models.specs import Spec

_MODEL = ("library", "architecture", "activation", "weights", "preprocessing", "decode")
"""Fields of the fingerprint of a backbone, but for its precision."""

ADVICE = "Use what it was made with, or extract into a new `cache` and fit again."


def load_recorded_backbone(
    column: Described,
    *,
    device: str = "auto",
    precision: Precision | None = None,
    runtime: Runtime | None = None,
) -> Backbone:
    """Load the backbone that a feature, trunk or view column was made with.

    Parameters
    ----------
    column : Described
        Of a cache, or as a run recorded it.
    device : str
        ``"auto"`` or as torch spells it. OpenVINO computes on the processor in any case.
    precision : {"fp32", "bf16", "fp16"}, optional
        What it is to compute in, with torch; the recorded one if absent.
    runtime : {"torch", "openvino"}, optional
        What is to compute; the recorded one if absent.

    Raises
    ------
    Img2PromptError
        If the model that its spec names is another one now; the message names what differs. Also if OpenVINO
        is to compute, and cannot.
    """
    recorded = column.fingerprint.get("precision", "fp32")
    runtime = "torch" if precision else runtime or runtime_of(column.fingerprint)
    if runtime == "openvino":
        found = load_recorded_backbone(column, device="cpu", precision="fp32")
        if told := obstacle(recorded, "cpu"):
            raise Img2PromptError(f'column {column.spec} was made with `runtime="openvino"`: {told}')
        from img2prompt_cache.models.backbones.acceleration import accelerate

        accelerate(found, choose_precision(recorded, "cpu"))
        return found
    device = choose_device(device)
    wanted = precision or choose_precision(recorded, device)

    def load(spec: Spec, folder: Path | None) -> Backbone:
        return load_backbone(
            str(spec), precision=wanted, device=device, revision=column.revision, folder=folder
        )

    backbone = find_model(
        parse_spec(model_of(column)),
        column.fingerprint,
        load,
        lambda found: same_model(found.fingerprint, column.fingerprint),
    )
    require_backbone(column, backbone, as_recorded=("precision", "runtime") if precision else ("runtime",))
    return backbone


def same_model(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether two fingerprints of backbones are of one model, whatever precision it computes in.

    Fields that only a column has, such as which output it keeps, are passed over.
    """
    return all(one.get(field) == other.get(field) for field in _MODEL)


def require_backbone(column: Described, backbone: Backbone, *, as_recorded: tuple[str, ...] = ()) -> None:
    """Refuse a backbone that a column was not made with; load its classifier, if the column is of that.

    Parameters
    ----------
    column : Described
    backbone : Backbone
    as_recorded : tuple of str, optional
        Fields of the fingerprint that may differ.

    Raises
    ------
    Img2PromptError
        Naming what differs.
    """
    tap = split_spec(column.spec)[1]
    if tap.name == NAMES:
        from img2prompt_cache.models.naming import attach_names

        recorded = column.fingerprint
        attach_names(backbone, recorded.get("encoder", ""), recorded.get("encoder_digest", ""))
    fingerprint = fingerprint_of(backbone, tap)
    for field in as_recorded:
        fingerprint.pop(field, None)
        if field in column.fingerprint:
            fingerprint[field] = column.fingerprint[field]
    require_recorded(column, fingerprint)


def fingerprint_of(backbone: Backbone, tap: Tap) -> dict[str, str]:
    """Give the fingerprint of a column: all that its values depend on."""
    names = backbone.class_names.fingerprint if tap.name == NAMES and backbone.class_names else {}
    return {**backbone.fingerprint, **tap.fingerprint, **names}


def load_recorded_encoder(column: Described, *, device: str = "auto") -> Encoder:
    """Load the text encoder that a target column was made with.

    Parameters
    ----------
    column : Described
        Of a cache, or as a run recorded it.
    device : str
        ``"auto"`` or as torch spells it.

    Raises
    ------
    Img2PromptError
        If the model that its spec names is another one now; the message names what differs.
    """
    clean, device = column.fingerprint.get("clean", "none"), choose_device(device)

    def load(spec: Spec, folder: Path | None) -> Encoder:
        return load_encoder(str(spec), clean=clean, device=device, revision=column.revision, folder=folder)

    encoder = find_model(
        parse_spec(column.current or column.spec, ENCODER_FAMILIES),
        column.fingerprint,
        load,
        lambda found: found.fingerprint == column.fingerprint,
    )
    require_recorded(column, encoder.fingerprint)
    return encoder


def require_recorded(column: Described, fingerprint: Fingerprint) -> None:
    """Refuse a model, by its fingerprint, where a column was made with another one.

    Raises
    ------
    Img2PromptError
        Naming what differs.
    """
    require_equal(f"column {column.spec}", column.fingerprint, fingerprint, ADVICE)
