"""TensorBoard: an event file for each entry."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from img2prompt_cache.runs.tracking.entry import Entry


def write_tensorboard(entries: Iterable[Entry], home: Path) -> str:
    """Write event files to `tensorboard/` in `home`, a folder for each entry, and say where that is."""
    from torch.utils.tensorboard import SummaryWriter

    place = home / "tensorboard"
    for entry in entries:
        folder = place / entry.group / entry.name if entry.kind == "trial" else place / entry.name
        with SummaryWriter(str(folder)) as writer:
            for step, values in enumerate(entry.curves):
                for name, value in values.items():
                    writer.add_scalar(f"history/{name}", value, step)
            metrics = {f"metrics/{name}": value for name, value in entry.metrics.items()}
            writer.add_hparams(dict(entry.settings), metrics, run_name=".")
            for file in entry.files:
                writer.add_text(file.name, f"```\n{file.read_text(encoding='utf-8')}\n```")
    return str(place)
