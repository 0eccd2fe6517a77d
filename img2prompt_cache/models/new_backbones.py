"""Backbones of new columns: the number format and the runtime that they are to compute in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.fidelity import REQUIRED, falls_short, fidelity
from img2prompt_cache.models.devices import choose_precision
from img2prompt_cache.models.runtimes import obstacle
from img2prompt_cache.progress import Callback, note

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.models.devices import Precision

RACE_FROM = 512
"""Images from which on it is worth the seconds to find out which runtime is faster."""


def load_new(spec: str, precision: str, device: str, tell: Callback) -> tuple[Backbone, Precision]:
    """Load a backbone in fp32, and choose what it is to compute in.

    Parameters
    ----------
    spec : str
    precision : str
        ``"auto"`` takes a shorter format where the device has it and it is close enough.
    device : str
        From `choose_device`.
    tell : callable
        Told where it is not.
    """
    chosen = choose_precision(precision, device)
    backbone = load_backbone(spec, device=device)
    if precision != "auto" or chosen == "fp32":
        return backbone, chosen
    cosines = fidelity(backbone, chosen)
    if not falls_short(cosines):
        return backbone, chosen
    note(
        tell,
        f"{spec} computes in fp32, because its features in {chosen} have a mean cosine of only "
        f"{cosines.mean():.4f} to those in fp32, below {REQUIRED}; `precision={chosen}` takes "
        "them all the same",
    )
    return backbone, "fp32"


def start(backbone: Backbone, precision: Precision, runtime: str, tell: Callback, *, images: int) -> float:
    """Let a backbone in fp32 compute in a number format, with a runtime.

    Parameters
    ----------
    backbone : Backbone
    precision : {"fp32", "bf16", "fp16"}
    runtime : str
        ``"auto"`` takes the faster one where `RACE_FROM` images are to be encoded, else torch.
    tell : callable
        Told where OpenVINO is installed and does not compute what torch does.
    images : int
        How many are to be encoded on this machine.

    Returns
    -------
    float
        How many times as fast as torch the runtime is that won a race; 0 where there was none, or torch won.

    Raises
    ------
    UsageError
        If it is to compute with OpenVINO, which is not installed, or does not compute so.
    Img2PromptError
        If it is to compute with OpenVINO, and that cannot convert it, or does not compute what torch does.
    """
    told = obstacle(precision, backbone.device.type)
    gain = 0.0
    if runtime == "openvino":
        if told:
            raise UsageError(f'`runtime="openvino"`: {told}', parameter="runtime")
        from img2prompt_cache.models.backbones.acceleration import accelerate

        accelerate(backbone, precision)
    elif runtime == "auto" and images >= RACE_FROM and not told:
        try:
            from img2prompt_cache.models.backbones.acceleration import accelerate_if_faster

            gain = accelerate_if_faster(backbone, precision)
        except (Img2PromptError, ImportError) as error:  # such as an OpenVINO that is too old
            note(tell, f"{error}. So torch computes it")
    if backbone.runtime == "torch":
        backbone.compute_in(precision)
        return 0.0
    return gain
