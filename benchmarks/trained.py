"""Heads trained by gradient descent against ridge, the closed form: as they were, and as they are.

    python benchmarks/trained.py CACHE [CACHE ...] [--grown 20000] [--folds 5] [--heads mlp] [--jobs 16]

Each head is fitted on the pooled features of each cache by grouped folds, every fold by a process of its own
with one thread. "before" is what version 0.1 did: half of the inputs dropped whatever the number of rows, and
the network alone. "alone" is the network without ridge. `--grown N` adds N rows that are grown from those of
the first cache, features and targets together, and made about as noisy as real ones. Differences are paired,
with intervals by bootstrap over groups, wider by the factor of `split_widening`. Prints a Markdown table and
writes `results/trained.json`.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # before numpy is imported, here and in each process

import numpy as np  # noqa: E402
from grown import grow  # noqa: E402
from system import save  # noqa: E402

from img2prompt_cache.cache.reader import Cache  # noqa: E402
from img2prompt_cache.data.columns import choose_target  # noqa: E402
from img2prompt_cache.data.dataset import load_dataset  # noqa: E402
from img2prompt_cache.data.grouping import group_rows  # noqa: E402
from img2prompt_cache.data.splits import k_folds  # noqa: E402
from img2prompt_cache.fitting.columns import choose_columns  # noqa: E402
from img2prompt_cache.heads import make_head  # noqa: E402
from img2prompt_cache.numerics.bootstrap import paired_difference, split_widening  # noqa: E402
from img2prompt_cache.numerics.metrics import cosine, unit  # noqa: E402

BEFORE = {"mix": 1.0, "dropout": 0.5}
VARIANTS: dict[str, dict[str, Any]] = {"before": BEFORE, "alone": {"mix": 1.0}, "now": {}}
SETTINGS = {"wide-mlp": {"expand": 2}}
"""Sixteen times as wide takes too long here."""
NOISE = 1.1
"""How long the noise is that is added to grown targets, beside which the targets are of length 1."""
SPREAD = 0.5
"""Standard deviation of the noise that is added to grown features, which are standardised before."""


class Rows(NamedTuple):
    """Features, targets, groups, and the widths of the backbones."""

    X: Any
    y: Any
    groups: Any
    widths: tuple[int, ...]


class Job(NamedTuple):
    """One fold of one head on one set."""

    cache: Path
    grown: int
    head: str
    settings: dict[str, Any]
    fold: int
    folds: int


@lru_cache(maxsize=1)
def rows_of(folder: Path, grown: int) -> Rows:
    """Read the pooled features and the targets of a cache; or grow so many rows from them."""
    cache = Cache(folder)
    columns, _ = choose_columns(cache, make_head("mlp"), ())
    data = load_dataset(cache, columns, choose_target(cache, None))
    X, y = data.X.astype(np.float32), data.y.astype(np.float32)
    if not grown:
        return Rows(X, y, group_rows(cache, data), data.widths)
    standard = unit((X - X.mean(axis=0)) / (X.std(axis=0) + 1e-6))
    both, parents = grow(unit(np.concatenate([y, standard], axis=1)), grown, 0)
    rng = np.random.default_rng(0)
    apart = y[rng.integers(len(y), size=grown)] - y[rng.integers(len(y), size=grown)]
    noise = SPREAD * rng.standard_normal((grown, X.shape[1]), np.float32)
    targets = unit(unit(both[:, : y.shape[1]]) + NOISE * unit(apart))
    features = both[:, y.shape[1] :]
    return Rows(features / features.std() + noise, targets, parents, data.widths)


def fit_fold(job: Job) -> tuple[np.ndarray, float]:
    """Fit a head to all folds but one; give the cosines of that one, and the seconds."""
    rows = rows_of(job.cache, job.grown)
    held = k_folds(rows.groups, job.folds, 0) == job.fold
    started = time.perf_counter()
    head = make_head(job.head, **job.settings)
    head.fit(rows.X[~held], rows.y[~held], groups=rows.groups[~held], widths=rows.widths)
    found = cosine(head.predict(rows.X[held]), rows.y[held])
    return found, time.perf_counter() - started


def interval(one: Any, other: Any, groups: Any, fold: Any) -> dict[str, Any]:
    """Give the paired difference of two heads."""
    difference, inside = paired_difference(one, other, groups, widening=split_widening(fold, len(fold)))
    return {"difference": difference, "ci95": inside}


def told(found: dict[str, Any] | None) -> str:
    """Write a difference as two cells of a table."""
    if found is None:
        return "– | –"
    low, high = found["ci95"] or (float("nan"),) * 2
    return f"{found['difference']:+.4f} | {low:+.4f} to {high:+.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("caches", type=Path, nargs="+")
    parser.add_argument("--grown", type=int, nargs="*", default=[], help="also so many rows from the first")
    parser.add_argument("--heads", default="mlp,wide-mlp,linear", help="which heads, with commas between")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of processes")
    options = parser.parse_args()
    sets = [(cache, 0) for cache in options.caches] + [(options.caches[0], rows) for rows in options.grown]
    trained = [(head, variant) for head in options.heads.split(",") for variant in VARIANTS]
    jobs = {
        (at, head, variant, fold): Job(
            *sets[at], head, {**SETTINGS.get(head, {}), **VARIANTS.get(variant, {})}, fold, options.folds
        )
        for at in range(len(sets))
        for head, variant in [*trained, ("ridge", "")]
        for fold in range(options.folds)
    }
    found: dict[tuple[int, str, str], list[Any]] = {}
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for (*which, _), result in zip(jobs, pool.map(fit_fold, jobs.values()), strict=True):
            found.setdefault(tuple(which), []).append(result)  # type: ignore[arg-type]
    print("| set | rows | head | cosine | over ridge | 95 % | over before | 95 % | fit, s |")
    print(f"|{'---|' * 9}")
    figures = []
    for at, (cache, grown) in enumerate(sets):
        rows = rows_of(cache, grown)
        folds = k_folds(rows.groups, options.folds, 0)
        order = np.argsort(folds, kind="stable")  # as the folds' results follow each other
        groups, fold = rows.groups[order], folds[order]
        scores = {key[1:]: np.concatenate([each for each, _ in found[key]]) for key in found if key[0] == at}
        for (head, variant), own in scores.items():
            before = scores.get((head, "before"))
            record = {
                "set": f"{cache.name}, grown" if grown else cache.name,
                "rows": len(own),
                "head": f"{head}, {variant}" if variant else head,
                "cosine": float(own.mean()),
                "over_ridge": None if head == "ridge" else interval(own, scores["ridge", ""], groups, fold),
                "over_before": None
                if variant in ("", "before") or before is None
                else interval(own, before, groups, fold),
                "seconds": float(sum(took for _, took in found[at, head, variant])),
            }
            figures.append(record)
            print(
                f"| {record['set']} | {record['rows']:,} | {record['head']} | {record['cosine']:.4f} | "
                f"{told(record['over_ridge'])} | {told(record['over_before'])} | {record['seconds']:.1f} |",
                flush=True,
            )
    print(save("trained", figures))


if __name__ == "__main__":
    main()
