"""Arrivals: images that come to a folder, each handed on once it is complete."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from img2prompt_cache.sources.names import IMAGE_SUFFIXES
from img2prompt_cache.sources.scan import scan

Stamp: TypeAlias = tuple[int, int]
"""Size of a file in bytes, and its time of last change in nanoseconds."""


class Arrivals:
    """Finds images that are new in a folder, or in one below it, by looking again and again.

    A file counts as complete if it has the same size and time of last change in two looks. One that is
    replaced later is new again.

    Parameters
    ----------
    folder : pathlib.Path
    known : dict of str to Stamp
        Images that are not new, by their path in the folder; those handed on are added.
    """

    def __init__(self, folder: Path, known: dict[str, Stamp]) -> None:
        self._folder, self._known = folder, known
        self._growing: dict[str, Stamp] = {}

    @property
    def waiting(self) -> int:
        """How many new images were not complete at the last look."""
        return len(self._growing)

    def look(self) -> dict[str, Stamp]:
        """Give the new images that are complete, in the order of their paths.

        Raises
        ------
        UsageError
            If the folder cannot be listed.
        """
        complete, growing = dict[str, Stamp](), dict[str, Stamp]()
        for name, stamp in self.stamps().items():
            if self._known.get(name) == stamp:
                continue
            if self._growing.get(name) == stamp:
                complete[name] = stamp
            else:
                growing[name] = stamp
        self._growing = growing
        self._known |= complete
        return complete

    def stamps(self) -> dict[str, Stamp]:
        """Give the stamp of every image that is there now."""
        found = {}
        for name in scan(self._folder, IMAGE_SUFFIXES).files:
            try:
                status = os.stat(self._folder / name)  # noqa: PTH116
            except OSError:  # it has gone again
                continue
            found[name] = (status.st_size, status.st_mtime_ns)
        return found
