"""What leakage flatters: heads on a grouped and on a random hold-out, per backbone and joined.

    python benchmarks/heads.py DATA [DATA ...] --caches DIR

DATA is a folder with images and `prompts.csv`. Prints a Markdown table and writes `results/heads.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from system import TWO_BACKBONES, save

from img2prompt_cache.runs.run import load_run

HEADS = ("mean", "nearest", "knn", "ridge", "mlp")


def run(*arguments: object) -> dict[str, Any]:
    """Run one command as a user would and give its JSON."""
    command = [sys.executable, "-m", "img2prompt_cache.cli", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(data: Path, cache: Path, heads: list[str]) -> list[dict[str, Any]]:
    """Extract once, then fit every head on each backbone and on all of them, on both splits.

    A run that is there from an interrupted call is taken as it is.
    """
    extracted = run("extract", data, "--cache", cache, *TWO_BACKBONES)
    specs = [c["name"] for c in run("info", "--cache", cache)["columns"] if c["kind"] == "features"]
    rows = []
    for features in [*specs, ",".join(specs)]:
        for head in heads:
            if head == "mean" and features != specs[0]:
                continue
            row: dict[str, Any] = {
                "data": data.name,
                "pairs": extracted["ok"],
                "features": "–" if head == "mean" else "joined" if "," in features else features,
                "head": head,
            }
            for split in ("group", "random"):
                folder = cache / "runs" / f"{split}-{head}-{row['features'].rpartition(':')[2]}"
                if not folder.exists():
                    run(
                        "fit", "--head", head, "--features", features, "--split", split, "--cache", cache,
                        "--run", folder,
                    )  # fmt: skip
                fitted = load_run(folder)
                row[split] = {**fitted.metrics, "seconds": fitted.seconds}
            rows.append(row)
            print(
                f"| {row['data']} | {head} | {row['features']} | {row['group']['cosine']:.3f} | "
                f"{row['group']['mse']:.5f} | {row['group']['r@1']:.2f} | {row['random']['cosine']:.3f} | "
                f"{row['group']['seconds']:.1f} |",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--caches", type=Path, required=True, help="where caches are made, or found")
    parser.add_argument("--name", default="heads", help="of the file of results")
    parser.add_argument("--heads", default=",".join(HEADS), help="which heads, with commas between")
    options = parser.parse_args()
    print("| data | head | features | cosine | mse | R@1 | cosine, random split | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    rows = [
        row
        for data in options.data
        for row in measure(data, options.caches / data.name, options.heads.split(","))
    ]
    print(save(options.name, rows))


if __name__ == "__main__":
    main()
