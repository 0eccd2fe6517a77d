"""How fast a cache is read and written, beside numpy doing the same with one plain file.

    python benchmarks/cache_io.py FOLDER [--rows 200000] [--width 768] [--part-rows 1024]

FOLDER is for the files. The same float16 array lies there as one `.npy` and as a column of parts, both in the
page cache. Read: the whole column against `np.load`, random batches of 256 rows against `np.memmap`; ratios
above 1 mean that the cache is faster. Written: the column against `np.save` with its flush to disk, and what
that is of a part's time at 100 images a second. Median of 5 rounds, each side after the other. Prints a table
and writes `results/cache_io.json`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from system import save

from img2prompt_cache.cache.manifest import Column, Part, part_file
from img2prompt_cache.cache.mapped import MappedColumn
from img2prompt_cache.cache.parts import PartFile

ROUNDS, BATCHES, BATCH = 5, 200, 256


def write_column(folder: Path, values: np.ndarray, part_rows: int) -> Column:
    """Write an array as a column of parts."""
    home = "features/timm-made-up"
    parts = []
    for number, start in enumerate(range(0, len(values), part_rows)):
        piece = values[start : start + part_rows]
        name = part_file(home, number)
        with PartFile(folder / name) as file:
            file.create("values", piece.shape, "float16")
            file.write("values", 0, piece)
            parts.append(Part(name, start, start + len(piece), *file.commit()))
    return Column("features", "timm:made-up", home, values.shape[1:], "float16", {}, parts=tuple(parts))


def write_plain(path: Path, values: np.ndarray) -> None:
    """Write an array as one file, flushed to disk."""
    with path.open("wb") as file:
        np.save(file, values)
        file.flush()
        os.fsync(file.fileno())


def seconds(run: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int = ROUNDS
) -> dict[str, float]:
    """Time two ways of doing the same in turn; how many times faster the first is."""
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"| {name} | {mine * 1e3:.1f} | {other * 1e3:.1f} | {other / mine:.2f} |", flush=True)
    return {"ours_s": mine, "numpy_s": other, "ratio": other / mine}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--part-rows", type=int, default=1024)
    arguments = parser.parse_args()
    folder: Path = arguments.folder / "cache-io"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((arguments.rows, arguments.width), np.float32).astype(np.float16)
    print("| | cache ms | numpy ms | ratio |\n|---|---|---|---|")
    plain = folder / "plain.npy"
    figures = {
        "write": compare(
            "write and flush",
            lambda: write_column(folder, values, arguments.part_rows),
            lambda: write_plain(plain, values),
            rounds=1,
        )
    }
    column = write_column(folder, values, arguments.part_rows)
    share = figures["write"]["ours_s"] * 100 / arguments.rows
    print(f"writing one column of {arguments.width} at 100 images/s: {share:.2%} of the time")
    figures["whole"] = compare(
        "whole column", lambda: MappedColumn(folder, column, "float16").load(), lambda: np.load(plain)
    )
    batches = [rng.integers(0, arguments.rows, BATCH) for _ in range(BATCHES)]
    mapped, memmap = MappedColumn(folder, column, "float16"), np.load(plain, mmap_mode="r")
    for rows in batches:
        np.testing.assert_array_equal(mapped[rows], memmap[rows])
    figures["batches"] = compare(
        f"{BATCHES} random batches of {BATCH}",
        lambda: [mapped[rows] for rows in batches],
        lambda: [memmap[rows] for rows in batches],
    )
    figures["write"]["share_at_100_images_a_second"] = share
    sizes = {"rows": arguments.rows, "width": arguments.width, "part_rows": arguments.part_rows}
    print(save("cache_io", {**sizes, **figures}))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
