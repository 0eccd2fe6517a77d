"""Fits at scale: how long they take and how much memory, on caches grown from real ones.

    python benchmarks/scale.py make CACHE [CACHE …] --rows 1000000 --out BIG
    python benchmarks/scale.py run BIG [BIG …] [--only split,ridge,kernel,mlp,knn] [--out FILE]

`make` writes a cache of so many rows whose features and targets are grown together from the pooled features
of one backbone and the MiniLM targets of real caches (see `grown.py`): 1,280 + 384 float16 values a row by
default. `run` fits heads on such caches, each in a process of its own, so that its peak memory is its own,
and prints a Markdown table; it writes `results/scale.json`, where figures of earlier calls stay.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from grown import CHUNK, grow_in_chunks
from system import load, save

from img2prompt_cache.cache.manifest import Column, Manifest, Part, column_folder, part_file
from img2prompt_cache.cache.manifest_file import save_manifest
from img2prompt_cache.cache.parts import PartFile
from img2prompt_cache.cache.reader import OK, Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.numerics.metrics import unit

BACKBONE = "packaged:efficientnet-lite0"
HEADS: dict[str, list[str]] = {
    "split": ["--head", "mean"],
    "ridge": ["--head", "ridge"],
    "kernel": ["--head", "kernel", "--landmarks", "4096"],
    "mlp": ["--head", "mlp"],
    "knn": ["--head", "knn"],
}
"""What `fit` is called with, the cache apart. The mean head is all but the split alone."""


def make(caches: list[Path], rows: int, out: Path, backbone: str, seed: int) -> None:
    """Write a grown cache."""
    features, targets = [], []
    for folder in caches:
        cache = Cache(folder)
        data = load_dataset(cache, choose_features(cache, (backbone,)), choose_target(cache, None))
        features.append(np.asarray(data.X))
        targets.append(np.asarray(data.y))
    X, y = np.concatenate(features), np.concatenate(targets)
    mean, scale = X.mean(axis=0), X.std(axis=0) + 1e-6
    balance = np.float32(1 / np.sqrt(X.shape[1]))  # both halves have a length of about 1
    both = unit(np.concatenate([y, (X - mean) / scale * balance], axis=1))
    shutil.rmtree(out, ignore_errors=True)
    writers = {
        "features": _Parts(out, "features", backbone, X.shape[1]),
        "targets": _Parts(out, "targets", choose_target(cache, None).spec, y.shape[1]),
        "rows": _Parts(out, "rows", "", 0),
    }
    start = 0
    for vectors, _ in grow_in_chunks(both, rows, seed):
        stop = start + len(vectors)
        grown_y, grown_x = unit(vectors[:, : y.shape[1]]), vectors[:, y.shape[1] :]
        writers["targets"].add(start, stop, {"values": grown_y.astype(np.float16)})
        writers["features"].add(
            start, stop, {"values": (grown_x / balance * scale + mean).astype(np.float16)}
        )
        numbers = range(start, stop)
        writers["rows"].add(
            start,
            stop,
            {
                "imgId": [f"{number:08d}" for number in numbers],
                "uri": [f"{number:08d}.png" for number in numbers],
                "prompt": [f"prompt number {number}" for number in numbers],
                "sha256": [f"{number:064x}" for number in numbers],
                "status": [OK] * len(vectors),
                "reason": [""] * len(vectors),
            },
        )
        start = stop
    columns = tuple(writers[kind].column for kind in ("rows", "features", "targets"))
    save_manifest(
        out,
        Manifest(
            part_rows=CHUNK,
            batch_size=16,
            columns=columns,
            sources=({"root": str(out / "images"), "format": "table"},),
        ),
    )
    print(f"{out}: {rows:,} rows, {sum(column.bytes for column in columns) / 1e9:.2f} GB")


class _Parts:
    """A column, written part by part."""

    def __init__(self, folder: Path, kind: Any, spec: str, width: int) -> None:
        self.folder, self.home = folder, column_folder(kind, spec)
        texts = kind == "rows"
        fingerprint = {} if texts else {"weights": f"sha256:grown-{spec}", "precision": "fp32"}
        self.column = Column(
            kind, spec, self.home, () if texts else (width,), "text" if texts else "float16", fingerprint
        )

    def add(self, start: int, stop: int, values: dict[str, Any]) -> None:
        name = part_file(self.home, len(self.column.parts))
        with PartFile(self.folder / name) as file:
            for key, each in values.items():
                if isinstance(each, list):
                    file.write_text(key, each)
                else:
                    file.create(key, each.shape, each.dtype.name)
                    file.write(key, 0, each)
            size, sha256 = file.commit()
        parts = (*self.column.parts, Part(name, start, stop, size, sha256))
        self.column = Column(
            self.column.kind,
            self.column.spec,
            self.home,
            self.column.shape,
            self.column.dtype,
            self.column.fingerprint,
            parts=parts,
        )


def run(caches: list[Path], heads: list[str], more: list[str]) -> Iterator[dict[str, Any]]:
    """Fit heads on caches, each in a process of its own."""
    for folder in caches:
        for head in heads:
            yield _measured(folder, head, more)


def _measured(folder: Path, head: str, more: list[str]) -> dict[str, Any]:
    place = folder / "runs" / f"scale-{head}"
    command = [sys.executable, "-m", "img2prompt_cache.cli", "fit", "--cache", str(folder), *HEADS[head]]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--run", str(place), "--overwrite", "--json", *more],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    record = {
        "cache": folder.name,
        "rows": Cache(folder).rows,
        "fit": head,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
        "code": os.waitstatus_to_exitcode(status),
    }
    if record["code"] == 0:
        metrics = json.loads(told)["metrics"]
        record |= {key: metrics[key] for key in ("cosine", "floor", "n")}
        measured = json.loads((place / "run.json").read_text()).get("measured")
        record |= {} if not measured else {"measured": measured}
    print(record, file=sys.stderr, flush=True)
    return record


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make")
    maker.add_argument("caches", nargs="+", type=Path)
    maker.add_argument("--rows", type=int, default=100_000)
    maker.add_argument("--out", type=Path, required=True)
    maker.add_argument("--backbone", default=BACKBONE)
    maker.add_argument("--seed", type=int, default=0)
    runner = commands.add_parser("run")
    runner.add_argument("caches", nargs="+", type=Path)
    runner.add_argument("--only", default=",".join(HEADS))
    runner.add_argument("--fit", default="", help="more options of `fit`, such as '--memory 2GB'")
    options = parser.parse_args()
    if options.command == "make":
        make(options.caches, options.rows, options.out, options.backbone, options.seed)
        return
    records = list(run(options.caches, options.only.split(","), options.fit.split()))
    print("| cache | fit | seconds | CPU seconds | peak, MB | cosine |")
    print("|---|---|---|---|---|---|")
    for each in records:
        score = f"{each['cosine']:.4f}" if "cosine" in each else f"exit code {each['code']}"
        print(
            f"| {each['rows']:,} rows | {each['fit']} | {each['seconds']:.1f} | {each['cpu_seconds']:.1f} | "
            f"{each['peak_mb']:,.0f} | {score} |"
        )
    kept = {(each["rows"], each["fit"]): each for each in (load("scale") or {"fits": []})["fits"]}
    kept |= {(each["rows"], each["fit"]): each for each in records}
    save("scale", {"fits": [*kept.values()]})


if __name__ == "__main__":
    main()
