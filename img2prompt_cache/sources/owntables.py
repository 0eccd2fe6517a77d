"""Tables that this package writes itself: they lie beside images, but none is a table of prompts.

Predictions have the nearest known prompts of each image, which were not what made it; read as pairs, they
would be learned from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.csvfile import csv_names, detect_dialect
from img2prompt_cache.sources.jsonfile import read_document, read_lines

FURTHER_COLUMNS = ("expected", "flagged", "composed", "composed_cosine")
"""Columns of predictions beside `imgId`, `embedding` and `prompts`."""

_PREDICTION = frozenset({"imgId", "embedding", "prompts", *FURTHER_COLUMNS})
_NEAREST = frozenset({"prompt", "cosine"})
_KEPT = frozenset({"imgId", "keep", "prompt_group", "image_group"})
_HEAD = 1 << 20


def is_own_table(path: Path) -> bool:
    """Check whether a table has the columns of a file of predictions or of kept rows.

    Parameters
    ----------
    path : pathlib.Path
        A CSV, JSON Lines, JSON or parquet file. Only its head is read, but JSON with cosines is read whole.

    Returns
    -------
    bool
        False also if it cannot be read.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return _is_prediction_schema(pq.read_schema(path))
        if suffix == ".jsonl":
            return _is_prediction(next(read_lines(path), {}))
        if suffix == ".json":
            return _may_state_cosines(path) and any(map(_is_prediction, read_document(path)[:1]))
        if suffix == ".csv":
            header = csv_names(path, detect_dialect(path, ()))
            names = header[:2] == ["row", "imgId"] and {*header[2:]} <= {*FURTHER_COLUMNS}
            ours = header == ["imgId_eId", "val"] or header[:3] == ["image", "prompt", "similarity"]
            return names or ours or {"imgId", "keep"} <= set(header) <= _KEPT
    except (UsageError, pa.ArrowException, OSError, UnicodeDecodeError):
        pass
    return False


def _may_state_cosines(path: Path) -> bool:
    with path.open("rb") as file:
        return b'"cosine"' in file.read(_HEAD)


def _is_prediction(row: Mapping[str, object]) -> bool:
    nearest = row.get("prompts")
    records = nearest if isinstance(nearest, list) else []
    listed = bool(records) and all(isinstance(one, dict) and one.keys() == _NEAREST for one in records)
    return listed or ("embedding" in row and "imgId" in row and row.keys() <= _PREDICTION)


def _is_prediction_schema(schema: pa.Schema) -> bool:
    names = set(schema.names)
    kind = schema.field("prompts").type if schema.names.count("prompts") == 1 else None
    records = kind.value_type if kind is not None and pa.types.is_list(kind) else None
    listed = records is not None and pa.types.is_struct(records) and {f.name for f in records} == _NEAREST
    return listed or ({"imgId", "embedding"} <= names <= _PREDICTION)
