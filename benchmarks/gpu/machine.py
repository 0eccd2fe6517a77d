"""What the machine can do at best: matrix products, copies on the device and to it."""

from __future__ import annotations

import torch
from setting import Notes, Setting, device, seconds
from system import system


def measure(setting: Setting, notes: Notes) -> None:
    """Measure the ceilings that the other figures are held against."""
    where = device()
    notes.add("system", system())
    name = torch.cuda.get_device_name(0) if where == "cuda" else "no GPU"
    notes.add("device", {"name": name, "torch": torch.__version__, "cuda": torch.version.cuda})
    side = 256 if setting.small else 8192
    for kind in (torch.bfloat16, torch.float32):
        left, right = (torch.randn(side, side, device=where).to(kind) for _ in range(2))
        taken = seconds(lambda left=left, right=right: left @ right)
        notes.add(f"matmul_{str(kind).removeprefix('torch.')}_tflops", 2 * side**3 / taken / 1e12)
    block = torch.empty(1 << (16 if setting.small else 30), dtype=torch.uint8, device=where)
    other = torch.empty_like(block)
    notes.add("copy_gb_s", 2 * block.numel() / seconds(lambda: other.copy_(block)) / 1e9)
    if where == "cuda":
        for pinned in (False, True):
            host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=pinned)
            here = torch.empty_like(host, device=where)
            taken = seconds(lambda host=host, here=here: here.copy_(host, non_blocking=True))
            notes.add(f"to_device_{'pinned' if pinned else 'pageable'}_gb_s", host.numel() / taken / 1e9)
