"""Which device a model runs on, and in which number format."""

from __future__ import annotations

import os
import re
from typing import Literal, cast, get_args

from img2prompt_cache.errors import UsageError, unknown

Precision = Literal["fp32", "bf16", "fp16"]
"""Number format that a model computes in."""

PRECISIONS: tuple[str, ...] = ("auto", *get_args(Precision))
"""What may be asked for: ``"auto"`` is one of the formats, by the hardware."""

MAX_LANES = 16
"""Batches that are encoded side by side, at most."""


def choose_device(name: str = "auto") -> str:
    """Choose the device to compute on.

    Parameters
    ----------
    name : str
        ``"auto"`` for the first GPU, or the CPU where there is none; or a device as torch spells it.

    Raises
    ------
    UsageError
        If this machine does not have the device.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None:
        raise unknown("device", name, ("auto", "cpu", "cuda", "cuda:0"), parameter="device")
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(name.partition(":")[2] or 0) >= count:
            raise UsageError(
                f"device {name} is not there: torch {torch.__version__} sees {count} GPUs", parameter="device"
            )
    return name


def choose_precision(name: str, device: str) -> Precision:
    """Choose the number format to compute in.

    Parameters
    ----------
    name : str
        ``"auto"`` for bfloat16 where the device multiplies it in hardware, else float32; or one of
        `PRECISIONS`.
    device : str
        From `choose_device`.

    Raises
    ------
    UsageError
        If there is no such format.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS, parameter="precision")
    if name == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return cast(Precision, name)


def has_bf16(device: str) -> bool:
    """Say whether a device multiplies bfloat16 in hardware."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def lane_threads() -> int:
    """How many threads the forward pass of a batch has on a processor.

    Sums are rounded as they are shared out, so this must not depend on how many lanes there are.
    """
    return max(1, cores() // MAX_LANES)


def count_gpus() -> int:
    """Count the GPUs that this process may use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
