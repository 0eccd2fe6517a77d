"""Numbers and names as text."""

from __future__ import annotations

import re

from img2prompt_cache.prediction.outputs.base import Vectors


def quoted(field: str) -> str:
    """Quote a CSV field where it must be."""
    # csv.writer would leave a lone carriage return bare on Python 3.11.
    return '"' + field.replace('"', '""') + '"' if re.search('[",\r\n]', field) else field


def shortest(vectors: Vectors) -> list[list[str]]:
    """Write each value with the fewest digits that read back as the same float32."""
    import pyarrow as pa

    texts: list[str] = pa.array(vectors.ravel()).cast(pa.string()).to_pylist()
    width = vectors.shape[1]
    return [texts[start : start + width] for start in range(0, len(texts), width)]
