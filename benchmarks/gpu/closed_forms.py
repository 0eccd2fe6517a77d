"""`ridge`, `kernel`, `nearest`: the code computes them on the CPU; the same products on the device.

The heads never use a GPU. Their seconds on this machine's cores stand beside those of the arithmetic that
dominates them, done by torch on the device, to tell what moving it there would gain.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from kernel import synthetic
from setting import Notes, Setting, device, forget, peak, seconds

from img2prompt_cache.heads.kernel import Kernel
from img2prompt_cache.heads.nearest import Nearest
from img2prompt_cache.heads.ridge import Ridge


def taken(work: Any) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(setting: Setting, notes: Notes) -> None:
    """Fit the heads on the cores, then do their products on the device."""
    where = device()
    rows, few = (400, 200) if setting.small else (100_000, 10_000)
    X, y, _, new, _, widths = synthetic(rows)
    X, y = X.astype(np.float32), y.astype(np.float32)
    x, t, asked = (torch.from_numpy(each).to(where) for each in (X, y, new))
    forget()

    gram = seconds(lambda: (x.T @ x, x.T @ t), repeats=3)
    flops = 2 * len(X) * X.shape[1] * (X.shape[1] + y.shape[1])
    notes.add("gram on the device, fp32", {"s": gram, "tflops": flops / gram / 1e12})
    square = (x.T @ x).double()
    right = (x.T @ t).double()
    square.diagonal().add_(1.0)
    solved = seconds(lambda: torch.cholesky_solve(right, torch.linalg.cholesky(square)), repeats=3)
    notes.add("solve on the device, fp64", {"s": solved})
    notes.add("eigenvectors on the device, fp64", {"s": seconds(lambda: torch.linalg.eigh(square), 1, 1)})
    for kind in (torch.float32, torch.float16):
        a, b = asked.to(kind), x.to(kind)
        searched = seconds(lambda a=a, b=b: (a @ b.T).float().topk(10), repeats=3)
        figures = {"s": searched, "queries_s": len(asked) / searched, **peak()}
        notes.add(f"nearest of {rows} rows on the device, {str(kind).removeprefix('torch.')}", figures)

    head = Ridge()
    notes.add(f"ridge, {rows} rows, cores", {"s": taken(lambda: head.fit(X, y, widths=widths))})
    near = Nearest()
    fit = taken(lambda: near.fit(X, y, widths=widths))
    asked_s = taken(lambda: near.predict(new))
    notes.add(
        f"nearest, {rows} rows, cores",
        {"fit_s": fit, "queries_s": len(new) / asked_s, **near.measured},
    )
    kernel = Kernel()
    notes.add(f"kernel, {few} rows, cores", {"s": taken(lambda: kernel.fit(X[:few], y[:few], widths=widths))})
