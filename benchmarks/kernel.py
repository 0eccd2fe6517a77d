"""The kernel head: Nyström landmarks against the exact fit, on a cache's features or on synthetic rows.

    python benchmarks/kernel.py [CACHE] [--rows 10000]

With a cache, its joined features and grouped split; without, synthetic rows of 1,664 features whose truth
is not linear. Beside the cosine stands what share of the kernel the landmarks miss: the mean over rows of
1 − ‖Nyström features‖². Prints a Markdown table and writes `results/kernel.json`, of a cache
`results/kernel-CACHE.json`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from system import save

from img2prompt_cache.heads import kernel as module
from img2prompt_cache.heads.kernel import Kernel
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.numerics.kernel_ridge import kernel, nystroem_map
from img2prompt_cache.numerics.metrics import unit

BLOCKS, T, HELD = (1280, 384), 384, 2000


def synthetic(n: int) -> tuple[Any, ...]:
    """Features that mix 24 hidden causes, by a layer of tanh; targets a smooth function of the causes."""
    rng = np.random.default_rng(0)
    causes = rng.standard_normal((n + HELD, 24))
    mixed = np.tanh(causes @ rng.standard_normal((24, sum(BLOCKS))) / 3)
    X = (mixed + 0.3 * rng.standard_normal(mixed.shape)).astype(np.float32)
    hidden = np.sin(causes @ rng.standard_normal((24, 64)) / 2)
    y = unit(hidden @ rng.standard_normal((64, T)) / 8 + rng.standard_normal((n + HELD, T)) + 0.5)
    return X[:n], y[:n], np.arange(n), X[n:], y[n:], BLOCKS


def cached(folder: Path) -> tuple[Any, ...]:
    """Training and held-out rows of a cache, joined."""
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.columns import choose_features, choose_target
    from img2prompt_cache.data.dataset import load_dataset
    from img2prompt_cache.data.strategies import make_split

    cache = Cache(folder)
    data = load_dataset(cache, choose_features(cache, ()), choose_target(cache, None))
    split = make_split(cache, data, "group", 0.2, 0)
    train, held = split.train, split.validation
    return data.X[train], data.y[train], split.groups[train], data.X[held], data.y[held], data.widths


def missed(head: Kernel, X: Any) -> float:
    """Share of the rows' kernel values with themselves, 1 each, that the landmarks do not explain."""
    root, total = nystroem_map(head.rows_, head.gains_), 0.0
    for start in range(0, len(X), HELD):
        features = kernel(head._scaled(X[start : start + HELD]), head.rows_, head.gains_) @ root
        total += float(np.vdot(features, features))
    return 1 - total / len(X)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    X, y, groups, new, true, blocks = cached(options.cache) if options.cache else synthetic(options.rows)
    print(f"{len(X):,} rows, {X.shape[1]:,} features; scored on {len(new):,} others\n")
    print("| head | seconds | cosine | missed |\n|---|---|---|---|")
    figures = []

    def measured(label: str, head: Any) -> Any:
        started = time.perf_counter()
        head.fit(X, y, groups=groups, widths=blocks)
        row = {"head": label, "seconds": time.perf_counter() - started, "cosine": head.score(new, true)}
        row["missed"] = missed(head, X) if "landmarks" in label else None
        figures.append(row)
        share = "–" if row["missed"] is None else f"{row['missed']:.3f}"
        print(f"| {label} | {row['seconds']:.1f} | {row['cosine']:.4f} | {share} |", flush=True)
        return head

    measured("ridge", Ridge())
    chosen = measured("kernel, settings chosen", Kernel()).chosen
    measured("kernel, settings given, exact", Kernel(**chosen))
    module.EXACT = 0
    for landmarks in (512, 1024, 2048, 4096):
        if landmarks < len(X):
            measured(
                f"kernel, settings given, {landmarks:,} landmarks", Kernel(**chosen, landmarks=landmarks)
            )
    name = f"kernel-{options.cache.resolve().name}" if options.cache else "kernel"
    print(save(name, {"rows": len(X), "chosen": chosen, "fits": figures}))


if __name__ == "__main__":
    main()
