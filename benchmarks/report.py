"""Time, size and memory of a report by number of rows.

    python benchmarks/report.py FOLDER [--rows 5000 100000] [--side 512]

FOLDER is for the images, the caches and a tiny random backbone and encoder; the images stay there for the
next run. There are 2,000 different scenes of the demo, as JPEG of `--side` pixels a side; further rows are
the same files with two more bytes, so that no two are equal. Three heads are fitted, and the report is made
in a process of its own. The goals: 5,000 rows in less than 60 s and 8 MB, 100,000 rows in less than 25 MB.
Prints a table and writes `results/report.json`.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from system import save

TESTS = Path(__file__).parent.parent / "tests"
SCENES = 2000
HEADS = ("mean", "knn", "ridge")


def write_source(folder: Path, rows: int, side: int) -> Path:
    """Write images and their prompts."""
    from PIL import Image

    from img2prompt_cache.images.scenes import write_demo

    source = folder / f"source-{rows}-{side}"
    if (source / "prompts.csv").exists():
        return source
    drawn = folder / "scenes"
    if not (drawn / "prompts.csv").exists():
        write_demo(drawn, n=SCENES, seed=0)
    (source / "images").mkdir(parents=True, exist_ok=True)
    with (drawn / "prompts.csv").open(encoding="utf-8", newline="") as file:
        known = list(csv.DictReader(file))
    data: dict[int, bytes] = {}
    with (source / "new.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["imgId", "prompt"])
        for row in range(rows):
            one = known[row % len(known)]
            if row % len(known) not in data:
                path = source / "one.jpg"
                image = Image.open(drawn / "images" / f"{one['imgId']}.png").convert("RGB")
                noise = np.random.default_rng(row).normal(0, 6, (side, side, 3))
                pixels = np.asarray(image.resize((side, side)), np.float64) + noise
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
                data[row % len(known)] = path.read_bytes()
            number = (row // len(known)).to_bytes(2)
            (source / "images" / f"i{row:06d}.jpg").write_bytes(data[row % len(known)] + number)
            writer.writerow([f"i{row:06d}", f"{one['prompt']}, number {row}"])
    (source / "one.jpg").unlink()
    (source / "new.csv").rename(source / "prompts.csv")
    return source


def make_cache(folder: Path, source: Path) -> Path:
    """Make a cache with a tiny backbone and encoder, and fit heads on it."""
    sys.path.insert(0, str(TESTS))
    from kit import save_backbone, save_encoder

    if not (folder / "encoder").exists():
        save_backbone(folder / "backbone")
        save_encoder(folder / "encoder")
    cache = folder / f"cache-{source.name}"
    command = [sys.executable, "-m", "img2prompt_cache.cli"]
    if not (cache / "runs").exists():
        models = ("--backbone", f"timm:local-dir:{folder / 'backbone'}", "--precision", "fp32")
        models += ("--encoder", f"st:local-dir:{folder / 'encoder'}")
        subprocess.run(
            [
                *(*command, "extract", str(source / "images"), "--prompts", str(source / "prompts.csv")),
                *("--cache", str(cache), *models),
            ],
            check=True,
        )
        for head in HEADS:
            subprocess.run(
                [
                    *command,
                    "fit",
                    "--head",
                    head,
                    "--cache",
                    str(cache),
                    "--no-leakage-gap",
                    "--split",
                    "random",
                ],
                check=True,
            )
    return cache


def measure(cache: Path, out: Path) -> dict[str, Any]:
    """Make the report in a process of its own; give its time, size and peak memory."""
    command = [sys.executable, "-m", "img2prompt_cache.cli", "report", "--cache", str(cache)]
    started = time.perf_counter()
    subprocess.run([*command, "--out", str(out), "--overwrite"], check=True)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"seconds": round(seconds, 1), "mb": round(out.stat().st_size / 1e6, 2), "peak_mb": round(peak)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000])
    parser.add_argument("--side", type=int, default=512)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    caches = [make_cache(options.folder, write_source(options.folder, n, options.side)) for n in options.rows]
    figures = []
    print("| rows | seconds | MB | peak memory, MB |")
    print("|---|---|---|---|")
    for rows, cache in zip(options.rows, caches, strict=True):
        found = measure(cache, options.folder / f"report-{rows}.html")
        figures.append({"rows": rows, "side": options.side, **found})
        print(f"| {rows:,} | {found['seconds']} | {found['mb']} | {found['peak_mb']:,} |")
    save("report", figures)


if __name__ == "__main__":
    main()
