"""TensorBoard: an event file for each entry."""

from __future__ import annotations

import itertools
from pathlib import Path

from img2prompt_cache.runs.tracking.entry import Entry


def write_tensorboard(entry: Entry, home: Path) -> str:
    """Write an entry to a new folder in `tensorboard/` in `home`, and say where that is."""
    from torch.utils.tensorboard import SummaryWriter

    place = home / "tensorboard"
    parent = place / entry.group if entry.kind == "trial" else place
    numbers = (f"{entry.name}-{number}" for number in itertools.count(2))
    # TensorBoard shows all event files of a folder as one; those of a run that was replaced are another.
    folder = next(
        path for name in itertools.chain([entry.name], numbers) if not (path := parent / name).exists()
    )
    with SummaryWriter(str(folder)) as writer:
        for step, values in enumerate(entry.curves):
            for name, value in values.items():
                writer.add_scalar(f"history/{name}", value, step)
        metrics = {f"metrics/{name}": value for name, value in entry.metrics.items()}
        writer.add_hparams(dict(entry.settings), metrics, run_name=".")
        for file in entry.files:
            writer.add_text(file.name, f"```\n{file.read_text(encoding='utf-8')}\n```")
    return str(place)
