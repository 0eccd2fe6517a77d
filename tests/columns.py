"""Columns of a cache written without a pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from img2prompt_cache.cache.manifest import Column, Part, part_file
from img2prompt_cache.cache.parts import PartFile
from img2prompt_cache.cache.quantise import quantise

PART = 8


def write(
    folder: Path, kind: Any, spec: str, values: np.ndarray, dtype: str = "float16", part: int = PART
) -> Column:
    home = f"{kind}/{spec}"
    column = Column(kind, spec, home, values.shape[1:], dtype, {})
    parts = []
    for number, start in enumerate(range(0, len(values), part)):
        piece = values[start : start + part]
        data = {"values": piece}
        if dtype == "int8":
            data = dict(zip(("values", "scale"), quantise(piece, 2 if kind == "views" else 1), strict=True))
        with PartFile(folder / part_file(home, number)) as file:
            for name, (shape, stored) in column.datasets.items():
                file.create(name, (len(piece), *shape), stored)
                file.write(name, 0, data[name])
            size, sha256 = file.commit()
        parts.append(Part(part_file(home, number), start, start + len(piece), size, sha256))
    return Column(kind, spec, home, values.shape[1:], dtype, {}, parts=tuple(parts))
