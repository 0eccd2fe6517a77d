"""Near-identical prompts and images: what `dedup` finds in real sets, and its search against FAISS.

    python benchmarks/dedup.py CACHE [CACHE ...] [--threshold 0.9] [--rows 30000]

For each cache: the rows left out, and how often `dedup`'s groups are those of FAISS's exact range search over
the same vectors (targets, and standardised features of the first backbone). Then the targets of all caches,
grown to so many rows, are grouped by both in turn, best of three. Prints Markdown tables and writes
`results/dedup.json`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from grown import grow
from system import save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.dedup import count_duplicates, find_duplicates
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.similarity_graph import edge_components, similarity_components
from img2prompt_cache.numerics.standardise import mean_and_scale

TIMES = 3


def ranged(vectors: np.ndarray, threshold: float) -> np.ndarray:
    """Group unit vectors by FAISS's exact range search."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    limits, _, found = index.range_search(vectors, threshold)
    rows = np.repeat(np.arange(len(vectors)), np.diff(limits).astype(np.int64))
    return edge_components(len(vectors), rows, found)


def agree(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two labellings divide rows alike."""
    return len(np.unique(np.stack([one, other]), axis=1).T) == len(np.unique(one)) == len(np.unique(other))


def best(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the fastest of a few runs, and what it gave."""
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - started)
    return min(seconds), found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("caches", type=Path, nargs="+")
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--rows", type=int, default=30_000)
    options = parser.parse_args()
    sets, targets = [], []
    print("| set | rows | prompts near an earlier one | images alike | kept | seconds | groups as FAISS's |")
    print("|---|---|---|---|---|---|---|")
    for folder in options.caches:
        cache = Cache(folder)
        feature, target = choose_features(cache, ())[0], choose_target(cache, None)
        seconds, found = best(lambda: find_duplicates(cache, options.threshold, feature, target))  # noqa: B023
        data = load_dataset(cache, (feature,), target)
        mean, scale = mean_and_scale(data.X)
        sides = [unit(data.y), unit((data.X - mean) / scale)]
        same = [
            agree(similarity_components(each, options.threshold), ranged(each, options.threshold))
            for each in sides
        ]
        figures = {
            "set": folder.name,
            "rows": len(found.ids),
            "prompts": count_duplicates(found.prompt_group),
            "images": count_duplicates(found.image_group),
            "kept": int(found.keep.sum()),
            "seconds": seconds,
            "groups as FAISS's": same,
        }
        sets.append(figures)
        targets.append(sides[0])
        print("| " + " | ".join(str(value) for value in figures.values()) + " |", flush=True)
    vectors = grow(np.concatenate(targets), options.rows, seed=0)[0]
    ours, label = best(lambda: similarity_components(vectors, options.threshold))
    theirs, other = best(lambda: ranged(vectors, options.threshold))
    grown = {
        "rows": len(vectors),
        "near": ours,
        "range_search": theirs,
        "times": theirs / ours,
        "same": agree(label, other),
        "groups": len(np.unique(label)),
    }
    print(f"\n{grown}")
    print(save("dedup", {"threshold": options.threshold, "sets": sets, "grown": grown}))


if __name__ == "__main__":
    main()
