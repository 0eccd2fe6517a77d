"""Forward passes alone: images a second, memory, and how close each number format stays to float32."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from setting import Notes, Setting, device, forget, peak, seconds, wait

from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.flops import operations
from img2prompt_cache.numerics.metrics import cosine

BATCHES, KEPT = (32, 128, 512), 32


def real_pixels(setting: Setting, backbone: Backbone) -> torch.Tensor:
    """Some of the run's images as the backbone takes them."""
    paths = sorted((setting.source / "images").iterdir())[:KEPT]
    return torch.from_numpy(np.stack([backbone.geometry.apply(decode(path.read_bytes())) for path in paths]))


def in_format(backbone: Backbone, precision: Any, where: str) -> Backbone:
    """A copy that computes in a number format on a device."""
    other = replace(backbone, model=copy.deepcopy(backbone.model))
    other.compute_in(precision, where)
    return other


def rates(backbone: Backbone, batch: int, threads: int) -> dict[str, float]:
    """Images a second: the model alone, `encode` from pixels to features, and the same from two threads."""
    shape, where = backbone.geometry.crop, backbone.device
    pixels = torch.randint(0, 256, (batch, *shape, 3), dtype=torch.uint8)
    kind = next(backbone.model.parameters()).dtype
    images = torch.randn(batch, 3, *shape, device=where).to(kind).to(memory_format=torch.channels_last)
    forget()
    with torch.inference_mode():
        alone = seconds(lambda: [backbone.model(images) for _ in range(4)]) / 4
    model_memory = peak()["allocated_gb"]
    forget()
    whole = seconds(lambda: backbone.encode(pixels))
    with ThreadPoolExecutor(threads) as pool:
        shared = seconds(lambda: list(pool.map(backbone.encode, [pixels] * 4 * threads)), repeats=3)
    return {
        "model_images_s": batch / alone,
        "encode_images_s": batch / whole,
        "encode_2_threads_images_s": 4 * threads * batch / shared,
        "model_gb": model_memory,
        **peak(),
    }


def measure(setting: Setting, notes: Notes) -> None:
    """Measure each backbone in each format and at several batch sizes."""
    where = device()
    for name, spec in setting.backbones.items():
        exact = load_backbone(spec)
        pixels = real_pixels(setting, exact)
        reference = exact.encode(pixels)
        flops = operations(exact)
        found: dict[str, Any] = {"gflops_an_image": flops / 1e9, "cosine_to_fp32_on_the_cpu": {}}
        for precision in ("fp32", "bf16", "fp16"):
            backbone = in_format(exact, precision, where)
            between = cosine(backbone.encode(pixels), reference)
            found["cosine_to_fp32_on_the_cpu"][precision] = {
                "mean": float(between.mean()),
                "least": float(between.min()),
            }
            if precision == "fp16":
                continue
            batches = (8,) if setting.small else BATCHES if precision == "bf16" else BATCHES[:2]
            found[precision] = {}
            for batch in batches:
                figures = rates(backbone, batch, 2)
                figures["model_tflops"] = figures["model_images_s"] * flops / 1e12
                found[precision][str(batch)] = figures
                notes.add(name, found)
            del backbone
            wait()
        notes.add(name, found)
