"""The ladder from floor to blend: every head on every data set by grouped 5-fold, with intervals.

    python benchmarks/ladder.py DATA [DATA ...] --caches DIR [--heads mean,knn,ridge]

DATA is a folder with images and `prompts.csv`; its cache, with the packaged backbones and a trunk of the
cheaper one, and its runs lie in DIR/NAME. What is there from an interrupted call is taken as it is. Each head
is fitted on the joined features, those of `ALONE` on each backbone, too, and finetune on the trunk; the blend
takes all that `BLENDED` names. Differences are from the joined ridge, paired, with intervals by bootstrap
over groups; that of finetune also from ridge on the same backbone, its probe, and those of the members from
the blend. Prints a Markdown table and adds to `results/ladder-NAME.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from system import TWO_BACKBONES, load, save

HEADS = ("mean", "nearest", "knn", "ridge", "kernel", "linear", "mlp", "wide-mlp", "finetune", "blend")
ALONE = ("knn", "ridge")
TUNED = "efficientnet-lite0"
TRUNK = ("--backbone", f"packaged:{TUNED}", "--trunk", 2, "--views", 2)
BLENDED = ("knn-joined", f"knn-{TUNED}", "ridge-joined", "kernel-joined", "mlp-joined", f"finetune-{TUNED}")
SETTINGS = {"wide-mlp": ("--set", "expand=2")}
"""Sixteen times as wide takes too long here."""
FOLDS = 5


def run(*arguments: object) -> Any:
    """Run one command as a user would and give its JSON."""
    command = [sys.executable, "-m", "img2prompt_cache.cli", *map(str, arguments), "--json"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    for row in found.get("runs", ()):  # names say enough where paths are another machine's
        row["run"] = Path(row["run"]).name
    return found


def fit(cache: Path, head: str, features: str, specs: list[str]) -> float | None:
    """Fit one head unless its run is there; give the seconds that the whole command took."""
    name = f"{head}-{features}"
    folder = cache / "runs" / name
    if folder.exists():
        return None
    if head == "blend":
        options: tuple[object, ...] = ("--members", ",".join(BLENDED))
    else:
        named = [spec for spec in specs if features in ("joined", spec.rpartition(":")[2])]
        options = (
            "--features",
            ",".join(named),
            "--folds",
            FOLDS,
            "--no-leakage-gap",
            *SETTINGS.get(head, ()),
        )
    started = time.perf_counter()
    run("fit", "--head", head, *options, "--cache", cache, "--run", folder)
    return time.perf_counter() - started


def measure(data: Path, cache: Path, heads: list[str]) -> dict[str, Any]:
    """Bring the cache up to date, fit what is not there, compare all."""
    name = f"ladder-{data.name}"
    found: dict[str, Any] = load(name) or {}
    started = time.perf_counter()
    extracted = run("extract", data, "--cache", cache, *TWO_BACKBONES)
    if extracted["new"]:
        found["extract_s"] = time.perf_counter() - started
        save(name, found)
    if "finetune" in heads:
        started = time.perf_counter()
        run("extract", data, "--cache", cache, *TRUNK)
        found.setdefault("trunk_s", time.perf_counter() - started)
    specs = [c["name"] for c in run("info", "--cache", cache)["columns"] if c["kind"] == "features"]
    seconds = found.setdefault("command_s", {})
    for head in heads:
        alone = [spec.rpartition(":")[2] for spec in specs] if head in ALONE else []
        for features in [TUNED] if head == "finetune" else ["joined", *alone]:
            took = fit(cache, head, features, specs)
            if took is not None:
                seconds[f"{head}-{features}"] = took
                save(name, found)
    found["pairs"] = extracted["ok"]
    found["compare"] = run("compare", "--cache", cache, "--against", "ridge-joined")
    for key, other in (("below_blend", "blend-joined"), ("over_probe", f"ridge-{TUNED}")):
        if (cache / "runs" / other).exists():
            rows = run("compare", "--cache", cache, "--against", other)["runs"]
            found[key] = {row["run"]: row["difference"] for row in rows if row["difference"]}
    save(name, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--caches", type=Path, required=True, help="where caches are made, or found")
    parser.add_argument("--heads", default=",".join(HEADS), help="which heads, with commas between")
    options = parser.parse_args()
    print("| data | run | cosine | 95 % | over ridge | 95 % | MSE | R@1 | R@5 | fit, s |")
    print(f"|{'---|' * 10}")
    for data in options.data:
        found = measure(data, options.caches / data.name, options.heads.split(","))
        for row in sorted(found["compare"]["runs"], key=lambda row: float(row["cosine"])):
            name = row["run"]
            low, high = row["ci95"] or (float("nan"),) * 2
            told = row["difference"]
            less, more = (told or {}).get("ci95") or (float("nan"),) * 2
            print(
                f"| {data.name} | {name} | {row['cosine']:.4f} | {low:.4f} … {high:.4f} | "
                + (f"{told['cosine']:+.4f} | {less:+.4f} … {more:+.4f} | " if told else "– | – | ")
                + f"{row['mse']:.5f} | {row['r@1']:.2f} | {row['r@5']:.2f} | {row['seconds']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
