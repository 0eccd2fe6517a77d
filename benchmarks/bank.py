"""Nearest prompts in a bank of a million: how long one query takes, and how many of the true ten it finds.

    python benchmarks/bank.py PROMPTS [PROMPTS ...] [--runs RUN,RUN] [--rows 1000000]

Encoding a million prompts takes hours on a CPU, so the prompts of the files are encoded (once; they are
kept), and their embeddings grown to as many as asked for: mixtures of near ones, and noise. A twentieth of
the real ones is kept for the queries: `prompts`, grown of those; `mixtures` of three of these; besides,
`predictions`, what the runs say of their held-out images. Prints a Markdown table and writes
`results/bank.json`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from grown import grow
from system import save

from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.numerics.ivf import recall_of
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.bank import Bank
from img2prompt_cache.runs.held_out import load_validation

QUERIES = 300
NEIGHBOURS = 10


@dataclass
class Grown:
    """Stands in for the encoder of a file of as many lines: gives its vectors in order."""

    vectors: Any
    fingerprint: dict[str, str] = field(default_factory=lambda: {"library": "grown for a benchmark"})
    given: int = 0

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def encode(self, prompts: Sequence[str]) -> Any:
        self.given += len(prompts)
        return self.vectors[self.given - len(prompts) : self.given]


def memory() -> dict[str, float]:
    """What this process holds, in gigabytes: its own, and of files that are mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return {"own": int(found["RssAnon"]) / 1e6, "mapped": int(found["RssFile"]) / 1e6}


def seconds(work: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompts", type=Path, nargs="+", metavar="PROMPTS")
    parser.add_argument("--runs", default="", help="folders of runs, with commas between")
    parser.add_argument("--encoder", default="packaged:all-MiniLM-L6-v2")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--encode-only", action="store_true", help="encode the files, and stop")
    options = parser.parse_args()
    encoder = load_encoder(options.encoder)
    real = np.concatenate([Bank.from_file(path, encoder).vectors for path in options.prompts])
    if options.encode_only:
        return
    real = np.random.default_rng(0).permutation(np.unique(real, axis=0))
    kept = len(real) // 20
    asked = grow(real[:kept], QUERIES, 1)[0]
    queries = {
        "prompts": asked,
        "mixtures": unit(asked + np.roll(asked, 1, axis=0) + np.roll(asked, 2, axis=0)),
    }
    if options.runs:
        said = [load_validation(Path(run)).predictions for run in options.runs.split(",")]
        queries["predictions"] = np.random.default_rng(0).permutation(np.concatenate(said))[:QUERIES]
    model = Grown(grow(real[kept:], options.rows, 0)[0])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IMG2PROMPT_HOME"] = folder
        file = Path(folder) / "prompts.txt"
        file.write_text("\n".join(f"prompt {number}" for number in range(options.rows)))
        first, _ = seconds(lambda: Bank.from_file(file, model))  # type: ignore[arg-type]
        kept_bytes = {path.suffix: path.stat().st_size for path in (Path(folder) / "banks").iterdir()}
        del _
        model.vectors = model.vectors[:1].copy()
        before = memory()
        again, bank = seconds(lambda: Bank.from_file(file, model))  # type: ignore[arg-type]
        after = memory()
        exact = Bank(bank.prompts, bank.vectors)
        figures: dict[str, Any] = {
            "real": len(real),
            "rows": options.rows,
            "first_s": first,
            "again_s": again,
            "own_gigabytes": after["own"] - before["own"],
            "kept_bytes": kept_bytes,
            "cells": bank.index.nlist if bank.index else None,
            "probes": bank.index.nprobe if bank.index else None,
            "queries": {},
        }
        print(f"grown from {len(real) - kept:,} real embeddings; queries from {kept:,} others")
        print(f"{options.rows:,} prompts: {first:.1f} s the first time, {again:.1f} s the next; ", end="")
        print(f"{figures['own_gigabytes']:.2f} GB; {figures['probes']} of {figures['cells']} cells\n")
        print("| queries | recall@10 | nearest cosine | 1 query, median ms | 99th of 100 | exact, ms |")
        print("|---|---|---|---|---|---|")
        for name, vectors in queries.items():
            true, cosines = exact.search(vectors, NEIGHBOURS)
            found = bank.search(vectors, NEIGHBOURS)
            times = [1000 * seconds(lambda q=q: bank.search(q[None], NEIGHBOURS))[0] for q in vectors]
            slow = [1000 * seconds(lambda q=q: exact.search(q[None], NEIGHBOURS))[0] for q in vectors[:20]]
            row = {
                "recall@10": recall_of(1 - found[1], found[0], 1 - cosines, true),
                "nearest": float(np.median(cosines[:, 0])),
                "ms": float(np.median(times)),
                "ms_99": float(np.quantile(times, 0.99)),
                "exact_ms": float(np.median(slow)),
            }
            figures["queries"][name] = row
            print(
                f"| {name} | {row['recall@10']:.4f} | {row['nearest']:.3f} | {row['ms']:.2f} "
                f"| {row['ms_99']:.2f} | {row['exact_ms']:.1f} |",
                flush=True,
            )
    print(save("bank", figures))


if __name__ == "__main__":
    main()
