"""What every section of the run is given, and how it writes down what it finds."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Setting:
    """Where the run's files are, and how large everything is.

    Attributes
    ----------
    work : pathlib.Path
        Folder of images, checkpoints and caches.
    small : bool
        Tiny models and few images, to try the script on any machine.
    """

    work: Path
    small: bool = False

    @property
    def images(self) -> int:
        """How many image files there are."""
        return 24 if self.small else 4000

    @property
    def backbones(self) -> dict[str, str]:
        """Name of each backbone, and the spec that loads it."""
        families = {name: "open_clip" if name.startswith("clip") else "timm" for name in NAMES}
        return {name: f"{family}:local-dir:{self.work / name}" for name, family in families.items()}

    @property
    def joined(self) -> list[str]:
        """Names of the backbones of the joined pass: those of the preset `standard`."""
        return ["resnet50", "vit_b_16", "clip_b_32"]

    @property
    def encoder(self) -> str:
        """Spec of the target encoder."""
        return f"st:local-dir:{self.work / 'encoder'}"

    @property
    def source(self) -> Path:
        """The folder with `images/` and `prompts.csv`."""
        return self.work / "source"


NAMES = ("resnet50", "vit_b_16", "clip_b_32", "clip_l_14")


@dataclass
class Notes:
    """Figures of one section, written to its file as they come, so that a killed section keeps them."""

    path: Path
    found: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, figures: Any) -> None:
        """Add figures under a name."""
        self.found[name] = figures
        write_json(self.path, self.found)
        print(f"{name}: {json.dumps(figures, default=str)[:600]}", flush=True)


def write_json(path: Path, data: Any) -> None:
    """Write JSON in one step: the file is never half there."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(data, indent=1, default=float) + "\n", encoding="utf-8")
    fresh.replace(path)


def device() -> str:
    """The device that is measured."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    """Wait until the device has finished."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forget() -> None:
    """Free what the device holds, and begin to measure its memory."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> dict[str, float]:
    """Most memory of the device since `forget`: used by tensors, and held by torch, in GB."""
    import torch

    if not torch.cuda.is_available():
        return {"allocated_gb": 0.0, "reserved_gb": 0.0}
    return {
        "allocated_gb": torch.cuda.max_memory_allocated() / 1e9,
        "reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
    }


def seconds(work: Callable[[], object], repeats: int = 5, warm: int = 2) -> float:
    """Median seconds of a piece of work, with the device's part of it."""
    for _ in range(warm):
        work()
    times = []
    for _ in range(repeats):
        wait()
        started = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
