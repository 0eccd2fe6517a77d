"""Weights & Biases: a run for each entry."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from img2prompt_cache.runs.tracking.entry import Entry

PROJECT = "img2prompt-cache"
"""Unless the user's WANDB_PROJECT names another."""


def write_wandb(entries: Iterable[Entry], home: Path) -> str:
    """Write runs with their files in `home` or WANDB_DIR: offline, unless WANDB_MODE says otherwise."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    places = []
    for entry in entries:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=entry.name,
            group=entry.group,
            job_type=entry.kind,
            config=dict(entry.settings),
            dir=os.environ.get("WANDB_DIR", str(home)),
            mode=None if os.environ.get("WANDB_MODE") else "offline",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
        )
        with run:
            for step, values in enumerate(entry.curves):
                run.log({f"history/{name}": value for name, value in values.items()}, step=step)
            run.summary.update(dict(entry.metrics))
            if entry.files:
                artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", entry.name), type=entry.kind)
                for file in entry.files:
                    artifact.add_file(str(file))
                run.log_artifact(artifact)
            places.append(run.url or str(Path(run.dir).parent))
    return places[-1]
