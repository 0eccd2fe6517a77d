"""Runs: fitted heads with their settings, metrics, history and provenance, each in a folder."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.heads import make_head
from img2prompt_cache.manifest import NAME as MANIFEST
from img2prompt_cache.parts import hash_file, sync_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head

SCHEMA = 1
FOLDER = "runs"
INFO, HEAD, HISTORY = "run.json", "head.safetensors", "history.csv"
VALIDATION, VALIDATION_ROWS = "validation.npy", "validation.csv"
FILES = (INFO, HEAD, HISTORY, VALIDATION, VALIDATION_ROWS)
METRICS = ("cosine", "mse", "n", "r@1", "r@5")
LATER = ("r@10", "floor", "optimism")
"""Metrics that older runs lack, and `optimism` may be None in any."""


@dataclass(frozen=True, slots=True)
class Use:
    """A column that a run was fitted on: its spec, width, fingerprint, and the revision of its weights.

    `shape` is that of one row where it has more than one axis; its product is the width.
    """

    spec: str
    width: int
    fingerprint: dict[str, str]
    revision: str = ""
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What `run.json` says.

    Attributes
    ----------
    head : str
        Name of the head.
    settings : dict
        Arguments of its constructor, with what fitting chose put in.
    features : tuple of Use
        Backbones, in the order they are joined.
    target : Use
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
    features: tuple[Use, ...]
    target: Use
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
    def blocks(self) -> tuple[int, ...]:
        """Widths of the joined backbones."""
        return tuple(use.width for use in self.features)


@dataclass(frozen=True, slots=True)
class Validation:
    """What a run said of held-out rows: ids; predictions, float32 (n, t); groups, cosine and fold, (n,)."""

    ids: list[str]
    groups: NDArray[np.int64]
    predictions: NDArray[np.float32]
    cosine: NDArray[np.float64]
    fold: NDArray[np.int64]


def claim(folder: Path, *, overwrite: bool = False) -> None:
    """Make the folder of a run before the work is done: it can be written, and nobody else takes it.

    Parameters
    ----------
    folder : pathlib.Path
        Given back with `release` if nothing came of it.
    overwrite : bool
        Take it also where a run is there already; that one stays until `save_run` replaces it.

    Raises
    ------
    UsageError
        If it exists and is not to be overwritten, or holds anything but a run.
    Img2PromptError
        If it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        if not os.path.lexists(folder):
            raise Img2PromptError(f"run {folder} cannot be written: {error.strerror or error}") from None
        if not overwrite:
            raise UsageError(
                f"--run {folder} exists; give --overwrite to replace it, or another name"
            ) from None
        _require_run(folder)


def release(folder: Path) -> None:
    """Remove the folder that `claim` made if it is still empty."""
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def claimed(
    folder: Path | None, cache: Path, head: str, specs: list[str], *, overwrite: bool = False
) -> Iterator[Path]:
    """Hold the folder of a run while it is made: the one named, or one with a readable name in the cache.

    Raises
    ------
    UsageError, Img2PromptError
        As `claim`.
    """
    if folder is None:
        folder = new_folder(cache, head, specs)
    else:
        claim(folder, overwrite=overwrite)
    try:
        yield folder
    finally:
        release(folder)


def _require_run(folder: Path) -> None:
    """Refuse to replace what is no run: the user may have named the wrong folder."""
    strangers = [folder.name] if not folder.is_dir() or folder.is_symlink() else []
    strangers = strangers or [path.name for path in folder.iterdir() if path.name not in FILES]
    if strangers:
        raise UsageError(
            f"--run {folder} holds {strangers[0]}, which is no part of a run; name another folder"
        )
    if not os.access(folder.parent, os.W_OK):
        raise Img2PromptError(f"run {folder} cannot be written: the folder {folder.parent} is read-only")


