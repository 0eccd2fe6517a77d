"""Whether a pass stays as fast and as small as it grows: time per image and peak memory by number of rows.

    python benchmarks/growth.py FOLDER [--rows 1000 10000 50000 200000] [--source 1000000]

FOLDER is for the images, the caches and a tiny random backbone and encoder; the images stay there for the
next run. Every image is another one, 16×16 pixels, because identical ones would be encoded once. Each pass
is a process of its own, with everything from start to end. Then: the time from the start to the plan for a
source of `--source` rows, and a pass over a cache of as many rows that is finished already (its parts are
written by the real writer, with made-up features). Prints a table and writes `results/growth.json`.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from system import save

from img2prompt_cache.progress import Event

TESTS = Path(__file__).parent.parent / "tests"
HEADER = b"BM" + (54 + 768).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
HEADER += (40).to_bytes(4, "little") + (16).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + bytes(24)
SIZES = (1_000, 10_000, 50_000, 200_000)


def write_source(folder: Path, rows: int, *, pixels: bool = True) -> Path:
    """Write `rows` distinct BMP images and their prompts; without pixels, empty files, only to be listed."""
    source = folder / f"source-{rows}"
    if (source / "prompts.csv").exists():
        return source
    (source / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(rows)
    lines = ["imgId,prompt\n"]
    for row in range(rows):
        data = HEADER + rng.bytes(768) if pixels else b""
        (source / "images" / f"i{row:07d}.bmp").write_bytes(data)
        lines.append(f'i{row:07d},"two red boats on a calm sea at night, number {row // 2}"\n')
    (source / "prompts.csv").write_text("".join(lines))
    return source


def models(folder: Path) -> list[str]:
    """Make a small backbone and a small encoder with random weights; give the options that name them."""
    sys.path.insert(0, str(TESTS))
    from kit import save_backbone, save_encoder

    if not (folder / "encoder").exists():
        save_backbone(folder / "backbone", size=16)
        save_encoder(folder / "encoder")
    return [
        *("--backbone", f"timm:local-dir:{folder / 'backbone'}"),
        *("--encoder", f"st:local-dir:{folder / 'encoder'}", "--precision", "fp32"),
    ]


def run(source: Path, cache: Path, options: list[str]) -> dict[str, Any]:
    """Run one pass in a process of its own; give its figures and the whole process's time."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--pass", str(source), str(cache), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return {"wall": time.perf_counter() - started, **figures}


class Times:
    """A callback that notes the time, wall and processor, whenever rows are done."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float, float]] = []

    def __call__(self, event: Event) -> None:
        if event.kind in ("plan", "step"):
            self.mark(event.done)

    def mark(self, rows: int) -> None:
        self.points.append((rows, time.perf_counter(), time.process_time()))

    def per_image(self, low: float, high: float) -> dict[str, float]:
        """Milliseconds an image between two fractions of the pass."""
        total = self.points[-1][0]
        first = next(p for p in self.points if p[0] >= low * total)
        last = self.points[-1] if high == 1 else next(p for p in self.points if p[0] >= high * total)
        rows = max(1, last[0] - first[0])
        return {"wall_ms": 1e3 * (last[1] - first[1]) / rows, "cpu_ms": 1e3 * (last[2] - first[2]) / rows}


def one_pass(source: Path, cache: Path, options: list[str]) -> None:
    """Be that process."""
    from img2prompt_cache.extraction.execute import run_pass
    from img2prompt_cache.extraction.request import ExtractConfig
    from img2prompt_cache.sources import open_source

    given = dict(zip(options[::2], options[1::2], strict=True))
    config = ExtractConfig(
        backbones=(given["--backbone"],), encoder=given["--encoder"], precision=given["--precision"]
    )
    times = Times()
    run_pass(cache, open_source(source), config, times)
    times.mark(times.points[-1][0])  # the last part's targets, and the end
    tenths = (
        [times.per_image(i / 10, (i + 1) / 10) for i in range(10)] if times.points[-1][0] >= 100_000 else []
    )
    figures = {
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "cpu": time.process_time(),
        "all": times.per_image(0, 1),
        "tenths": tenths,
    }
    print(json.dumps(figures))


def growth(folder: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Measure a pass of every size, and within each, time per image by tenths of the pass."""
    options = models(folder)
    found = []
    for size in sizes:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        row = {"rows": size, **run(write_source(folder, size), folder / "cache", options)}
        found.append(row)
        first, last = (row["tenths"][i] if row["tenths"] else row["all"] for i in (1, -2))
        print(
            f"| {size:,} | {row['wall']:.1f} | {row['all']['wall_ms']:.3f} | {row['all']['cpu_ms']:.3f} | "
            f"{first['cpu_ms']:.3f} → {last['cpu_ms']:.3f} | {row['peak_mb']:.0f} |",
            flush=True,
        )
    return found


