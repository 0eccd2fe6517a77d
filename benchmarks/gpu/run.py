"""One prepared run on a machine with a GPU: what extraction, heads and searches take there, in one JSON.

    python -m pip download --no-deps -r benchmarks/gpu/wheels.txt -d WHEELS    # where there is a network
    python benchmarks/gpu/run.py --out gpu.json [--wheels WHEELS] [--small] [--minutes 8]

The machine needs torch, timm, transformers and sentence-transformers, and no network: what it lacks is
installed from WHEELS into a temporary folder, the package runs from this checkout, the weights are random and
the images drawn. Each section is a process of its own with a time limit, so that one that fails or hangs
costs the others nothing: its error stands in the JSON in its place, with the figures it had until then. The
JSON is written after every section; at the end the figures are printed. `--small` tries the whole script in a
few minutes on any machine, with tiny models; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BENCHMARKS, ROOT = HERE.parent, HERE.parent.parent
SECTIONS = {
    "inputs": 75,
    "machine": 20,
    "passes": 200,
    "rival": 120,
    "targets": 30,
    "networks": 120,
    "closed_forms": 75,
    "forward": 120,
    "lanes": 90,
}
"""Modules beside this one, in the order they run, and the most seconds each may take."""


def install(wheels: Path, place: Path) -> dict[str, str]:
    """Unpack wheels; those of clip-retrieval with stand-ins for what its inference imports and never uses."""
    started = time.perf_counter()
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place)
    if (place / "clip_retrieval").exists():
        (place / "clip_retrieval" / "__init__.py").write_text("")
        (place / "wandb.py").write_text("")
        if importlib.util.find_spec("pkg_resources") is None:  # newer setuptools have none
            (place / "pkg_resources.py").write_text("import packaging.version\n")
    names = ", ".join(sorted(wheel.name for wheel in wheels.glob("*.whl")))
    return {"wheels": names, "s": f"{time.perf_counter() - started:.1f}"}


def run_section(name: str, limit: float, options: argparse.Namespace, environment: dict[str, str]) -> Any:
    """Run one section in a process of its own; its figures, and its error if it had one."""
    path = options.work / f"{name}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "run.py"), "--section", name, "--out", str(path)]
    command += ["--work", str(options.work), *(["--small"] if options.small else [])]
    started, error = time.perf_counter(), ""
    log = options.work / f"{name}.log"
    print(f"\n== {name}, at most {limit:.0f} s", flush=True)
    with log.open("w") as stderr:
        process = subprocess.Popen(command, env=environment, stderr=stderr, start_new_session=True)
        try:
            if process.wait(limit):
                error = log.read_text(errors="replace").strip()[-2500:] or f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            error = f"stopped after {limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started
            process.wait()
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found["section_s"] = time.perf_counter() - started
    if error:
        found["error"] = error
        print(f"{name}: {error}", flush=True)
    return found


def show(name: str, value: Any, depth: int = 0) -> None:
    """Print figures as an indented list."""
    if isinstance(value, dict):
        flat = all(not isinstance(each, dict) for each in value.values())
        if flat and depth:
            told = ", ".join(f"{key} {_short(each)}" for key, each in value.items())
            print(f"{'  ' * depth}{name}: {told}")
            return
        print(f"{'  ' * depth}{name}")
        for key, each in value.items():
            show(key, each, depth + 1)
    else:
        print(f"{'  ' * depth}{name}: {_short(value)}")


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)[:200]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install from")
    parser.add_argument("--work", type=Path, help="for images, checkpoints and caches; temporary if absent")
    parser.add_argument("--small", action="store_true", help="tiny models and few images")
    parser.add_argument("--minutes", type=float, default=8.0, help="most that all sections may take")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.section:
        from setting import Notes, Setting

        module = importlib.import_module(options.section)
        module.measure(Setting(options.work, options.small), Notes(options.out))
        return
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"--only: there are no sections {', '.join(sorted(unknown))}")
    deadline = time.monotonic() + 60 * options.minutes
    temporary = options.work is None
    options.work = (options.work or Path(tempfile.mkdtemp())).resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    site = options.work / "site"
    environment = dict(os.environ)
    paths = [str(ROOT), str(BENCHMARKS), str(HERE), str(site)]
    environment["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [environment.get("PYTHONPATH")])])
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "PYTHONUNBUFFERED": "1"}
    results: dict[str, Any] = {"small": options.small}
    try:
        if options.wheels:
            results["install"] = install(options.wheels, site)
        for name in chosen:
            limit = min(SECTIONS[name] * (3 if options.small else 1), deadline - time.monotonic())
            if limit < 5:
                results[name] = {"error": "no time was left for it"}
            else:
                results[name] = run_section(name, limit, options, environment)
            options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    finally:
        if temporary:
            shutil.rmtree(options.work, ignore_errors=True)
    print()
    for name, found in results.items():
        show(name, found)
    failed = [name for name in chosen if "error" in results[name]]
    print(
        f"\n{options.out}: {len(chosen) - len(failed)} of {len(chosen)} sections whole"
        + (f"; not {', '.join(failed)}" if failed else "")
    )


if __name__ == "__main__":
    main()
