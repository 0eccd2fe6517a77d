"""Weights & Biases: a run for each entry."""

from __future__ import annotations

import os
import re
from pathlib import Path

from img2prompt_cache.runs.tracking.entry import Entry

PROJECT = "img2prompt-cache"
"""Unless the user's WANDB_PROJECT names another."""


def write_wandb(entry: Entry, home: Path) -> str:
    """Write a run offline, with its files in `home` or WANDB_DIR; to a server if WANDB_MODE says so."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when the library is imported
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=entry.name,
        group=entry.group,
        job_type=entry.kind,
        config=dict(entry.settings),
        dir=os.environ.get("WANDB_DIR", str(home)),
        mode=None if os.environ.get("WANDB_MODE") else "offline",
        reinit="create_new",
        settings=wandb.Settings(
            silent=True, console="off", save_code=False, disable_git=True, x_save_requirements=False
        ),
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
        return run.url or str(Path(run.dir).parent)
