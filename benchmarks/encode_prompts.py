"""Encode prompts: ours against sentence-transformers' own `encode`, with the same weights, in turn.

    python benchmarks/encode_prompts.py PROMPTS [--rows 20000] [--rounds 3] [--threads 2] [--bf16]

PROMPTS is a text file, plain or gzip, one prompt a line; `--rows` of them are drawn (the same in every call).
sentence-transformers runs as it is loaded, at its default batch size, on the weights of the packaged encoder.
Both sides get each distinct prompt once. `--bf16` adds the same weights in bfloat16 in the library's loop.
Medians over the rounds, in wall-clock and in processor time, which other processes of a shared machine
disturb less. Prints a Markdown table and writes `results/encode_prompts.json`.
"""

from __future__ import annotations

import argparse
import gzip
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from system import save

from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.models.weights.packaged import packaged_path
from img2prompt_cache.numerics.metrics import cosine

ENCODER = "all-MiniLM-L6-v2"


def drawn(path: Path, rows: int) -> list[str]:
    """Draw distinct prompts from a file, in any order."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        lines = sorted({line.strip() for line in file} - {""})
    return random.Random(0).sample(lines, min(rows, len(lines)))


def sides(with_bf16: bool) -> dict[str, Callable[[list[str]], Any]]:
    """Load each way to encode, each with its own copy of the weights."""
    from sentence_transformers import SentenceTransformer

    def library(dtype: torch.dtype) -> Callable[[list[str]], Any]:
        model = SentenceTransformer(str(packaged_path(ENCODER)), device="cpu").to(dtype)
        return lambda texts: (
            model.encode(texts, normalize_embeddings=True, convert_to_tensor=True).float().numpy()
        )

    ours = load_encoder(f"packaged:{ENCODER}")
    found = {"sentence-transformers": library(torch.float32), "ours": ours.encode}
    return {**found, **({"in bfloat16": library(torch.bfloat16)} if with_bf16 else {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    texts = drawn(options.prompts, options.rows)
    ways = sides(options.bf16)
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    vectors: dict[str, Any] = {}
    for encode in ways.values():
        encode(texts[:64])
    for turn in range(options.rounds):
        for name in [*ways][:: 1 if turn % 2 == 0 else -1]:
            before = time.perf_counter(), time.process_time()
            vectors[name] = ways[name](texts)
            wall[name].append(time.perf_counter() - before[0])
            processor[name].append(time.process_time() - before[1])
    theirs = next(iter(ways))
    figures: dict[str, Any] = {"prompts": len(texts), "threads": options.threads, "rounds": options.rounds}
    print(f"{len(texts)} prompts, {options.threads} threads, medians of {options.rounds} rounds")
    print("| | wall, s | processor, s | times faster, wall | processor | least cosine | mean |")
    print("|---|---|---|---|---|---|---|")
    for name in ways:
        seconds, busy = statistics.median(wall[name]), statistics.median(processor[name])
        between = cosine(vectors[name].astype(np.float64), vectors[theirs].astype(np.float64))
        figures[name] = {
            "wall_s": wall[name],
            "processor_s": processor[name],
            "times_faster_wall": statistics.median(wall[theirs]) / seconds,
            "times_faster_processor": statistics.median(processor[theirs]) / busy,
            "least_cosine": float(between.min()),
            "mean_cosine": float(between.mean()),
        }
        one = figures[name]
        print(
            f"| {name} | {seconds:.1f} | {busy:.1f} | {one['times_faster_wall']:.2f} "
            f"| {one['times_faster_processor']:.2f} | {one['least_cosine']:.7f} | {one['mean_cosine']:.7f} |"
        )
    print(save("encode_prompts", figures))


if __name__ == "__main__":
    main()
