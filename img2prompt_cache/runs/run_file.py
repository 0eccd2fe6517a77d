"""The file `run.json`: a run's record written, read back and checked."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.errors import Img2PromptError, UsageError, check
from img2prompt_cache.files import restore
from img2prompt_cache.runs.record import RunRecord

SCHEMA = 1
INFO = "run.json"
METRICS = ("cosine", "mse", "n", "r@1", "r@5")
LATER = ("r@10", "bank", "floor", "leakage_gap")
"""Metrics that older runs lack, and `leakage_gap` may be None in any."""


def save_record(folder: Path, record: RunRecord) -> None:
    """Write `run.json`."""
    values = {each.name: getattr(record, each.name) for each in fields(RunRecord)}
    values |= {"features": [asdict(column) for column in record.features], "target": asdict(record.target)}
    text = json.dumps({"schema": SCHEMA, **values}, indent=1, allow_nan=False)
    (folder / INFO).write_text(text + "\n", encoding="utf-8")


def load_record(folder: Path) -> RunRecord:
    """Read and check `run.json`.

    Raises
    ------
    UsageError
        If there is no run here.
    Img2PromptError
        If it is damaged, or of a newer schema.
    """
    path = folder / INFO
    restore(folder)
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"no run in {folder}: it has no {INFO}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Img2PromptError(f"{path} cannot be read: {error}; fit the run again") from None
    schema = data.pop("schema", None) if isinstance(data, dict) else None
    if type(schema) is int and schema > SCHEMA:
        raise Img2PromptError(
            f"{path} has schema {schema}; this version reads up to {SCHEMA}. Upgrade img2prompt-cache."
        )
    try:
        check(type(schema) is int and schema == SCHEMA, "it has no schema")
        return _record(data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Img2PromptError(f"{path} does not describe a run: {error}; fit it again") from None


def _record(data: dict[str, Any]) -> RunRecord:
    uses = data.pop("features")
    check(isinstance(uses, list) and bool(uses), "it has no features")
    run = RunRecord(features=tuple(_use(use) for use in uses), target=_use(data.pop("target")), **data)
    for name in ("head", "cache", "created", "head_sha256"):
        check(isinstance(getattr(run, name), str), f"{name} is not text")
    for name in ("settings", "split", "metrics", "measured", "versions"):
        check(isinstance(getattr(run, name), dict), f"{name} is not an object")
    split: dict[str, Any] = data["split"]
    metrics: dict[str, Any] = data["metrics"]
    if "optimism" in metrics:  # its name until version 0.2
        metrics["leakage_gap"] = metrics.pop("optimism")
    for name in ("digest", "strategy"):
        check(isinstance(split[name], str), f"the split's {name} is not text")
    for name in ("seed", "train", "validation"):
        check(type(split[name]) is int, f"the split's {name} is not a whole number")
    for name, value in {name: metrics[name] for name in METRICS}.items():
        check(_is_number(value), f"{name} is not a number")
    later = {name: metrics.get(name) for name in LATER}
    later |= {name: getattr(run, name) for name in ("parameters", "predict_rows_per_second")}
    for name, value in later.items():
        check(value is None or _is_number(value), f"{name} is not a number")
    inside = metrics.get("ci95")
    pair = isinstance(inside, list) and len(inside) == 2 and all(map(_is_number, inside))
    check(inside is None or pair, "ci95 is not two numbers")
    check(_is_number(run.seconds), "seconds is not a number")
    check(isinstance(run.fold_metrics, list), "fold_metrics is not a list")
    check(type(run.updates) is int and run.updates >= 0, "updates is not a whole number")
    return run


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _use(data: dict[str, Any]) -> UsedColumn:
    use = UsedColumn(**{**data, "shape": tuple(data.get("shape") or (data["width"],))})
    texts = [use.spec, use.revision, *use.fingerprint, *use.fingerprint.values()]
    check(all(isinstance(text, str) for text in texts), "a column is not described in text")
    check(type(use.width) is int and use.width > 0, "a column has no width")
    sides = all(type(side) is int and side > 0 for side in use.shape)
    check(sides and math.prod(use.shape) == use.width, "a column's shape is not its width")
    return use


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
