"""Two versions of this project against each other: `--help`, an extraction of 300 images, a fit of mlp.

    python benchmarks/versions.py DATA --before PYTHON [--rounds 5]

DATA is a folder of images with `prompts.csv`; its first 300 images are taken. PYTHON is the interpreter of an
environment in which the other version is installed. Both are run as whole processes, in turn: before, after,
after, before, …. Prints the median of each and of the ratios after / before, and writes
`results/versions.json`.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from system import save

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


def seconds(python: str, *arguments: object) -> float:
    """Run a command line of one version, away from any checkout, and time it."""
    command = [python, "-m", "img2prompt_cache.cli", *map(str, arguments)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tempfile.gettempdir())
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


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
            seconds(python, "extract", source, "--preset", "packaged", "--cache", work / f"fit-{name}")
        tasks = {
            "help": lambda name, number: ("--help",),
            "extract": lambda name, number: (
                *("extract", source, "--preset", "packaged", "--cache", work / f"{name}-{number}"),
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
        print("| task | before, s | after, s | after / before, median of rounds | min to max |")
        print(f"|{'---|' * 5}")
        for task, arguments in tasks.items():
            taken: dict[str, list[float]] = {name: [] for name in versions}
            for number in range(options.rounds):
                for name in sorted(versions, reverse=number % 2 == 0):
                    taken[name].append(seconds(versions[name], *arguments(name, number)))
            ratios = [after / before for before, after in zip(taken["before"], taken["after"], strict=True)]
            figures[task] = {**taken, "ratios": ratios}
            before, after = (statistics.median(taken[name]) for name in versions)
            print(
                f"| {task} | {before:.2f} | {after:.2f} | "
                f"{statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |",
                flush=True,
            )
    print(save("versions", figures))


if __name__ == "__main__":
    main()
