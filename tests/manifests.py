"""A manifest to be written, read and damaged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from img2prompt_cache.cache.manifest import Block, Column, Manifest, Part, column_folder, part_file

SPECS = ("timm:resnet50.a1_in1k", "open_clip:ViT-B-32/laion2b")
SHA = "0123456789abcdef" * 4


def column(kind: Any, spec: str, shape: tuple[int, ...], dtype: str, parts: int) -> Column:
    folder = column_folder(kind, spec)
    recorded = tuple(
        Part(part_file(folder, n), 8 * n, 8 * n + 8, 10_000, SHA, (8 * n + 1,) if spec else (), 0)
        for n in range(parts)
    )
    return Column(kind, spec, folder, shape, dtype, {"weights": "é"} if spec else {}, "", recorded)


BLOCKS = (Block("layer4 mean+max", 20), Block("names", 12, standardise=False))
MANIFEST = Manifest(
    part_rows=8,
    batch_size=4,
    columns=(
        column("rows", "", (), "text", 3),
        replace(column("features", SPECS[0], (32,), "float16", 3), blocks=BLOCKS),
        column("features", SPECS[1], (16,), "float16", 1),
        column("targets", "st:all-MiniLM-L6-v2", (16,), "float32", 3),
    ),
    sources=({"root": "images", "format": "table"},),
    preset={"name": "packaged", "reason": "asked for"},
    extra=("style", "seed 2"),
)
