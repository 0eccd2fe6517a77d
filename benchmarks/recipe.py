"""The ladder of all heads, from the floor to `best`, and what each step of the recipe of `best` brings.

    python benchmarks/recipe.py DATA [DATA ...] --caches DIR [--extra NAME=CACHE] [--seed 0 1] [--jobs 16]

DATA is a folder with images and `prompts.csv`, extracted with the packaged preset into DIR/NAME unless it is
there; where it is, only the folder's name counts. Each head is fitted on grouped folds, by one process with
one thread for each fold: where something is chosen, it is chosen anew in each, of `best` the whole recipe.
The pairs of CACHE are extra pairs for `best` on the set NAME; `--soften NAME=FILE` adds the prompts of FILE
to its soft bank. Every fold is written to `--out` once it is scored, and not fitted again by a later call, so
a call that was stopped is continued by the same command; if nothing is left to fit, that prints the tables
alone.

Intervals are by bootstrap over groups, wider by the factor of `split_widening`; p are Holm's over a table.
Seconds are those of one core, to fit and predict all folds; but wall time of the steps of best, and of all
where `--device` is not the CPU. Prints Markdown tables and writes `results/recipe.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # before numpy is imported, here and in each process

import numpy as np  # noqa: E402
from one_fold import FOLDS, HEADS, Job, fit_fold  # noqa: E402
from recipe_tables import records_of, summary, tables  # noqa: E402
from system import extracted, save, system  # noqa: E402

from img2prompt_cache.cache.reader import Cache  # noqa: E402
from img2prompt_cache.data.columns import choose_features, choose_target  # noqa: E402
from img2prompt_cache.data.dataset import load_dataset  # noqa: E402
from img2prompt_cache.data.grouping import group_rows  # noqa: E402

SLOWEST = ("best", "distil", "blend", "wide-mlp", "kernel", "seed-tuned-resnet", "kernel-pooled", "mlp")
"""Heads to begin with, so that no process is left alone with one of them at the end."""


class Finished:
    """The file of all folds that were scored.

    Its `sets` holds the group of each row, by the name of the set; its `folds` the records of `fit_fold`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        empty = {"system": system(), "sets": {}, "folds": []}
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else empty

    def add(self, name: str, seed: int, record: dict[str, Any]) -> None:
        """Write a record down at once."""
        self.content["folds"].append({"set": name, "seed": seed, **record})
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text(json.dumps(self.content))
        part.replace(self.path)

    def require_groups(self, name: str, groups: list[int]) -> None:
        """Note the groups of a set; refuse rows that are not those of earlier calls."""
        if self.content["sets"].setdefault(name, groups) != groups:
            raise SystemExit(f"{self.path} has folds of other rows of {name}; name another file")


def by_name(pairs: list[str]) -> dict[str, Path]:
    """Read options of the form NAME=PATH."""
    return {name: Path(path) for name, path in (pair.split("=", 1) for pair in pairs)}


def groups_of(folder: Path) -> list[int]:
    """Give the group of each row."""
    cache = Cache(folder)
    first = cache.manifest.of_kind("features")[0].spec
    data = load_dataset(cache, choose_features(cache, (first,)), choose_target(cache, None))
    found: list[int] = group_rows(cache, data).tolist()
    return found


def fit_all(jobs: list[tuple[str, Job]], finished: Finished, processes: int) -> int:
    """Fit what is not fitted yet, and count what failed."""
    failed = 0
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(fit_fold, job): (name, job) for name, job in jobs}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                name, job = futures[future]
                told = f"{number}/{len(jobs)} {name}, seed {job.seed}, {job.head}, fold {job.fold}"
                if error := future.exception():
                    failed += 1
                    print(f"{told}: {error!r}", file=sys.stderr, flush=True)
                    continue
                record = future.result()
                finished.add(name, job.seed, record)
                score = np.mean(record["cosines"])
                print(f"{told}: {score:.4f}, {record['seconds']:.0f} s", file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--caches", type=Path, required=True, help="where caches are made, or found")
    parser.add_argument("--extra", nargs="*", default=[], metavar="NAME=CACHE", help="extra pairs of a set")
    parser.add_argument("--soften", nargs="*", default=[], metavar="NAME=FILE", help="soft bank of a set")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="of the folds and of the heads")
    parser.add_argument("--heads", default=",".join(HEADS), help="which heads, with commas between")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, of one thread each")
    parser.add_argument("--device", default="cpu", help="of the heads that compute with torch")
    parser.add_argument("--out", type=Path, default=Path("recipe-folds.json"), help="every fold")
    options = parser.parse_args()
    finished, extra, banks = Finished(options.out), by_name(options.extra), by_name(options.soften)
    wanted = options.heads.split(",")
    jobs = []
    for data in options.data:
        folder = extracted(data, options.caches)
        finished.require_groups(data.name, groups_of(folder))
        jobs += [
            (
                data.name,
                Job(folder, extra.get(data.name), banks.get(data.name), seed, head, fold, options.device),
            )
            for seed in options.seed
            for head in wanted
            for fold in range(FOLDS)
            if fold not in [each["fold"] for each in records_of(finished.content, data.name, seed, head)]
        ]
    order = {head: place for place, head in enumerate(SLOWEST)}
    rows = {name: len(groups) for name, groups in finished.content["sets"].items()}
    jobs.sort(key=lambda job: (order.get(job[1].head, len(order)), -rows[job[0]]))
    failed = fit_all(jobs, finished, options.jobs) if jobs else 0
    figures = {
        "measured_on": finished.content["system"],
        "sets": {
            data.name: {str(seed): summary(finished.content, data.name, seed) for seed in options.seed}
            for data in options.data
        },
    }
    for name, by_seed in figures["sets"].items():
        for seed, found in by_seed.items():
            print("\n".join(tables(name, int(seed), found)))
    print(save("recipe", figures))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
