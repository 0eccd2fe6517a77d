"""The run file: `run.json`, what a run says of itself."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.errors import Img2PromptError, UsageError, check

SCHEMA = 1
INFO = "run.json"
METRICS = ("cosine", "mse", "n", "r@1", "r@5")
LATER = ("r@10", "floor", "optimism")
"""Metrics that older runs lack, and `optimism` may be None in any."""


@dataclass(frozen=True, slots=True)
class Run:
    """What `run.json` says.

    Attributes
    ----------
    head : str
        Name of the head.
    settings : dict
        Arguments of its constructor, with what fitting chose put in.
    features : tuple of UsedColumn
        Backbones, in the order they are joined.
    target : UsedColumn
        The encoder.
    split : dict
        `strategy`, `seed`, `folds`, `digest`, `held_digest`, `train`, `validation`, `groups`, `straddling`.
    metrics : dict
        On the hold-out, or over all folds: `cosine`, its interval `ci95`, `mse`, `n`, `r@1`, `r@5`, `r@10`,
        `floor` (the cosine of the mean head), `optimism` (what a random split adds; None if not tried).
    seconds : float
        Wall time of fitting, all of it but what `optimism` takes.
    refit : bool
        Whether the saved head was fitted again on all rows.
    rows : int
        Rows the saved head was fitted on.
    cache : str
        The cache, as an absolute path; a run inside its cache finds it there first.
    created : str
        UTC, ISO 8601.
    measured : dict
        What fitting the saved head found out about itself; see `Head.measured`.
    versions : dict of str to str
        Of the libraries that made it.
    head_sha256 : str
        Of `head.safetensors`.
    parameters : int or None
        How many values were fitted and saved; None in older runs, as in what follows.
    predict_rows_per_second : float or None
        Of predicting the held-out rows from cached features.
    fold_metrics : list of dict
        `cosine`, `n` and what was `chosen` for each fold; empty for a hold-out.
    """

    head: str
    settings: dict[str, Any]
    features: tuple[UsedColumn, ...]
    target: UsedColumn
    split: dict[str, Any]
    metrics: dict[str, Any]
    seconds: float
    refit: bool
    rows: int
    cache: str
    created: str
    measured: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    head_sha256: str = ""
    parameters: int | None = None
    predict_rows_per_second: float | None = None
    fold_metrics: list[dict[str, Any]] = field(default_factory=list)

    @property
    def widths(self) -> tuple[int, ...]:
        """How many values a row of each column has."""
        return tuple(use.width for use in self.features)


def save_info(folder: Path, run: Run) -> None:
    """Write `run.json`."""
    text = json.dumps({"schema": SCHEMA, **asdict(run)}, indent=1, allow_nan=False)
    (folder / INFO).write_text(text + "\n", encoding="utf-8")


def load_run(folder: Path) -> Run:
    """Read and check `run.json`.

    Raises
    ------
    UsageError
        If there is no run here.
    Img2PromptError
        If it is damaged, or of a newer schema.
    """
    path = folder / INFO
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
        return _run(data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Img2PromptError(f"{path} does not describe a run: {error}; fit it again") from None


def _run(data: dict[str, Any]) -> Run:
    uses = data.pop("features")
    check(isinstance(uses, list) and bool(uses), "it has no features")
    run = Run(features=tuple(_use(use) for use in uses), target=_use(data.pop("target")), **data)
    for name in ("head", "cache", "created", "head_sha256"):
        check(isinstance(getattr(run, name), str), f"{name} is not text")
    for name in ("settings", "split", "metrics", "measured", "versions"):
        check(isinstance(getattr(run, name), dict), f"{name} is not an object")
    for name in ("digest", "strategy"):
        check(isinstance(run.split[name], str), f"the split's {name} is not text")
    for name in ("seed", "train", "validation"):
        check(type(run.split[name]) is int, f"the split's {name} is not a whole number")
    for name, value in {name: run.metrics[name] for name in METRICS}.items():
        check(_is_number(value), f"{name} is not a number")
    later = {name: run.metrics.get(name) for name in LATER}
    later |= {name: getattr(run, name) for name in ("parameters", "predict_rows_per_second")}
    for name, value in later.items():
        check(value is None or _is_number(value), f"{name} is not a number")
    inside = run.metrics.get("ci95")
    pair = isinstance(inside, list) and len(inside) == 2 and all(map(_is_number, inside))
    check(inside is None or pair, "ci95 is not two numbers")
    check(_is_number(run.seconds), "seconds is not a number")
    check(isinstance(run.fold_metrics, list), "fold_metrics is not a list")
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
