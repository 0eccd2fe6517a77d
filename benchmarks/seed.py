"""The student project's comparison done again: its three systems, loss curves, what its settings do.

    python benchmarks/seed.py CACHE [--trials 24]

CACHE holds features and targets of an image set. Each `seed-…` head takes the backbone it is made for, or
what stands in for it; beside them the mean, and ridge on the same features. All are scored by grouped
5-fold. Then the project's random search, scored as `tune` does, with the share of the variance that each
setting explains. Prints Markdown tables and writes `results/seed.json`; `docs/pictures.py curves` draws the
curves.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from ladder import FOLDS, run
from system import save

SYSTEMS = ("seed-resnet50", "seed-vit", "seed-tuned-resnet")


def curve(folder: Path) -> list[dict[str, float]]:
    """Read the loss curve of a run; of several trials, the one that ended best."""
    with (folder / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    trials: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        record = {name: float(row[name]) for name in ("epoch", "train_loss", "val_loss", "val_cosine")}
        trials.setdefault(row.get("trial", ""), []).append(record)
    return min(trials.values(), key=lambda trial: trial[-1]["val_loss"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("--trials", type=int, default=24)
    options = parser.parse_args()
    cache: Path = options.cache
    names, curves = [], {}
    for head in ("mean", *SYSTEMS):
        folder = cache / "runs" / f"seed-{head.removeprefix('seed-')}"
        if not folder.exists():
            run(
                "fit", "--head", head, "--folds", FOLDS, "--no-leakage-gap", "--cache", cache, "--run", folder
            )
        names.append(folder.name)
        if head in SYSTEMS:
            curves[head] = curve(folder)
    for system in ("resnet50", "vit"):
        spec = run("compare", f"seed-{system}", "--cache", cache)["runs"][0]["features"][0]
        folder = cache / "runs" / f"seed-ridge-{system}"
        if not folder.exists():
            run(
                "fit", "--head", "ridge", "--features", spec, "--folds", FOLDS, "--no-leakage-gap",
                "--cache", cache, "--run", folder,
            )  # fmt: skip
        names.append(folder.name)
    compared = run("compare", *names, "--cache", cache, "--against", "seed-resnet50")
    print("| run | on | cosine | 95 % | MSE | over seed-resnet50 | fit, s |")
    print(f"|{'---|' * 7}")
    for row in compared["runs"]:
        low, high = row["ci95"]
        told = row["difference"] or {"cosine": 0.0}
        print(
            f"| {row['run']} | {row['features'][0]} | {row['cosine']:.4f} "
            f"| {low:.4f} … {high:.4f} | {row['mse']:.5f} | {told['cosine']:+.4f} | {row['seconds']:.1f} |",
            flush=True,
        )
    tuned = run(
        "tune", "--head", "seed-resnet50", "--space", "seed", "--trials", options.trials, "--no-prune",
        "--cache", cache, "--no-fit",
    )  # fmt: skip
    figures: dict[str, Any] = {"compare": compared, "curves": curves}
    figures["tune"] = {name: tuned[name] for name in ("trials", "best", "influence")}
    for setting in tuned["influence"]:
        print(setting["setting"], setting["main_effect"], setting["chance"])
    print(save("seed", figures))


if __name__ == "__main__":
    main()
