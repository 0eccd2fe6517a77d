"""Let the disk run full at every stage of an extract, make room, go on, and compare with one that had room.

    python benchmarks/disk_full.py --folder DIR [--save] -- SOURCE --backbone SPEC

Behind `--` stands what `extract` takes, without `--cache`. As root, the cache lies on a tmpfs of its own
whose size grows in steps, from nothing to more than the cache takes; without root, a limit on the size of a
file stands in for it. The check of room before the first batch is switched off, since it would refuse all of
this. Each pass must end with exit code 1 and one line that says the disk is full, and leave every recorded
part whole; with room it must then end with the same bytes as an undisturbed one. Prints one JSON object;
`--save` writes it to `results/disk_full.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from kill_drill import parts_of, preload

STEPS = 40


def run(arguments: list[str], said: Path, limit: int | None = None) -> int:
    """Run a pass in a fork, without the check of room; give its exit code."""
    from img2prompt_cache.cli import main
    from img2prompt_cache.extraction import execute

    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            with said.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            execute.require_room = lambda folder, plan: None  # type: ignore[assignment]
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            code = main.run(arguments)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def mount(folder: Path, size: int, *options: str) -> None:
    """Give a folder a file system of `size` bytes."""
    settings = ",".join([*options, f"size={size}"])
    subprocess.run(["mount", "-t", "tmpfs", "-o", settings, "tmpfs", folder], check=True)


def drill(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run the drill; give its figures."""
    from img2prompt_cache.cache.reader import Cache

    said, disk = folder / "said.txt", folder / "disk"
    command = ["extract", *arguments, "--cache"]
    assert run([*command, str(folder / "whole")], said) == 0, said.read_text()
    expected = parts_of(folder / "whole")
    sizes = [path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file()]
    pages = sum(-(-size // 4096) * 4096 for size in sizes)
    largest = max(map(len, expected.values()))
    as_root = os.geteuid() == 0
    told: Counter[str] = Counter()
    kept = []
    for step in range(STEPS):
        share = 1.25 * step / (STEPS - 1)  # beyond what the files take, folders do
        disk.mkdir()
        try:
            if as_root:
                mount(disk, max(4096, int(share * pages)))
            cache = disk / "cache"
            code = run([*command, str(cache)], said, None if as_root else int(share * largest))
            last = said.read_text().splitlines()[-1]
            if code == 0:
                told["it fitted"] += 1
            else:
                assert (code, last[:7]) == (1, "error: "), said.read_text()
                assert "(unexpected;" not in last, last
                assert "Traceback" not in said.read_text(), said.read_text()
                told[last.partition(" (")[0].replace(str(disk), "DIR")] += 1
            if (cache / "cache.json").exists():
                assert Cache(cache).verify() == []
                kept.append(sum(len(column.parts) for column in Cache(cache).manifest.columns))
            if as_root:
                mount(disk, 4 * pages, "remount")
            assert run([*command, str(cache)], said) == 0, said.read_text()
            assert parts_of(cache) == expected, f"step {step} differs"
            assert not list(cache.rglob("*.tmp"))
        finally:
            if as_root:
                subprocess.run(["umount", disk], check=False)
            shutil.rmtree(disk)
    return {
        "disk": "tmpfs" if as_root else "limit on the size of a file",
        "steps": STEPS,
        "bytes_of_the_whole": pages,
        "said": dict(told),
        "parts_kept": sorted(set(kept)),
        "resumed_to_identity": STEPS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder to work in")
    parser.add_argument("--save", action="store_true", help="write the figures to results/")
    parser.add_argument("arguments", nargs="+", help="what extract takes, behind --")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    preload()
    found = drill(options.arguments, options.folder)
    print(json.dumps(found))
    if options.save:
        from system import save

        save("disk_full", found)


if __name__ == "__main__":
    main()
