"""Copies of remote objects on this machine's disk: within a bound, shared by processes, fetched ahead.

Readers of tar and parquet files seek to and fro, and check what a stranger's file unpacks to before they
unpack it. So they get a whole file, one at a time, and the next one is fetched meanwhile. The name of a copy
is a digest of the object's URL, size and version: a changed object never passes for an old one. Copies stay
for the next command until others need their room; the least recently used goes first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import Replacement, user_folder
from img2prompt_cache.sources.remote.transport import (
    PATIENCE,
    Absent,
    Changed,
    Interrupted,
    Object,
    Refused,
    Transport,
    changed,
    gave_up,
    refused,
)

FOLDER, ROOM = "IMG2PROMPT_SPOOL", "IMG2PROMPT_SPOOL_GB"
"""The environment variables that name the folder of the copies, and the GB that they may take."""
LISTINGS = "listings"
"""The folder beside the copies in which listings are kept."""
DEFAULT_GB = 16.0
_SHARE = 0.5
"""Share of the free disk that copies take at most where no room is named."""
_LONGEST = 200
_AGAIN = 30.0
"""Seconds after which the use of a copy is noted again."""

_used: dict[Path, float] = {}


class Spool:
    """The copies of one store's objects.

    Parameters
    ----------
    transport : Transport
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._folder = spool_folder()
        self._ahead: threading.Thread | None = None

    def path(self, wanted: Object) -> Path:
        """Name the copy of an object, whether it is there or not."""
        key = f"{wanted.url}\n{wanted.size}\n{wanted.version}"
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]
        name = wanted.url.rpartition("/")[2]  # which reasons of failed rows may name
        return self._folder / digest / (name if len(name.encode(errors="replace")) < _LONGEST else name[-32:])

    def holds(self, wanted: Object) -> bool:
        """Whether there is a copy of an object."""
        return self._has(self.path(wanted), wanted)

    def fetch(self, wanted: Object) -> Path:
        """Give the copy of an object, fetching it where it is missing.

        Raises
        ------
        Img2PromptError
            If it cannot be read, has changed, or is too large for the room there is.
        """
        path = self.path(wanted)
        if self._has(path, wanted):
            return path
        from filelock import FileLock

        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path.parent}.lock"):  # another thread or process may be fetching it
            if not self._has(path, wanted):
                self._make_room(wanted)
                self._copy(wanted, path)
        _used[path] = time.monotonic()
        return path

    def fetch_ahead(self, wanted: Object, beside: Object) -> None:
        """Begin to fetch an object that is needed soon, if there is room for it beside the one in use."""
        if self._ahead is not None and self._ahead.is_alive():
            return
        if self._has(self.path(wanted), wanted) or wanted.size + beside.size > self._limit():
            return

        def fetch() -> None:
            with suppress(Exception):  # whoever needs the object meets the error then
                self.fetch(wanted)

        # A daemon, so that nobody waits for it who is interrupted or has read enough.
        self._ahead = threading.Thread(target=fetch, name="read ahead", daemon=True)
        self._ahead.start()

    def _has(self, path: Path, wanted: Object) -> bool:
        try:
            if path.stat().st_size != wanted.size:
                return False
        except OSError:
            return False
        now = time.monotonic()
        if now - _used.get(path, -_AGAIN) >= _AGAIN:
            _used[path] = now
            with suppress(OSError):
                os.utime(path)
        return True

    def _copy(self, wanted: Object, path: Path) -> None:
        """Copy an object, going on after an interruption at the byte where it stopped."""
        attempt = 0
        path.parent.mkdir(exist_ok=True)
        with Replacement(path) as new, new.temporary.open("wb") as file:
            while True:
                start = file.tell()
                try:
                    for data in self._transport.read(wanted, start):
                        file.write(data)
                    break
                except Interrupted as error:
                    attempt = 1 if file.tell() - start >= PATIENCE.slowest else attempt + 1
                    if attempt >= PATIENCE.attempts:
                        raise gave_up(wanted.url, attempt, error) from None
                    PATIENCE.wait(attempt, error.wait)
                except Refused as error:
                    raise refused(wanted.url, error) from None
                except (Absent, Changed):
                    raise changed(wanted.url) from None
            file.flush()
            if file.tell() != wanted.size:
                raise changed(wanted.url)
            new.commit()

    def _limit(self) -> int:
        named = os.environ.get(ROOM)
        if named:
            try:
                room = float(named)
            except ValueError:
                room = -1.0
            if not 0 < room < float("inf"):
                raise UsageError(f"the environment variable {ROOM} must be a number of GB, not {named!r}")
            return int(room * 1e9)
        held = sum(size for _, size, _ in self._copies())
        free = shutil.disk_usage(self._folder if self._folder.is_dir() else Path.cwd()).free
        return int(min(DEFAULT_GB * 1e9, (held + free) * _SHARE))

    def _copies(self) -> list[tuple[float, int, Path]]:
        found = []
        with suppress(OSError):
            for path in self._folder.glob("*/*"):
                with suppress(OSError):
                    if path.parent.name == LISTINGS:
                        continue
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        return sorted(found)

    def _make_room(self, wanted: Object) -> None:
        """Remove the least recently used copies until one more fits."""
        limit = self._limit()
        if wanted.size > limit:
            raise Img2PromptError(
                f"{wanted.url} takes {wanted.size / 1e9:,.1f} GB, and copies of remote files may take "
                f"{limit / 1e9:,.1f} GB in {self._folder}; name another folder in the environment variable "
                f"{FOLDER}, or more room in {ROOM}"
            )
        copies = self._copies()
        total = sum(size for _, size, _ in copies) + wanted.size
        for _, size, path in copies:
            if total <= limit:
                break
            with suppress(OSError):
                path.unlink()
                path.parent.rmdir()
                Path(f"{path.parent}.lock").unlink(missing_ok=True)
            _used.pop(path, None)
            total -= size


def spool_folder() -> Path:
    """Name the folder of the copies: ``IMG2PROMPT_SPOOL``, or ``remote`` in the user's folder."""
    named = os.environ.get(FOLDER)
    return Path(named).expanduser() if named else user_folder() / "remote"
