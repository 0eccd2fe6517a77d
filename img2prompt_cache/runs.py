"""Runs: fitted heads with their settings, metrics, history and provenance, each in a folder."""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.heads import make_head
from img2prompt_cache.parts import hash_file, sync_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head

SCHEMA = 1
FOLDER = "runs"
INFO, HEAD, HISTORY = "run.json", "head.safetensors", "history.csv"
VALIDATION, VALIDATION_ROWS = "validation.npy", "validation.csv"


@dataclass(frozen=True, slots=True)
class Use:
    """A column that a run was fitted on: its spec, width, fingerprint, and the revision of its weights."""

    spec: str
    width: int
    fingerprint: dict[str, str]
    revision: str = ""


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
        `strategy`, `seed`, `digest`, `train`, `validation`, `groups`.
    metrics : dict
        On the hold-out: `cosine`, `mse`, `n`, `r@1`, `r@5`.
    seconds : float
        Wall time of fitting, all of it.
    refit : bool
        Whether the saved head was fitted again on all rows.
    rows : int
        Rows the saved head was fitted on.
    cache : str
        The cache, as an absolute path; a run inside its cache finds it there first.
    created : str
        UTC, ISO 8601.
    versions : dict of str to str
        Of the libraries that made it.
    head_sha256 : str
        Of `head.safetensors`.
    """

    head: str
    settings: dict[str, Any]
    features: tuple[Use, ...]
    target: Use
    split: dict[str, Any]
    metrics: dict[str, float]
    seconds: float
    refit: bool
    rows: int
    cache: str
    created: str
    versions: dict[str, str] = field(default_factory=dict)
    head_sha256: str = ""

    @property
    def blocks(self) -> tuple[int, ...]:
        """Widths of the joined backbones."""
        return tuple(use.width for use in self.features)


@dataclass(frozen=True, slots=True)
class Validation:
    """What a run said about its hold-out: ids, groups (n,), predictions float32 (n, t), cosine (n,)."""

    ids: list[str]
    groups: NDArray[np.int64]
    predictions: NDArray[np.float32]
    cosine: NDArray[np.float64]


def save_run(folder: Path, run: Run, head: Head, history: list[dict[str, float]], held: Validation) -> None:
    """Write a run as a whole: the folder appears complete or not at all, an old one goes only then.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    from safetensors.numpy import save_file

    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        save_file(
            {name: np.ascontiguousarray(value) for name, value in head.state().items()}, temporary / HEAD
        )
        np.save(temporary / VALIDATION, held.predictions, allow_pickle=False)
        rows = zip(held.ids, held.groups.tolist(), held.cosine.tolist(), strict=True)
        _write_csv(temporary / VALIDATION_ROWS, ["imgId", "group", "cosine"], rows)
        names = list(dict.fromkeys(key for record in history for key in record))
        _write_csv(
            temporary / HISTORY, names, ([record.get(name, "") for name in names] for record in history)
        )
        data = {"schema": SCHEMA, **asdict(run), "head_sha256": hash_file(temporary / HEAD)}
        (temporary / INFO).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if folder.exists():
            folder.rename(temporary.with_suffix(".old"))
        temporary.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise Img2PromptError(f"run {folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(temporary.with_suffix(".old"), ignore_errors=True)


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
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"no run in {folder}: it has no {INFO}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Img2PromptError(f"{path} cannot be read: {error}") from None
    try:
        schema = data.pop("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise Img2PromptError(
                f"{path} has schema {schema}; this version reads up to {SCHEMA}. Upgrade img2prompt-cache."
            )
        uses = tuple(Use(**use) for use in data.pop("features"))
        run = Run(features=uses, target=Use(**data.pop("target")), **data)
        _ = [float(run.metrics[name]) for name in ("cosine", "mse", "n")], str(run.split["digest"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Img2PromptError(f"{path} does not describe a run: {error}") from None
    return run


def load_head(folder: Path, run: Run) -> Head:
    """Read the fitted head of a run.

    Raises
    ------
    Img2PromptError
        If `head.safetensors` is missing, not the one that was saved, or does not fit the head.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / HEAD
    try:
        if hash_file(path) != run.head_sha256:
            raise Img2PromptError(f"{path} is not the file that was saved with this run; fit it again")
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise Img2PromptError(f"{path} cannot be read: {error}; fit the run again") from None
    return make_head(run.head, **run.settings).load_state(state)


def load_validation(folder: Path) -> Validation:
    """Read what a run said about its hold-out.

    Raises
    ------
    Img2PromptError
        If the files are missing or do not fit each other.
    """
    try:
        with (folder / VALIDATION_ROWS).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        predictions = np.load(folder / VALIDATION, allow_pickle=False)
        if predictions.ndim != 2 or len(predictions) != len(rows):
            raise ValueError(f"{len(rows)} ids for predictions of shape {predictions.shape}")
        return Validation(
            ids=[row["imgId"] for row in rows],
            groups=np.array([int(row["group"]) for row in rows], np.int64),
            predictions=predictions.astype(np.float32),
            cosine=np.array([float(row["cosine"]) for row in rows]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Img2PromptError(
            f"the validation predictions of {folder} cannot be read: {error}; fit it again"
        ) from None


def new_folder(cache: Path, head: str, specs: list[str]) -> Path:
    """Name a new run readably: head, backbones, a number; e.g. ``ridge-resnet50+vit_base-01``."""
    base = f"{head}-{'+'.join(_short(spec) for spec in specs)}"[:100]
    runs = cache / FOLDER
    taken = {path.name for path in runs.iterdir()} if runs.is_dir() else set()
    number = next(n for n in range(1, len(taken) + 2) if f"{base}-{n:02d}" not in taken)
    return runs / f"{base}-{number:02d}"


def _short(spec: str) -> str:
    name = spec.partition(":")[2].partition("@")[0].rstrip("/")
    name = name.rpartition("/")[2] if "-dir:" in name or "-hub:" in name else name.partition("/")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name.partition(".")[0]).strip("-") or "model"


def find_runs(cache: Path) -> list[Path]:
    """List the runs of a cache, oldest first."""
    runs = cache / FOLDER
    if not runs.is_dir():
        return []
    found = [path for path in runs.iterdir() if (path / INFO).is_file() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: ((path / INFO).stat().st_mtime_ns, path.name))


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


def _write_csv(path: Path, header: list[str], rows: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
