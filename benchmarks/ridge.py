"""Ridge at scale: against scikit-learn's RidgeCV, and on two million rows streamed from a file.

    python benchmarks/ridge.py [--compared 50000] [--rows 2000000] [--folder DIR]

Prints two Markdown tables and writes `results/ridge.json`. Features are synthetic: a spectrum that falls as
1/√k, as those of image encoders do, 1,408 wide; targets 384 wide. The file of float16 features, 5.6 GB for
two million rows, is made in DIR (the system's temporary folder by default) and deleted. Each measurement has
a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from system import save

from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.numerics.gram import Rows
from img2prompt_cache.numerics.metrics import mean_cosine, unit
from img2prompt_cache.numerics.ridge_path import penalties

P, T, HELD, CHUNK = 1408, 384, 5_000, 16_384
REPEATS = 3
"""Fits of ours, of which the median counts; one of scikit-learn's is long enough to be steady."""
ALPHAS = np.geomspace(1e-1, 1e5, 20)


def features(rng: np.random.Generator, n: int) -> Any:
    return rng.standard_normal((n, P), np.float32) * np.arange(1, P + 1, dtype=np.float32) ** -0.5


def targets(rng: np.random.Generator, x: Any) -> Any:
    truth = np.random.default_rng(9).standard_normal((P, T), np.float32)
    return unit(x @ truth + 4 * rng.standard_normal((len(x), T), np.float32) + 0.5)


def problem(n: int) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(0)
    x = features(rng, n + HELD)
    y = targets(rng, x)
    return x[:n], y[:n], x[n:], y[n:]


def ours(n: int, choose: str) -> dict[str, Any]:
    x, y, new, true = problem(n)
    # The head scales the block to a total variance of 1, and its penalty with it; here it is given as is.
    spread = float(x.var(axis=0, dtype=np.float64).sum())
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        head = Ridge(choose=choose).fit(x, y)
        times.append(time.perf_counter() - started)
    return {
        "seconds": statistics.median(times),
        "cosine": head.score(new, true),
        "alpha": head.chosen["alpha"] * spread,
        "tried": len(penalties(n)),
    }


def sklearn(n: int) -> dict[str, Any]:
    from sklearn.linear_model import RidgeCV

    x, y, new, true = problem(n)
    x, y = x.astype(np.float64), y.astype(np.float64)
    started = time.perf_counter()
    model = RidgeCV(ALPHAS).fit(x, y)
    seconds = time.perf_counter() - started
    cosine = mean_cosine(model.predict(new.astype(np.float64)), true)
    return {"seconds": seconds, "cosine": cosine, "alpha": float(model.alpha_), "tried": len(ALPHAS)}


def streamed(folder: Path, n: int) -> dict[str, Any]:
    fold = k_folds(np.arange(n), 5)

    def part(name: str, width: int, start: int, stop: int) -> Any:
        # Mapped anew each time: pages that were read do not count against this process any longer.
        return np.memmap(folder / name, np.float16, "r", start * width * 2, (stop - start, width))

    def chunks() -> Iterator[Rows]:
        for start in range(0, n, CHUNK):
            stop = min(start + CHUNK, n)
            yield Rows(part("x", P, start, stop), part("y", T, start, stop), fold[start:stop])

    started = time.perf_counter()
    head = Ridge().fit_stream(chunks, n, (P,))
    return {
        "seconds": time.perf_counter() - started,
        "gb": n * P * 2 / 1e9,
        "rows": n,
        "alpha": head.chosen["alpha"],
        "cosine": head.score(*(part(*which, 0, HELD).astype(np.float32) for which in (("x", P), ("y", T)))),
    }


def make_file(folder: Path, n: int) -> None:
    rng = np.random.default_rng(0)
    block = features(rng, CHUNK)
    with (folder / "x").open("wb") as x, (folder / "y").open("wb") as y:
        for start in range(0, n, CHUNK):
            rows = min(CHUNK, n - start)
            # Two million rows of normal noise would take longer than fitting them: turn one block's signs.
            part = (block[:rows] * rng.choice([-1, 1], P)).astype(np.float16)
            part.tofile(x)
            targets(rng, part.astype(np.float32)).astype(np.float16).tofile(y)


def measure(*arguments: object) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compared", type=int, default=50_000)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, n, *rest = options.measure
        if name == "streamed":
            found = streamed(Path(rest[0]), int(n))
        else:
            found = sklearn(int(n)) if name == "sklearn" else ours(int(n), name)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({**found, "peak_gb": peak}))
        return
    print(f"{options.compared:,} rows, {P:,} features, {T} targets; scored on {HELD:,} others\n")
    print("| solver | penalties | seconds | times | penalty | cosine | peak GB |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for name, label in (
        ("sklearn", "scikit-learn RidgeCV, leave-one-out error"),
        ("mse", "ridge, error on 5 folds"),
        ("cosine", "ridge, cosine on 5 folds"),
    ):
        row = {"solver": label, **measure(name, options.compared)}
        rows.append(row)
        row["times"] = rows[0]["seconds"] / row["seconds"]
        print(
            f"| {label} | {row['tried']} | {row['seconds']:.1f} | {row['times']:.0f} | {row['alpha']:.3g} | "
            f"{row['cosine']:.4f} | {row['peak_gb']:.1f} |",
            flush=True,
        )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        make_file(Path(folder), options.rows)
        stream = measure("streamed", options.rows, folder)
    print("\n| rows streamed | GB | seconds | peak GB |\n|---|---|---|---|")
    print(
        f"| {stream['rows']:,} | {stream['gb']:.1f} | {stream['seconds']:.0f} | {stream['peak_gb']:.2f} |\n"
    )
    print(save("ridge", {"compared": rows, "streamed": stream}))


if __name__ == "__main__":
    main()
