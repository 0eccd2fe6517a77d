"""Caches of made-up features, and the command line run in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from img2prompt_cache.cache.manifest import Column, Manifest, Part, column_folder, part_file
from img2prompt_cache.cache.manifest_file import save_manifest
from img2prompt_cache.cache.parts import PartFile
from img2prompt_cache.cache.reader import FAILED, OK
from img2prompt_cache.cli import main
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.sources.several import MORE_PROMPTS, pack

ONE, OTHER, ENCODER = "timm:one", "timm:other", "st:some/all-MiniLM-L6-v2"
WIDTH = 384

SETTINGS: dict[str, dict[str, Any]] = {
    "mean": {},
    "nearest": {},
    "knn": {"k": 3, "power": 2.0},
    "ridge": {"alpha": 1.0},
    "mlp": {"hidden": (8,), "epochs": 2},
}
"""Heads that the fixture `fitted` has a run of."""


def make_cache(
    folder: Path,
    rows: int = 60,
    *,
    groups: int = 20,
    part_rows: int = 16,
    without_prompt: Sequence[int] = (),
    failed: Sequence[int] = (),
    nan: Sequence[int] = (),
    fold: Sequence[str] | None = None,
    further: Sequence[int] | None = None,
    seed: int = 0,
    encoder: str = ENCODER,
) -> Path:
    """Write a cache of two backbones whose features tell the targets, in `groups` groups of prompts.

    `nan` rows hold NaN in the features of `ONE`; `fold` is a column of the user's own; `further` says how
    many prompts each row has beside its first. Caches of different seeds share no image and no prompt.
    """
    rng = np.random.default_rng(seed)
    counts = list(further or [0] * rows)
    centres = rng.normal(size=(groups, WIDTH))
    group = np.arange(rows) % groups
    targets = unit(centres[group] + 0.02 * rng.normal(size=(rows, WIDTH)))
    noise = 0.1 * rng.normal(size=(rows, 24))
    features = {ONE: (targets @ rng.normal(size=(WIDTH, 24)) + noise).astype(np.float16)}
    features[OTHER] = rng.normal(size=(rows, 8)).astype(np.float16)
    features[ONE][list(nan)] = np.nan
    missing = {*without_prompt}
    targets[list(missing)] = np.nan
    text = {
        "imgId": [f"i{row:03d}" for row in range(rows)],
        "uri": [f"i{row:03d}.png" for row in range(rows)],
        "prompt": ["" if row in missing else f"prompt {row} of {row % groups}" for row in range(rows)],
        "sha256": [f"{1000 * seed + row:064x}" for row in range(rows)],
        "status": [FAILED if row in failed else OK for row in range(rows)],
        "reason": ["not an image" if row in failed else "" for row in range(rows)],
        **({"extra.fold": list(fold)} if fold is not None else {}),
    }
    if further is not None:
        text["extra.more_prompts"] = [
            pack(f"prompt {row} of {row % groups}, again {n}" for n in range(count))
            for row, count in enumerate(counts)
        ]
    columns = [make_column(folder, "rows", "", text, rows, part_rows)]
    columns += [
        make_column(folder, "features", spec, values, rows, part_rows) for spec, values in features.items()
    ]
    columns.append(make_column(folder, "targets", encoder, targets, rows, part_rows))
    if further is not None:
        others = targets[:, None] + 0.04 * rng.normal(size=(rows, max(counts), WIDTH))
        others = unit(others.reshape(-1, WIDTH)).reshape(others.shape)
        others[np.arange(max(counts)) >= np.array(counts)[:, None]] = np.nan
        columns.append(make_column(folder, "more_targets", encoder, others, rows, part_rows))
    save_manifest(
        folder,
        Manifest(
            part_rows=part_rows,
            batch_size=4,
            columns=tuple(columns),
            sources=({"root": str(folder / "images"), "format": "table"},),
            extra=(*([] if fold is None else ["fold"]), *([] if further is None else [MORE_PROMPTS])),
        ),
    )
    return folder


def make_column(folder: Path, kind: Any, spec: str, values: Any, rows: int, part_rows: int) -> Column:
    """Write the parts of a column, which is not yet in the manifest."""
    home = column_folder(kind, spec)
    shape = () if kind == "rows" else values.shape[1:]
    dtype = "text" if kind == "rows" else values.dtype.name
    parts = []
    for number, start in enumerate(range(0, rows, part_rows)):
        stop = min(start + part_rows, rows)
        name = part_file(home, number)
        with PartFile(folder / name) as file:
            if kind == "rows":
                for key, column in values.items():
                    file.write_text(key, column[start:stop])
            else:
                file.create("values", (stop - start, *shape), dtype)
                file.write("values", 0, values[start:stop])
            size, sha256 = file.commit()
        parts.append(Part(name, start, stop, size, sha256))
    fingerprint = {} if kind == "rows" else {"weights": f"sha256:{spec}", "precision": "fp32"}
    return Column(kind, spec, home, shape, dtype, fingerprint, parts=tuple(parts))


@dataclass(frozen=True)
class Said:
    """What a command said and the code it ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout; strict, so that NaN is none."""
        return json.loads(self.out, parse_constant=pytest.fail)

    def refused(self, code: int, *words: str) -> None:
        """Check that it failed as it should: its code, one line on stderr with these words, no output."""
        assert self.code == code, self.err
        assert self.out == ""
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1, self.err
        assert "(unexpected;" not in self.err
        for word in words:
            assert word in self.err


class Cli:
    """The command line, run in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: object) -> Said:
        self._capture.readouterr()
        code = main.run([str(argument) for argument in arguments])
        return Said(code, *self._capture.readouterr())


def edit_run(folder: Path, **values: object) -> None:
    """Change values of run.json; a dotted name goes into an object."""
    path = folder / "run.json"
    data = json.loads(path.read_text())
    for name, value in values.items():
        *outer, last = name.split("__")
        inner: Any = data
        for key in outer:
            inner = inner[int(key)] if key.isdigit() else inner[key]
        if value is KeyError:
            del inner[last]
        else:
            inner[last] = value
    path.write_text(json.dumps(data))
