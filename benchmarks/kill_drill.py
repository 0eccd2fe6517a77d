"""Kill an extract at random moments, go on each time, and compare with one that nobody disturbed.

    python benchmarks/kill_drill.py --kills 100 --folder DIR [--signal INT] -- SOURCE --backbone SPEC

Behind `--` stands what `extract` takes, without `--cache`. Everything is imported once and each pass is a
fork from there, so a kill falls into loading models, reading, computing, writing or recording, not into
imports. After each kill `verify` must find every recorded part whole; a pass that ends first is set aside,
and a new one begins. At the end every folder must hold the same bytes as the undisturbed one. With
`--signal INT` or `TERM` a pass must end by itself with exit code 130, its last line saying how to go on, and
no traceback.
Prints one JSON object; `--save` writes it to `results/kill_drill-<signal>.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

RESUMES = "Run the same command again to go on."


def preload() -> None:
    """Import once what every pass needs."""
    import filelock
    import open_clip
    import sentence_transformers
    import timm
    import torch

    from img2prompt_cache.extraction import engines, extract
    from img2prompt_cache.models.backbones import open_clip_models, timm_models
    from img2prompt_cache.models.encoders import base

    kept = (filelock, open_clip, sentence_transformers, timm, torch, base, engines, extract)
    assert all((*kept, open_clip_models, timm_models))


def start(arguments: list[str], said: Path) -> int:
    """Begin a pass in a fork; give its process id."""
    from img2prompt_cache.cli import main

    pid = os.fork()
    if pid == 0:
        os.setsid()
        with said.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv[1:] = arguments
        code = 1
        try:
            main.main()
        except SystemExit as done:
            code = int(done.code or 0)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def parts_of(folder: Path) -> dict[str, bytes]:
    """Every part of a cache, and what its manifest says."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/**/*.h5"))}
    return {**found, "cache.json": (folder / "cache.json").read_bytes()}


def drill(
    arguments: list[str], folder: Path, kills: int, number: signal.Signals, seed: int
) -> dict[str, Any]:
    """Run the drill; give its figures."""
    from img2prompt_cache.cache.reader import Cache

    said = folder / "said.txt"

    def command(cache: Path) -> list[str]:
        return ["extract", *arguments, "--cache", str(cache)]

    def whole(cache: Path) -> float:
        began = time.monotonic()
        _, status = os.waitpid(start(command(cache), said), 0)
        assert status == 0, said.read_text()[-2000:]
        return time.monotonic() - began

    began = time.time()
    seconds = whole(folder / "whole")
    expected = parts_of(folder / "whole")
    first = min(path.stat().st_mtime for path in (folder / "whole").glob("*/**/*.h5")) - began
    moments = random.Random(seed)
    killed, finished, latency, manifests = 0, [], [], 0
    cache = folder / "killed"
    while killed < kills:
        pid = start(command(cache), said)
        # One in four falls anywhere, the others when parts are being written.
        time.sleep(moments.uniform(0 if killed % 4 == 0 else 0.9 * first, seconds))
        sent = time.monotonic()
        os.kill(pid, number)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            finished.append(cache.rename(folder / f"finished-{len(finished)}"))
            continue
        killed += 1
        if number == signal.SIGKILL:
            assert code == -9, said.read_text()[-2000:]
        else:
            told = said.read_text()
            assert code == 130, (code, told[-2000:])
            assert told.rstrip().endswith(RESUMES), told[-2000:]
            assert "Traceback" not in told, told
            assert "Exception ignored" not in told, told
            latency.append(time.monotonic() - sent)
        if (cache / "cache.json").exists():
            manifests += 1
            assert Cache(cache).verify() == []
    whole(cache)
    same = 0
    for done in (cache, *finished):
        assert Cache(done).verify() == []
        assert Cache(done).unrecorded() == []
        assert not list(done.rglob("*.tmp"))
        assert parts_of(done) == expected, f"{done} differs"
        same += 1
        shutil.rmtree(done)
    columns = Cache(folder / "whole").manifest.columns
    return {
        "signal": number.name,
        "killed": killed,
        "verified_after_a_kill": manifests,
        "caches_compared": same,
        "identical": True,
        "parts": sum(len(column.parts) for column in columns),
        "columns": [column.folder.partition("/")[0] for column in columns],
        "undisturbed_seconds": round(seconds, 2),
        "first_part_after_seconds": round(first, 2),
        **({"slowest_stop_seconds": round(max(latency), 2)} if latency else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder to work in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write the figures to results/")
    parser.add_argument("arguments", nargs="+", help="what extract takes, behind --")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    preload()
    number = signal.Signals[f"SIG{options.signal}"]
    found = drill(options.arguments, options.folder, options.kills, number, options.seed)
    print(json.dumps(found))
    if options.save:
        from system import save

        save(f"kill_drill-{options.signal}", found)


if __name__ == "__main__":
    main()
