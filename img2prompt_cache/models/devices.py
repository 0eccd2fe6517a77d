"""Which device and which number format a model runs in here."""

from __future__ import annotations

import re
from typing import Literal, cast, get_args

from img2prompt_cache.errors import UsageError, unknown

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = ("auto", *get_args(Precision))


def choose_device(name: str = "auto") -> str:
    """Settle on a device: the first GPU where there is one, if the choice is left open.

    Raises
    ------
    UsageError
        If the device is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None:
        raise unknown("device", name, ("auto", "cpu", "cuda", "cuda:0"))
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(name.partition(":")[2] or 0) >= count:
            raise UsageError(f"device {name} is not there: torch {torch.__version__} sees {count} GPUs")
    return name


def choose_precision(name: str, device: str) -> Precision:
    """Settle on a number format: bfloat16 where the processor computes in it, else float32.

    Parameters
    ----------
    name : str
        ``"auto"`` or a precision.
    device : str
        From `choose_device`.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return cast(Precision, name)


def has_bf16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def count_gpus() -> int:
    """How many GPUs this process may use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
