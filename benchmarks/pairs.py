"""One setting against another on the same rows: views cached or not, the wide head twice or 16 times as wide.

    python benchmarks/pairs.py CACHE [CACHE ...] [--pairs views,wide]

The caches are those of `ladder.py`. `views` fits mlp on the backbone that has cached views, by 5 folds;
`wide` fits wide-mlp on the joined features on one hold-out, at most 40 epochs. Runs that are there from an
interrupted call are taken as they are. Prints a Markdown table of differences, paired, with intervals by
bootstrap over groups, and adds to `results/pairs.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ladder import FOLDS, TUNED, run
from system import load, save

VIEWS = ("--head", "mlp", "--features", f"packaged:{TUNED}", "--folds", FOLDS)
WIDE = ("--head", "wide-mlp", "--no-refit", "--max-epochs", 40)
PAIRS = {
    "views": {f"views-{each}": (*VIEWS, "--set", f"views={each}") for each in ("false", "true")},
    "wide": {f"wide-{each}": (*WIDE, "--set", f"expand={each}") for each in (2, 16)},
}
"""For each pair its runs, the one to be compared with first."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("caches", type=Path, nargs="+")
    parser.add_argument("--pairs", default=",".join(PAIRS), help="which, with commas between")
    options = parser.parse_args()
    figures = load("pairs") or {}
    print("| data | run | cosine | against | difference | 95 % | seconds |")
    print(f"|{'---|' * 7}")
    for pair in options.pairs.split(","):
        for cache in options.caches:
            for name, arguments in PAIRS[pair].items():
                if not (cache / "runs" / name).exists():
                    run(
                        "fit",
                        *arguments,
                        "--no-leakage-gap",
                        "--cache",
                        cache,
                        "--run",
                        cache / "runs" / name,
                    )
            base, other = PAIRS[pair]
            compared = run("compare", base, other, "--against", base, "--cache", cache)["runs"]
            figures.setdefault(pair, {})[cache.name] = compared
            (row,) = (row for row in compared if row["run"] == other)
            low, high = row["difference"]["ci95"]
            print(
                f"| {cache.name} | {other} | {row['cosine']:.4f} | {base} | "
                f"{row['difference']['cosine']:+.4f} | {low:+.4f} to {high:+.4f} | {row['seconds']:.0f} |",
                flush=True,
            )
    print(save("pairs", figures))


if __name__ == "__main__":
    main()
