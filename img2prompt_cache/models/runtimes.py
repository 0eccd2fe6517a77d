"""Runtimes: what computes the forward pass of a backbone on a processor."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.taps import blocks_of, split_spec
from img2prompt_cache.models.devices import choose_device
from img2prompt_cache.progress import Callback, note

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.taps import Described
    from img2prompt_cache.models.fingerprints import Fingerprint

Runtime = Literal["torch", "openvino"]

RUNTIMES: tuple[str, ...] = ("auto", *get_args(Runtime))
"""What may be asked for: ``"auto"`` is that of a column that is there; for a new one what is faster."""


def has_openvino() -> bool:
    """Say whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def obstacle(precision: str, device: str) -> str:
    """Say why OpenVINO cannot compute a backbone; empty where it can.

    Parameters
    ----------
    precision : str
        What the backbone computes in: ``"fp32"``, ``"bf16"``, ``"fp16"``.
    device : str
        From `choose_device`.
    """
    if not has_openvino():
        return "openvino is not installed; run `pip install 'img2prompt-cache[cpu]'`"
    if device != "cpu":
        return f'openvino computes on processors, not on {device}; give `device="cpu"`'
    if precision not in ("fp32", "bf16"):
        return f"openvino computes in fp32 or bf16, not in {precision}"
    return ""


def runtime_of(fingerprint: Fingerprint) -> Runtime:
    """Give the runtime that a column was made with; torch where its fingerprint names none."""
    return "openvino" if fingerprint.get("runtime") == "openvino" else "torch"


def choose_runtime(column: Described, asked: str, device: str, tell: Callback) -> Runtime:
    """Choose what computes features to predict from, where some were made to fit on.

    Either runtime may stand in for the other in the same precision: OpenVINO is used only where its features
    were compared with torch's. A column of a cache is never continued so.

    Parameters
    ----------
    column : Described
    asked : str
        ``"auto"`` for the one that made the column, but torch where OpenVINO cannot be used here;
        ``"torch"``; or ``"openvino"``, which leaves trunks to torch.
    device : str
        ``"auto"`` or as torch spells it.
    tell : callable
        Told where torch computes in OpenVINO's place.

    Raises
    ------
    UsageError
        If it is to be OpenVINO, which is not installed, or does not compute on that device or so.
    """
    made = runtime_of(column.fingerprint)
    wanted = made if asked == "auto" else asked
    spec, tap = split_spec(column.spec)
    if wanted != "openvino" or blocks_of(tap.name):
        return "torch"
    told = obstacle(column.fingerprint.get("precision", "fp32"), choose_device(device))
    if not told:
        return "openvino"
    if asked == "openvino":
        raise UsageError(f'`runtime="openvino"`: {told}', parameter="runtime")
    if column.spec == spec:  # once for all columns of a backbone
        note(tell, f"{spec}: torch computes it here, although openvino made the cached features: {told}")
    return "torch"
