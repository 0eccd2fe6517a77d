"""Write entries to a tracker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.progress import Callback, note, warn
from img2prompt_cache.runs.tracking.entry import Entry, run_entry
from img2prompt_cache.runs.tracking.mlflow import write_mlflow
from img2prompt_cache.runs.tracking.tensorboard import write_tensorboard
from img2prompt_cache.runs.tracking.wandb import write_wandb

if TYPE_CHECKING:
    from img2prompt_cache.runs.run import Run

TRACKERS: dict[str, Callable[[Iterable[Entry], Path], str]] = {
    "tensorboard": write_tensorboard,
    "wandb": write_wandb,
    "mlflow": write_mlflow,
}
"""Each writes entries into a folder, unless the tracker's own settings name another place, and says where."""
FOLDER = "tracking"
"""In a cache: where trackers write."""


def require_tracker(name: str | None) -> None:
    """Check that a tracker can be used, before any work is done.

    Raises
    ------
    UsageError
        If there is none of that name, or its library is not installed.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS, parameter="track")
    if find_spec(name) is None:
        raise UsageError(
            f"tracking by {name} takes its library; run `pip install 'img2prompt-cache[track]'`",
            parameter="track",
        )


def track_runs(name: str | None, runs: Iterable[Run], home: Path, tell: Callback) -> None:
    """Write runs to a tracker; see `track_entries`."""
    track_entries(name, map(run_entry, runs), home, tell)


def track_entries(name: str | None, entries: Iterable[Entry], home: Path, tell: Callback) -> None:
    """Write entries to a tracker.

    What was fitted is safe by then, so a tracker that fails ends nothing: that is only told.

    Parameters
    ----------
    name : str or None
        A key of `TRACKERS`; nothing is written if None.
    entries : iterable of Entry
    home : pathlib.Path
        The cache's folder.
    tell : callable
        Told where the entries are, or why they are not.
    """
    if name is None:
        return
    try:
        folder = home.resolve() / FOLDER
        folder.mkdir(exist_ok=True)
        place = TRACKERS[name](entries, folder)
    except Exception as error:  # libraries of others, that write to disks and servers
        why = " ".join(str(error).split()) or type(error).__name__
        warn(tell, f"{name} has no entry of this fit: {why}; the run itself is complete")
    else:
        note(tell, f"{name}: {place}")
