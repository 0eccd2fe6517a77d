"""A tracker: what is written to it of each run and trial, and what happens where it fails."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.progress import Callback, note, warn
from img2prompt_cache.runs.tracking.entry import Entry
from img2prompt_cache.runs.tracking.mlflow import write_mlflow
from img2prompt_cache.runs.tracking.tensorboard import write_tensorboard
from img2prompt_cache.runs.tracking.wandb import write_wandb

TRACKERS: dict[str, Callable[[Entry, Path], str]] = {
    "tensorboard": write_tensorboard,
    "wandb": write_wandb,
    "mlflow": write_mlflow,
}
"""Each writes an entry into a folder, or where the tracker's own settings say, and tells where."""
FOLDER = "tracking"
"""In a cache: where trackers write."""
NEEDED = {"mlflow": ("mlflow", "sqlalchemy", "alembic")}
"""Libraries of a tracker, where it is not one of its name."""


class Tracker:
    """Writes entries to a tracker.

    What was fitted is safe by then, so a tracker that fails ends nothing: a warning says so, and nothing more
    is written to it.

    Parameters
    ----------
    name : str, optional
        A key of `TRACKERS`, see `require_tracker`; nothing is written if None.
    cache : pathlib.Path
        The cache's folder; the tracker writes below its `tracking`.
    tell : callable
        Told where the entries are, or why they are not.
    """

    def __init__(self, name: str | None, cache: Path, tell: Callback) -> None:
        self._name, self._home, self._tell = name, cache.resolve() / FOLDER, tell
        self._place = ""

    def write(self, make: Callable[[], Entry]) -> None:
        """Write an entry, which is made only where there is a tracker."""
        if self._name is None:
            return
        try:
            self._home.mkdir(exist_ok=True)
            place = TRACKERS[self._name](make(), self._home)
        except Exception as error:  # libraries of others, that write to disks and servers
            why = " ".join(str(error).split()) or type(error).__name__
            warn(
                self._tell,
                f"{self._name} failed: {why}; nothing that was fitted is lost, but nothing more is logged",
            )
            self._name = None
            return
        if not self._place:
            note(self._tell, f"{self._name}: {place}")
        self._place = place


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
    for library in NEEDED.get(name, (name,)):
        found = find_spec(library)
        if found is None or found.origin is None:  # a folder of that name, such as wandb makes, is no library
            raise UsageError(
                f"`track={name}` takes the library {library}; run `pip install 'img2prompt-cache[track]'`",
                parameter="track",
            )
