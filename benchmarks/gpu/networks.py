"""Heads trained by gradient: seconds an epoch of `mlp` and `finetune`, on the device and on the CPU."""

from __future__ import annotations

import functools
import shutil
import time
from typing import Any

import numpy as np
import torch
from kernel import synthetic
from setting import Notes, Setting, device, forget, peak, wait

import img2prompt_cache as ipc
from img2prompt_cache.data.columns import choose_target, choose_trunk
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.heads.finetune import Finetune
from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.neural.by_rows import settle
from img2prompt_cache.heads.neural.finetuning import Finetuning
from img2prompt_cache.heads.neural.pairs import Pairs
from img2prompt_cache.heads.neural.schedules import Schedule
from img2prompt_cache.heads.neural.tail_network import TailNetwork, pool
from img2prompt_cache.heads.neural.training import Training
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.models.backbones.tail import load_tail
from img2prompt_cache.numerics.metrics import cosine, mean_cosine, unit

EPOCHS = 4
pairs_of = functools.cache(synthetic)


def timed(net: Any, epochs: int) -> list[float]:
    """Seconds of each epoch."""
    found = []
    for _ in range(epochs):
        wait()
        started = time.perf_counter()
        net.train()
        wait()
        found.append(time.perf_counter() - started)
    return found


def mlp(rows: int, where: str, precision: str, batch: int) -> dict[str, Any]:
    """Train the mlp's network on synthetic rows of 1,664 features."""
    X, y, _, new, true, _ = pairs_of(rows)
    torch.manual_seed(0)
    forget()
    head = settle(Mlp(precision=precision, device=where, batch_size=batch), 0)
    net = Training(head, Pairs(X, y.astype(np.float32)), Schedule(EPOCHS, head.schedule, head.warmup))
    times = timed(net, EPOCHS)
    pred = net.evaluate(new, np.zeros_like(true, np.float32))[0]
    return {"epoch_s": min(times), "first_s": times[0], "cosine": mean_cosine(unit(pred), true), **peak()}


def finetune(setting: Setting, name: str, blocks: int, notes: Notes) -> None:
    """Train the last blocks of a backbone on a trunk column of the run's images."""
    folder, spec = setting.work / "trunk", setting.backbones[name]
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    cache = ipc.extract(
        setting.source, folder, backbones=[spec], encoder=setting.encoder, trunk=blocks, device=device()
    )
    taken = time.perf_counter() - started
    trunk = choose_trunk(cache, (spec,), blocks)
    data = load_dataset(cache, (trunk,), choose_target(cache, None))
    for where, precision in ((device(), "bf16"), (device(), "fp32")):
        forget()
        head = Finetune(blocks=blocks, views=False, precision=precision, device=where)
        tail = load_tail(trunk, blocks)
        probe = Ridge(alpha=1.0).fit(np.array(pool(TailNetwork(tail, data.y.shape[1]), data.X)), data.y)
        times = timed(Finetuning(head, tail, probe, data.X, data.y), 2)
        figures = {"epoch_s": min(times), "first_s": times[0], "rows": len(data.y), "extract_s": taken}
        notes.add(f"finetune {name}, {blocks} blocks, {precision}, {where}", {**figures, **peak()})


def whole_fit(setting: Setting, notes: Notes) -> None:
    """Fit an mlp of a cache as a user does; it must predict the same on the device and on the CPU."""
    cache = ipc.Cache(setting.work / "trunk")
    started = time.perf_counter()
    run = ipc.fit(cache, head="mlp", split="random", device=device())
    taken = time.perf_counter() - started
    paths = sorted((setting.source / "images").iterdir())[:16]
    there, here = (ipc.predict(run, paths, device=each, top_k=0).vectors for each in (device(), "cpu"))
    notes.add("fit mlp on the cache, whole", {"s": taken, "cosine": run.metrics["cosine"]})
    notes.add("predict on the device and on the CPU, least cosine", float(cosine(there, here).min()))


def measure(setting: Setting, notes: Notes) -> None:
    """Measure `mlp` by rows, format and batch size, then `finetune`."""
    where = device()
    sizes = (200,) if setting.small else (20_000, 100_000)
    for rows in sizes:
        for precision, batch in (("bf16", 128), ("fp32", 128), ("bf16", 1024)):
            notes.add(
                f"mlp {rows} rows, {precision}, batches of {batch}, {where}",
                mlp(rows, where, precision, batch),
            )
    notes.add(f"mlp {sizes[0]} rows, fp32, batches of 128, cpu", mlp(sizes[0], "cpu", "fp32", 128))
    for name, blocks in (("clip_b_32", 2), ("resnet50", 1), ("vit_b_16", 1)):
        finetune(setting, name, blocks, notes)
    whole_fit(setting, notes)
