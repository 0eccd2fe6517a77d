"""Whole passes: `extract` from files to a cache, each backbone alone and the three of the preset joined."""

from __future__ import annotations

import shutil
import threading
import time
from typing import Any

import torch
from setting import Notes, Setting, forget, peak

import img2prompt_cache as ipc
from img2prompt_cache.progress import Event


class Watch:
    """A callback that keeps when rows were done and the report; a thread asks how busy the device is."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, int]] = []
        self.report: Any = None
        self.busy: list[int] = []
        self._stopped = threading.Event()

    def __call__(self, event: Event) -> None:
        if event.kind == "step" and event.task == "extract":
            self.steps.append((time.perf_counter(), event.done))
        elif event.kind == "report":
            self.report = event.value

    def __enter__(self) -> Watch:
        threading.Thread(target=self._ask, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def _ask(self) -> None:
        while not self._stopped.wait(0.05):
            try:
                busy = torch.cuda.utilization()
            except Exception:  # no GPU, or no library that asks it
                return
            if self.steps:
                self.busy.append(busy)

    @property
    def rate(self) -> float:
        """Rows a second from the first batch that was done to the last."""
        done = [step for step in self.steps if step[1]]
        (first, before), (last, after) = done[0], done[-1]
        return (after - before) / (last - first) if last > first else 0.0


def extract(setting: Setting, names: list[str], **options: Any) -> dict[str, Any]:
    """Run a pass into a new cache."""
    folder = setting.work / "cache"
    shutil.rmtree(folder, ignore_errors=True)
    forget()
    with Watch() as watch:
        started = time.perf_counter()
        specs = [setting.backbones[name] for name in names]
        ipc.extract(
            setting.source, folder, backbones=specs, encoder=setting.encoder, progress=watch, **options
        )
        whole = time.perf_counter() - started
    report = watch.report
    first = watch.steps[0][0] - started
    shown = {spec: name for name, spec in setting.backbones.items()} | {setting.encoder: "targets"}
    return {
        "rows": report.ok,
        "failed": report.failed,
        "whole_s": whole,
        "models_loaded_s": first,
        "images_s_without_loading": report.ok / (whole - first),
        "images_s_from_first_to_last_batch": watch.rate,
        "thread_seconds": {shown.get(stage, stage): each for stage, each in report.stages.items()},
        "gpu_busy_percent": sum(watch.busy) / len(watch.busy) if watch.busy else None,
        **peak(),
    }


def measure(setting: Setting, notes: Notes) -> None:
    """The joined pass: with several workers, larger batches, and float32; then each backbone alone."""
    parts = 8 if setting.small else 256
    notes.add("joined, to warm up", extract(setting, setting.joined))
    notes.add("joined", extract(setting, setting.joined))
    if torch.cuda.is_available() or setting.small:
        for workers in (4, 8, 2):
            found = extract(setting, setting.joined, workers=workers, part_rows=parts)
            notes.add(f"joined, {workers} workers", found)
    for size in (128, 256):
        notes.add(
            f"joined, batches of {size}", extract(setting, setting.joined, batch_size=size, part_rows=4096)
        )
    notes.add("joined, fp32", extract(setting, setting.joined, precision="fp32"))
    for name in setting.backbones:
        notes.add(name, extract(setting, [name]))