def save_run(folder: Path, run: Run, head: Head, history: list[dict[str, float]], held: Validation) -> None:
    """Write a run as a whole: the folder appears complete or not at all, an old one goes only then.

    Raises
    ------
    Img2PromptError
        If the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    temporary = folder.with_name(f".{secrets.token_hex(8)}.tmp")
    old = temporary.with_suffix(".old")
    try:
        temporary.mkdir(parents=True)
        save_file(
            {name: np.ascontiguousarray(value) for name, value in head.state().items()}, temporary / HEAD
        )
        np.save(temporary / VALIDATION, held.predictions, allow_pickle=False)
        columns = (held.groups.tolist(), held.cosine.tolist(), held.fold.tolist())
        rows = zip(held.ids, *columns, strict=True)
        _write_csv(temporary / VALIDATION_ROWS, ["imgId", "group", "cosine", "fold"], rows)
        names = list(dict.fromkeys(key for record in history for key in record))
        _write_csv(
            temporary / HISTORY, names, ([record.get(name, "") for name in names] for record in history)
        )
        data = {"schema": SCHEMA, **asdict(run), "head_sha256": hash_file(temporary / HEAD)}
        text = json.dumps(data, indent=1, allow_nan=False)
        (temporary / INFO).write_text(text + "\n", encoding="utf-8")
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        sync_folder(folder.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Img2PromptError(f"run {folder} cannot be written: {reason}") from error
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


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
        _check(type(schema) is int and schema == SCHEMA, "it has no schema")
        return _run(data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Img2PromptError(f"{path} does not describe a run: {error}; fit it again") from None


def _run(data: dict[str, Any]) -> Run:
    uses = data.pop("features")
    _check(isinstance(uses, list) and bool(uses), "it has no features")
    run = Run(features=tuple(_use(use) for use in uses), target=_use(data.pop("target")), **data)
    for name in ("head", "cache", "created", "head_sha256"):
        _check(isinstance(getattr(run, name), str), f"{name} is not text")
    for name in ("settings", "split", "metrics", "measured", "versions"):
        _check(isinstance(getattr(run, name), dict), f"{name} is not an object")
    for name in ("digest", "strategy"):
        _check(isinstance(run.split[name], str), f"the split's {name} is not text")
    for name in ("seed", "train", "validation"):
        _check(type(run.split[name]) is int, f"the split's {name} is not a whole number")
    for name, value in {name: run.metrics[name] for name in METRICS}.items():
        _check(_is_number(value), f"{name} is not a number")
    later = {name: run.metrics.get(name) for name in LATER}
    later |= {name: getattr(run, name) for name in ("parameters", "predict_rows_per_second")}
    for name, value in later.items():
        _check(value is None or _is_number(value), f"{name} is not a number")
    inside = run.metrics.get("ci95")
    pair = isinstance(inside, list) and len(inside) == 2 and all(map(_is_number, inside))
    _check(inside is None or pair, "ci95 is not two numbers")
    _check(_is_number(run.seconds), "seconds is not a number")
    _check(isinstance(run.fold_metrics, list), "fold_metrics is not a list")
    return run


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _use(data: dict[str, Any]) -> Use:
    use = Use(**{**data, "shape": tuple(data.get("shape", ()))})
    texts = [use.spec, use.revision, *use.fingerprint, *use.fingerprint.values()]
    _check(all(isinstance(text, str) for text in texts), "a column is not described in text")
    _check(type(use.width) is int and use.width > 0, "a column has no width")
    sides = all(type(side) is int and side > 0 for side in use.shape)
    _check(
        not use.shape or (sides and math.prod(use.shape) == use.width), "a column's shape is not its width"
    )
    return use


def _check(condition: bool, why: str) -> None:
    if not condition:
        raise ValueError(why)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def load_head(folder: Path, run: Run) -> Head:
    """Read the fitted head of a run.

    Raises
    ------
    Img2PromptError
        If `head.safetensors` is missing, not the one that was saved, or does not fit what the run says.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / HEAD
    try:
        if hash_file(path) != run.head_sha256:
            raise Img2PromptError(f"{path} is not the file that was saved with this run; fit it again")
        state = load_file(path)
        head = make_head(run.head, **run.settings).bind(run.features).load_state(state)
        row = run.features[0].shape or (sum(run.blocks),)
        shape = head.predict(np.zeros((1, *row), np.float32)).shape
    except UsageError as error:
        raise Img2PromptError(f"{folder / INFO} is not what was saved: {error}; fit the run again") from None
    except OSError as error:
        raise Img2PromptError(f"{path} cannot be read: {error.strerror}; fit the run again") from None
    except (SafetensorError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Img2PromptError(f"{path} does not fit {INFO}: {error}; fit the run again") from None
    if shape != (1, run.target.width):
        raise Img2PromptError(f"{path} predicts {shape[1]} values, not {run.target.width}; fit the run again")
    return head


def load_validation(folder: Path, run: Run | None = None) -> Validation:
    """Read what a run said about its hold-out.

    Parameters
    ----------
    folder : pathlib.Path
    run : Run, optional
        What its `run.json` says, to check that the predictions are those that were scored.

    Raises
    ------
    Img2PromptError
        If the files are missing, or do not fit each other or the run.
    """
    try:
        held = _read_validation(folder)
        if run is not None:
            _check(len(held.ids) == run.metrics["n"], f"{len(held.ids)} rows, {INFO} says {run.metrics['n']}")
            _check(held.predictions.shape[1] == run.target.width, f"they are not {run.target.width} wide")
            away = abs(float(held.cosine.mean()) - run.metrics["cosine"])
            _check(away < 1e-6, f"their mean cosine is not the one in {INFO}")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise Img2PromptError(
            f"the validation predictions of {folder} cannot be read: {error}; fit it again"
        ) from None
    return held


def _read_validation(folder: Path) -> Validation:
    with (folder / VALIDATION_ROWS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    predictions = np.load(folder / VALIDATION, allow_pickle=False)
    _check(
        predictions.ndim == 2 and len(predictions) == len(rows),
        f"{len(rows)} ids for predictions of shape {predictions.shape}",
    )
    held = Validation(
        ids=[row["imgId"] for row in rows],
        groups=np.array([int(row["group"]) for row in rows], np.int64),
        predictions=predictions.astype(np.float32),
        cosine=np.array([float(row["cosine"]) for row in rows]),
        fold=np.array([int(row.get("fold", 0)) for row in rows], np.int64),  # older runs have only one
    )
    _check(len({*held.ids}) == len(held.ids), "an imgId stands twice")
    finite = np.isfinite(held.cosine).all() and np.isfinite(held.predictions).all()
    _check(bool(finite), "they hold NaN or infinity")
    return held


def new_folder(cache: Path, head: str, specs: list[str]) -> Path:
    """Claim a folder with a readable name: head, backbones, a number; e.g. ``ridge-resnet50+vit_base-01``."""
    base = f"{head}-{'+'.join(short_name(spec) for spec in specs)}"[:100]
    for number in itertools.count(1):
        folder = cache / FOLDER / f"{base}-{number:02d}"
        with suppress(UsageError):
            claim(folder)
            break
    return folder


def short_name(spec: str) -> str:
    """Shorten a spec to what a person calls it: ``timm:resnet50.a1_in1k`` → ``resnet50``."""
    name = spec.partition(":")[2].partition("@")[0].rstrip("/")
    name = name.rpartition("/")[2] if "-dir:" in name or "-hub:" in name else name.partition("/")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name.partition(".")[0]).strip("-") or "model"


def find_runs(cache: Path) -> list[Path]:
    """List the runs of a cache, oldest first."""
    runs = cache / FOLDER
    if not runs.is_dir():
        return []
    found = [path for path in runs.iterdir() if (path / INFO).is_file() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: (_created(path), path.name))


def _created(folder: Path) -> str:
    # Not the file's time: copying a cache to another machine changes that.
    try:
        return load_run(folder).created
    except Img2PromptError:
        return ""


def resolve_run(name: str, cache: Path) -> Path:
    """Find a run by its folder, or by its name inside a cache.

    Raises
    ------
    UsageError
        If there is no such run.
    """
    for folder in (Path(name), cache / FOLDER / name):
        if (folder / INFO).is_file():
            return folder
    names = [path.name for path in find_runs(cache)]
    if not names:
        raise UsageError(
            f"no run {name!r}, and none in {cache / FOLDER}; make one with `img2prompt-cache fit`"
        )
    raise unknown("run", name, names)


def cache_of(folder: Path, run: Run) -> Path | None:
    """Find the cache that a run was fitted on: the one it lies in, else where it was then; None if gone."""
    places = (folder.resolve().parent.parent, Path(run.cache))
    return next((place for place in places if (place / MANIFEST).is_file()), None)


def _write_csv(path: Path, header: list[str], rows: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
