"""The file `run.json`: a run's record written, read back and checked."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.errors import Img2PromptError, UsageError, check
from img2prompt_cache.files import restore, write_atomically
from img2prompt_cache.runs.record import RunRecord
from img2prompt_cache.runs.typed_json import parse_json, read_as

SCHEMA = 1
INFO = "run.json"
METRICS = ("cosine", "mse", "n", "r@1", "r@5")
SPLIT = ("strategy", "seed", "digest", "train", "validation")
LATER = ("r@10", "bank", "groups", "effective_groups", "floor", "leakage_gap")
"""Metrics that older runs lack, and `leakage_gap` may be None in any."""
ON_MEANS = ("cosine_mean_prompt", "ci95_mean_prompt")
"""Metrics of runs on rows with several prompts."""

MOST_BYTES, WIDEST = 1 << 26, 1 << 24
"""The most bytes of a `run.json`, and the most values in a row of a column: far more than there ever are."""


def save_record(folder: Path, record: RunRecord) -> None:
    """Write `run.json`."""
    (folder / INFO).write_text(_text(record), encoding="utf-8")


def replace_record(folder: Path, record: RunRecord) -> None:
    """Write `run.json` anew; whoever reads it meanwhile finds the old one or the new one.

    Raises
    ------
    OSError
        If it cannot be written; the old one is kept.
    """
    write_atomically(folder / INFO, _text(record).encode())


def _text(record: RunRecord) -> str:
    values = {each.name: getattr(record, each.name) for each in fields(RunRecord)}
    values |= {"features": [asdict(column) for column in record.features], "target": asdict(record.target)}
    text = json.dumps({"schema": SCHEMA, **values}, indent=1, allow_nan=False)
    return f"{text}\n"


def load_record(folder: Path) -> RunRecord:
    """Read and check `run.json`.

    Every value has the type that `RunRecord` declares. Keys that it does not declare are passed over: a later
    version may add some without a new schema.

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
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        check(len(text) <= MOST_BYTES, f"it has more than {MOST_BYTES:,} bytes")
        data = parse_json(text.decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"no run in {folder}: it has no {INFO}") from None
    except (OSError, ValueError) as error:
        raise Img2PromptError(f"{path} cannot be read: {error}; fit the run again") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is int and schema > SCHEMA:
        raise Img2PromptError(
            f"{path} has schema {schema}; this version reads up to {SCHEMA}. Upgrade img2prompt-cache."
        )
    try:
        check(type(schema) is int and schema == SCHEMA, "it has no schema")
        return _record(data)
    except ValueError as error:
        raise Img2PromptError(f"{path} does not describe a run: {error}; fit it again") from None


def _record(data: dict[str, Any]) -> RunRecord:
    metrics = data.get("metrics")
    if isinstance(metrics, dict) and "optimism" in metrics:  # its name until version 0.2
        metrics["leakage_gap"] = metrics.pop("optimism")
    run = read_as(RunRecord, data)
    for where, names in {"split": SPLIT, "metrics": METRICS}.items():
        for name in names:
            check(name in getattr(run, where), f"{where}.{name} is missing")
    for name, pair in (
        ("ci95", run.metrics.get("ci95")),
        ("leakage_gap_ci95", run.metrics.get("leakage_gap_ci95")),
        ("beyond_best_ci95", run.metrics.get("beyond_best_ci95")),
        ("ci95_mean_prompt", run.metrics.get("ci95_mean_prompt")),
    ):
        check(len(pair or (0, 0)) == 2, f"metrics.{name} is not two numbers")
    counts = {
        "rows": run.rows,
        "updates": run.updates,
        "metrics.n": run.metrics["n"],
        "split.train": run.split["train"],
    }
    counts |= {f"split.{name}": run.split[name] for name in ("seed", "validation")}
    for where, count in counts.items():
        check(count >= 0, f"{where} is below 0")
    check(bool(run.features), "it has no features")
    return replace(run, features=tuple(map(_used, run.features)), target=_used(run.target))


def _used(use: UsedColumn) -> UsedColumn:
    check(0 < use.width <= WIDEST, f"{use.spec} has no width, or one beyond {WIDEST:,}")
    whole = replace(use, shape=use.shape or (use.width,))
    fits = min(whole.shape) > 0 and math.prod(whole.shape) == use.width
    check(fits, f"the shape of {use.spec} is not its width")
    return whole
