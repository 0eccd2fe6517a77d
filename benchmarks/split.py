"""Splits of many rows: how long it takes to hold out clusters, to purge and to check, and what is purged.

    python benchmarks/split.py CACHE [CACHE …] [--folds K] [--seed N]

For each cache, made by `scale.py make`: reading its rows, the split with its purge, the same again (kept with
the cache by then; what was kept before is removed first), and the exact search of 2,000 held-out rows. Each
cache has a process of its own, so that its peak memory is its own. Processor seconds are of all threads: on a
shared machine they say more than wall-clock. Prints a Markdown table and writes `results/split.json`.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from system import save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.grouping import choose_grouping, prompt_vectors
from img2prompt_cache.data.kept_divisions import FOLDER
from img2prompt_cache.data.purging import check_split
from img2prompt_cache.data.strategies import make_split


def measured(folder: Path, folds: int | None, seed: int) -> dict[str, Any]:
    """Split a cache, and time the steps."""
    found: dict[str, Any] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        found[f"{name}_s"] = time.perf_counter() - wall
        found[f"{name}_cpu_s"] = time.process_time() - processor

    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    cache = Cache(folder)
    with timed("read"):
        data = load_dataset(cache, choose_features(cache, ()), choose_target(cache, None), hold=False)
        grouping = choose_grouping(cache, data)
    with timed("split"):
        split = make_split(cache, data, "group", 0.2, seed, folds, grouping)
    with timed("again"):
        make_split(cache, data, "group", 0.2, seed, folds, grouping)
    with timed("check"):
        vectors, further = prompt_vectors(cache, data, grouping.column)
        check = check_split(split, vectors, further, grouping.threshold)
    return {
        "cache": folder.name,
        "rows": len(data.rows),
        "folds": folds,
        "clustered": split.clustered,
        "held_out": len(split.validation),
        "purged": len(split.purged),
        "pairs_checked": check.pairs,
        "pairs_found": check.found,
        **found,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("caches", nargs="+", type=Path)
    parser.add_argument("--folds", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    records = []
    print(
        "| rows | held out | purged | split and purge, s (CPU s) | again | check | pairs | found | peak, MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for folder in options.caches:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            each = alone.submit(measured, folder, options.folds, options.seed).result()
        records.append(each)
        times = " | ".join(
            f"{each[f'{name}_s']:.1f} ({each[f'{name}_cpu_s']:.1f})" for name in ("split", "again", "check")
        )
        print(
            f"| {each['rows']:,} | {each['held_out']:,} | {each['purged']:,} | {times} | "
            f"{each['pairs_checked']:,} | {each['pairs_found']} | {each['peak_mb']:,.0f} |",
            flush=True,
        )
    save("split", {"splits": records})


if __name__ == "__main__":
    main()
