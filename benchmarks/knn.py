"""Nearest rows among many: exact, in cells (what `nearest` and `knn` use beyond a size), by an HNSW graph.

    python benchmarks/knn.py CACHE [CACHE ...] [--width 1664] [--rows 10000,50000,100000,200000]

The features of the caches, standardised and scaled as the heads do it, are grown to as many rows as asked
for: mixtures of near ones, and noise. A tenth of the real rows is kept for the queries. Prints a Markdown
table and writes `results/knn-WIDTH.json`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from grown import grow
from system import save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.heads.nearest import Nearest
from img2prompt_cache.numerics.ivf import fit_cells, hold_back, recall_of
from img2prompt_cache.numerics.neighbours import flat_index, nearest

QUERIES = 500
NEIGHBOURS = 10
LINKS, DEPTH = 32, 80
"""Of HNSW: links of a vector, and how widely its place is looked for."""


def real_rows(folders: list[Path], width: int) -> Any:
    """Features of every row of the caches as the heads compare them: all that sum to this width, or one."""
    found = []
    for folder in folders:
        cache = Cache(folder)
        features = choose_features(cache, ())
        if sum(column.shape[0] for column in features) != width:
            features = tuple(column for column in features if column.shape[0] == width)[:1]
        data = load_dataset(cache, features, with_prompt=None)
        head = Nearest().fit(data.X, np.ones((len(data.X), 1), np.float32), widths=data.widths)
        found.append(head.vectors_.astype(np.float32))
    return np.random.default_rng(0).permutation(np.concatenate(found))


def milliseconds(index: Any, queries: Any, batch: int, calls: int) -> float:
    """Median time of one call with a batch of queries, after one to warm up."""
    times = []
    for call in range(calls + 1):
        at = (call * batch) % (len(queries) - batch + 1)
        started = time.perf_counter()
        nearest(index, queries[at : at + batch], NEIGHBOURS)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times[1:]))


def measure(vectors: Any, parents: Any, queries: Any, *, graph: bool) -> list[dict[str, Any]]:
    n, width = vectors.shape
    rows = []

    def note(search: str, build: float, size: float, setting: int | None, index: Any, true: Any) -> None:
        row = {
            "n": n,
            "search": search,
            "setting": setting,
            "build_s": build,
            "gigabytes": size / 1e9,
            "recall@10": 1.0 if true is None else recall_of(*nearest(index, queries, NEIGHBOURS), *true),
            "ms_1": milliseconds(index, queries, 1, 50),
            "ms_32": milliseconds(index, queries, 32, 9),
            "ms_500": milliseconds(index, queries, QUERIES, 5),
        }
        rows.append(row)
        print(
            f"| {n:,} | {search} | {setting or '–'} | {build:.1f} | {row['gigabytes']:.2f} "
            f"| {row['recall@10']:.4f} | {row['ms_1']:.2f} | {row['ms_32']:.1f} | {row['ms_500']:.0f} |",
            flush=True,
        )

    started = time.perf_counter()
    flat = flat_index(vectors)
    note("exact", time.perf_counter() - started, 4 * n * width, None, flat, None)
    true = nearest(flat, queries, NEIGHBOURS)
    half = vectors.astype(np.float16)
    drawn, held = hold_back(parents, 0)
    started = time.perf_counter()
    _, index = fit_cells(half, half[drawn].astype(np.float32), held, 0)
    build, chosen = time.perf_counter() - started, index.nprobe
    for probes in sorted({max(1, chosen // 4), max(1, chosen // 2), chosen}):
        index.nprobe = probes
        search = f"cells, {index.nlist}" + (" (chosen)" if probes == chosen else "")
        note(search, build, n * (2 * width + 8), probes, index, true)
    if graph:
        import faiss

        started = time.perf_counter()
        hnsw = faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_INNER_PRODUCT)
        hnsw.hnsw.efConstruction = DEPTH
        hnsw.add(vectors)
        build = time.perf_counter() - started
        for depth in (64, 128, 256, 512, 1024):
            hnsw.hnsw.efSearch = depth
            note("HNSW", build, n * (4 * width + 8 * LINKS), depth, hnsw, true)
            if rows[-1]["recall@10"] >= 0.99:
                break
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("caches", type=Path, nargs="+", metavar="CACHE")
    parser.add_argument("--width", type=int, default=1664)
    parser.add_argument("--rows", default="10000,50000,100000,200000")
    parser.add_argument(
        "--graph-rows", type=int, default=50_000, help="HNSW up to so many: it is slow to build"
    )
    options = parser.parse_args()
    real = real_rows(options.caches, options.width)
    kept = len(real) // 10
    queries, _ = grow(real[:kept], QUERIES, 1)
    print(f"grown from {len(real) - kept:,} real rows; queries from {kept:,} others\n")
    print("| rows | search | probes, depth | build, s | GB | recall@10 | 1 query, ms | 32, ms | 500, ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    figures = []
    for n in map(int, options.rows.split(",")):
        vectors, parents = grow(real[kept:], n, 0)
        figures += measure(vectors, parents, queries, graph=n <= options.graph_rows)
        del vectors
    print(save(f"knn-{options.width}", {"real": len(real), "searches": figures}))


if __name__ == "__main__":
    main()
