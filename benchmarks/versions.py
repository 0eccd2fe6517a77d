"""Two versions of this project against each other: `--help`, an extraction of 300 images, a fit of mlp.

    python benchmarks/versions.py DATA --before PYTHON [--rounds 5]

DATA is a folder of images with `prompts.csv`; its first 300 images are taken. PYTHON is the interpreter of an
environment in which the other version is installed. Both are run as whole processes, in turn: before, after,
after, before, …. Prints the median of processor time and of the ratios after / before, of processor time,
which other work on the machine disturbs less, and of wall time. Writes `results/versions.json`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from system import TWO_BACKBONES, save

ROWS = 300


def first_images(data: Path, folder: Path) -> Path:
    """Copy the first images of a set, with their prompts."""
    lines = (data / "prompts.csv").read_text(encoding="utf-8").splitlines()
    images = sorted((data / "images").iterdir())[:ROWS]
    (folder / "images").mkdir(parents=True)
    for path in images:
        shutil.copy(path, folder / "images")
    shutil.copy(data / "prompts.csv", folder / "prompts.csv")
    assert len(lines) > ROWS
    return folder


def measure(python: str, *arguments: object) -> tuple[float, float]:
    """Run a command line of one version, away from any checkout: seconds of wall and of processor time."""
    command = [python, "-m", "img2prompt_cache.cli", *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=tempfile.gettempdir())
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read())
    return wall, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--before", required=True, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    versions = {"before": options.before, "after": sys.executable}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        source = first_images(options.data, work / "source")
        for name, python in versions.items():  # weights are fetched, modules compiled
            measure(python, "extract", source, *TWO_BACKBONES, "--cache", work / f"fit-{name}")
        tasks = {
            "help": lambda name, number: ("--help",),
            "extract": lambda name, number: (
                *("extract", source, *TWO_BACKBONES, "--cache", work / f"{name}-{number}"),
            ),
            "fit mlp": lambda name, number: (
                *(
                    "fit",
                    "--head",
                    "mlp",
                    "--cache",
                    work / f"fit-{name}",
                    "--run",
                    work / f"run-{name}-{number}",
                ),
            ),
        }
        print("| task | processor time before, s | after, s | after / before | min to max | wall |")
        print(f"|{'---|' * 6}")
        for task, arguments in tasks.items():
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in versions}
            for number in range(options.rounds):
                for name in sorted(versions, reverse=number % 2 == 0):
                    taken[name].append(measure(versions[name], *arguments(name, number)))
            pairs = list(zip(taken["before"], taken["after"], strict=True))
            wall, cpu = ([after[i] / before[i] for before, after in pairs] for i in (0, 1))
            figures[task] = {**taken, "wall_ratios": wall, "cpu_ratios": cpu}
            before, after = (statistics.median(each[1] for each in taken[name]) for name in versions)
            print(
                f"| {task} | {before:.2f} | {after:.2f} | {statistics.median(cpu):.3f} | "
                f"{min(cpu):.3f} to {max(cpu):.3f} | {statistics.median(wall):.3f} |",
                flush=True,
            )
    print(save("versions", figures))


if __name__ == "__main__":
    main()
