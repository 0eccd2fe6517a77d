"""Numbers and names as text."""

from __future__ import annotations

import re

from img2prompt_cache.errors import UsageError
from img2prompt_cache.prediction.outputs.base import Columns, Prompts, Vectors


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


def chosen_prompts(rows: int, prompts: Prompts | None, columns: Columns) -> list[tuple[str, float]]:
    """Choose the prompt of each row, with its cosine to the prediction: the composed one, else the nearest.

    Raises
    ------
    UsageError
        If a row has neither.
    """
    if "composed" in columns:
        composed, cosines = columns["composed"], columns["composed_cosine"]
        return [(composed[row], float(cosines[row])) for row in range(rows)]
    if prompts is None or not all(prompts):
        raise UsageError(
            "what is written are prompts, and there are none; give `top_k` of 1 or more, or `compose=True`",
            parameter="top_k",
        )
    return [(nearest[0][0], float(nearest[0][1])) for nearest in prompts]
