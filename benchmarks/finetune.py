"""Fine-tuning from the trunk column against the same training from image files: seconds an epoch.

    python benchmarks/finetune.py DATA --cache DIR [--blocks 1] [--rows 512]

DATA is a folder with images and `prompts.csv`; DIR a cache of it, made where it is not there. Both sides
train the same tail on the same rows in the same order with the same code, in float32 and in bfloat16. From
files a batch is read and decoded in threads and sent through the frozen trunk, in the tail's precision and
inference mode, while the batch before it is trained on. Prints a Markdown table and writes
`results/finetune.json`; backbones that an earlier call measured stay in it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from system import load, save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_target, choose_trunk
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.heads.finetune import Finetune
from img2prompt_cache.heads.neural.finetuning import Finetuning
from img2prompt_cache.heads.neural.tail_network import TailNetwork, pool
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.tail import load_tail
from img2prompt_cache.models.devices import cores
from img2prompt_cache.sources import open_source

BACKBONES = ("packaged:efficientnet-lite0", "packaged:vit-small-saliency")
POOL = ThreadPoolExecutor(cores())


class Files:
    """Images as rows of a trunk: indexing selects, reading decodes and goes through the frozen trunk."""

    def __init__(self, source: Any, uris: np.ndarray, backbone: Backbone, k: int) -> None:
        self.source, self.uris, self.backbone, self.k = source, uris, backbone, k

    def __len__(self) -> int:
        return len(self.uris)

    def __getitem__(self, index: Any) -> Files:
        return Files(self.source, self.uris[index], self.backbone, self.k)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        def pixels(uri: str) -> np.ndarray:
            return self.backbone.geometry.apply(decode(self.source.read(uri)))

        batch = torch.from_numpy(np.stack(list(POOL.map(pixels, self.uris))))
        return self.backbone.read(batch, {f"k{self.k}"})[f"k{self.k}"].astype(np.float32)


def extract(data: Path, cache: Path, blocks: int) -> None:
    command = [sys.executable, "-m", "img2prompt_cache.cli", "extract", data, "--cache", cache]
    named = [part for spec in BACKBONES for part in ("--backbone", spec)]
    subprocess.run([*map(str, command), *named, "--trunk", str(blocks)], check=True)


def epochs(head: Finetune, tail: Any, probe: Ridge, X: Any, y: np.ndarray, count: int) -> tuple[float, float]:
    """Train epochs; give the seconds of the fastest, and the loss of the first."""
    net, seconds, losses = Finetuning(head, tail, probe, X, y), [], []
    for _ in range(count):
        started = time.perf_counter()
        losses.append(net.train())
        seconds.append(time.perf_counter() - started)
    return min(seconds), losses[0]


def measure(spec: str, cache: Cache, source: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    trunk = choose_trunk(cache, (spec,), options.blocks)
    data = load_dataset(cache, (trunk,), choose_target(cache, None))
    some = np.arange(min(options.rows, len(data.rows)))
    X, y = data.X[some], data.y[some]
    uris = np.array(cache.text("uri")["uri"])[data.rows[some]]
    found = []
    for precision in ("fp32", "bf16"):
        head = Finetune(blocks=options.blocks, views=False, precision=precision)
        tail = load_tail(trunk, options.blocks)
        probe = Ridge(alpha=1.0).fit(np.array(pool(TailNetwork(tail, y.shape[1]), X)), y)
        cached, loss = epochs(head, tail, probe, X, y, options.epochs)
        files = Files(source, uris, load_backbone(spec, precision=precision), options.blocks)  # type: ignore[arg-type]
        # The column may be cut earlier than that; the images never are.
        straight = load_tail(trunk, options.blocks)
        straight.middle.blocks = torch.nn.ModuleList()
        seconds, other = epochs(head, straight, probe, files, y, options.epochs)
        found.append(
            {
                "backbone": spec,
                "blocks": options.blocks,
                "rows": len(some),
                "precision": precision,
                "seconds from the column": cached,
                "seconds from files": seconds,
                "ratio": seconds / cached,
                "loss from the column": loss,
                "loss from files": other,
            }
        )
        print(
            f"| {spec} | {options.blocks} | {precision} | {cached / len(some) * 1000:.1f} | "
            f"{seconds / len(some) * 1000:.1f} | {seconds / cached:.1f} | {loss:.4f} | {other:.4f} |",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=2, help="of which the fastest counts")
    parser.add_argument("--backbone", nargs="*", default=BACKBONES)
    parser.add_argument("--name", default="finetune", help="of the file of results")
    options = parser.parse_args()
    if not options.cache.exists():
        extract(options.data, options.cache, options.blocks)
    cache, source = Cache(options.cache), open_source(options.data)
    print(
        "| backbone | blocks | precision | column, ms/row | files, ms/row | ratio | loss | loss from files |"
    )
    print("|---|---|---|---|---|---|---|---|")
    earlier = [row for row in load(options.name) or [] if row["backbone"] not in options.backbone]
    print(
        save(
            options.name,
            earlier + [row for spec in options.backbone for row in measure(spec, cache, source, options)],
        )
    )


if __name__ == "__main__":
    main()
