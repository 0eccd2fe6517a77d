"""Whether fine-tuning beats its probe: `finetune` against ridge on the same backbone and hold-out.

    python benchmarks/probe.py CACHE [--features packaged:efficientnet-lite0] [--blocks 2]

CACHE holds the backbone's trunk, and views if they are to be trained on. Runs that are there from an
interrupted call are taken as they are. Prints both scores and the paired difference; writes
`results/probe.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ladder import run
from system import save


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("--features", default="packaged:efficientnet-lite0")
    parser.add_argument("--blocks", type=int, default=2)
    options = parser.parse_args()
    sides = {"probe": ("ridge", "--no-leakage-gap"), "tuned": ("finetune", "--blocks", options.blocks)}
    for name, (head, *more) in sides.items():
        folder = options.cache / "runs" / name
        if not folder.exists():
            run(
                "fit", "--head", head, "--features", options.features, *more, "--cache", options.cache,
                "--run", folder,
            )  # fmt: skip
    rows = run("compare", *sides, "--cache", options.cache, "--against", "probe")["runs"]
    for row in rows:
        print(row["run"], f"{row['cosine']:.4f}", row["ci95"], row["difference"], f"{row['seconds']:.0f} s")
    print(save("probe", {"features": options.features, "blocks": options.blocks, "runs": rows}))


if __name__ == "__main__":
    main()
