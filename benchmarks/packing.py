"""What packed linear layers gain: forward passes in bfloat16 with them and without.

    python benchmarks/packing.py --work DIR [--rounds 3]

Random weights of real architectures, kept in DIR; batches of 32, one thread a core, sides in turn, medians.
Beside them the rate of one matrix product in float32 and in bfloat16. Prints a Markdown table and writes
`results/packing.json`.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from limit import BATCH, gemm_rate, in_lanes, local
from system import save

from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.rewrites import packed_linear

NAMES = ("vit_b_16", "clip_b_32")
BATCHES = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    specs = {name: local(options.work / "models", name) for name in NAMES}
    packed = {name: load_backbone(spec, precision="bf16") for name, spec in specs.items()}
    with patch.object(packed_linear, "_can_pack", lambda: False):
        plain = {name: load_backbone(spec, precision="bf16") for name, spec in specs.items()}
    rounds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for kind in (torch.float32, torch.bfloat16):
            rounds.setdefault(f"product in {kind}, Gflop/s", []).append(gemm_rate(kind))
        for name in NAMES:
            for label, side in (("plain", plain), ("packed", packed)):
                backbone = side[name]
                pixels = torch.zeros(BATCH, *backbone.geometry.crop, 3, dtype=torch.uint8)
                work = lambda _, backbone=backbone, pixels=pixels: backbone.encode(pixels)  # noqa: E731
                rate = BATCHES * BATCH / in_lanes(work, BATCHES)
                rounds.setdefault(f"{name}, {label}, images/s", []).append(rate)
    median: dict[str, Any] = {name: statistics.median(each) for name, each in rounds.items()}
    print("| | median | rounds |\n|---|---|---|")
    for name, each in rounds.items():
        print(f"| {name} | {median[name]:.1f} | {', '.join(f'{value:.1f}' for value in each)} |")
    print(save("packing", {"rounds": rounds, "median": median}))


if __name__ == "__main__":
    main()