def finished(folder: Path, rows: int) -> dict[str, float]:
    """Time the start over a big source, and a pass over its finished cache."""
    options = models(folder)
    source = write_source(folder, rows, pixels=False)
    cache = folder / "finished"
    if not cache.exists():
        make_finished(source, cache, options)
    first = run(source, cache, options)  # the first one builds cache.h5
    again = [run(source, cache, options) for _ in range(3)]
    return {
        "rows": rows,
        "first_s": first["wall"],
        "resume_s": statistics.median(each["wall"] for each in again),
        "peak_mb": statistics.median(each["peak_mb"] for each in again),
        "start_s": start(source, folder / "never", options),
    }


def start(source: Path, cache: Path, options: list[str]) -> float:
    """Time from the start of the process to its plan."""
    shutil.rmtree(cache, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "img2prompt_cache.cli",
        "extract",
        str(source),
        "--cache",
        str(cache),
        *options,
    ]
    started = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            if line.startswith("plan:"):
                break
        seconds = time.perf_counter() - started
        process.kill()
    shutil.rmtree(cache, ignore_errors=True)
    return seconds


def make_finished(source: Path, cache: Path, options: list[str]) -> None:
    """Write the cache that a pass over the source would have left, with random features."""

    from img2prompt_cache.cache.manifest import Part, part_file
    from img2prompt_cache.cache.parts import PartFile
    from img2prompt_cache.cache.writer import commit, writing
    from img2prompt_cache.extraction.plan import prepare
    from img2prompt_cache.extraction.request import ExtractConfig
    from img2prompt_cache.sources import open_source

    opened = open_source(source)
    config = ExtractConfig(backbones=(options[1],), encoder=options[3], precision="fp32")
    rng = np.random.default_rng(0)
    with writing(cache):
        work, _ = prepare(cache, opened, opened.list(), config)
        manifest = work.manifest
        for job in work.jobs:
            rows = work.rows(job)
            parts = []
            for column in job.columns:
                name = part_file(column.folder, job.number)
                with PartFile(cache / name) as file:
                    if column.kind == "rows":
                        sha256 = [
                            f"{row * 0x9E3779B97F4A7C15 % 2**256:064x}" for row in range(job.start, job.stop)
                        ]
                        made = {"sha256": sha256, "status": ["ok"] * len(rows), "reason": [""] * len(rows)}
                        for key, values in {**rows.text, **made}.items():
                            file.write_text(key, values)
                    else:
                        file.create("values", (len(rows), *column.shape), column.dtype)
                        file.write(
                            "values", 0, rng.normal(size=(len(rows), *column.shape)).astype(column.dtype)
                        )
                    parts.append((column, Part(name, job.start, job.stop, *file.commit())))
            manifest = commit(cache, manifest, parts)


def main() -> None:
    if sys.argv[1:2] == ["--pass"]:
        one_pass(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--source", type=int, default=1_000_000)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    print(
        "| rows | wall s | ms/image | cpu ms/image | its second → ninth tenth | peak MB |\n"
        "|---|---|---|---|---|---|"
    )
    figures: dict[str, Any] = {"growth": growth(folder, list(arguments.rows))}
    if arguments.source:
        figures["finished"] = finished(folder, arguments.source)
        print(json.dumps(figures["finished"], indent=1))
    print(save("growth", figures))


if __name__ == "__main__":
    main()
