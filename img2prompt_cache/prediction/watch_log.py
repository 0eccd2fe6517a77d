"""The log of a watched folder: a line of JSON for each image, by which a later call goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from img2prompt_cache.destination import require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.locks import lock
from img2prompt_cache.prediction.arrivals import Stamp

LONGEST = 1 << 20
"""Bytes of a line that is read."""


class WatchLog:
    """Appends to a file of JSON lines, and knows what is in it.

    A line that a killed process left unfinished is cut off, so that its image is predicted again.

    Parameters
    ----------
    path : pathlib.Path
        Made if it is not there.

    Attributes
    ----------
    known : dict of str to Stamp
        The images it has, by their path in the watched folder.

    Raises
    ------
    UsageError
        If the file is something else, lies among the files of a cache or run, or another process writes it.
    Img2PromptError
        If it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        require_free_place(path, "out")
        self._path, self._lock = path, -1
        self.known: dict[str, Stamp] = {}
        try:
            self._file: IO[bytes] = path.open("a+b")
        except OSError as error:
            raise self._cannot(error) from None
        try:
            self._hold()
            self._file.truncate(self._read())
        except OSError as error:
            self.close()
            raise self._cannot(error) from None
        except BaseException:
            self.close()
            raise

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Write records, and have them on the disk.

        Raises
        ------
        Img2PromptError
            If that fails.
        """
        try:
            self._file.write(b"".join(json.dumps(each, allow_nan=False).encode() + b"\n" for each in records))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._cannot(error) from None

    def close(self) -> None:
        """Let go of the file."""
        with suppress(OSError):
            self._file.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hold(self) -> None:
        try:
            self._lock = lock(self._path)
        except BlockingIOError:
            raise UsageError(
                f"`out` {self._path} is written by another process; name another file", parameter="out"
            ) from None
        except OSError:  # such a file cannot be locked here
            return

    def _read(self) -> int:
        """Read what is there; give where the last whole line ends."""
        self._file.seek(0)
        end = 0
        while line := self._file.readline(LONGEST):
            if not line.endswith(b"\n"):
                if len(line) < LONGEST and end:
                    return end  # the process was killed while it wrote
                raise self._strange()
            try:
                record = json.loads(line)
                name, size, changed = record["file"], record["bytes"], record["changed"]
            except (ValueError, LookupError, TypeError, RecursionError):
                raise self._strange() from None
            if not (isinstance(name, str) and isinstance(size, int) and isinstance(changed, int)):
                raise self._strange()
            self.known[name] = (size, changed)
            end += len(line)
        return end

    def _strange(self) -> UsageError:
        return UsageError(
            f"`out` {self._path} was not written by `watch()`, and is left as it is; name another file",
            parameter="out",
        )

    def _cannot(self, error: OSError) -> Img2PromptError:
        return Img2PromptError(
            f"`out` {self._path} cannot be written: {error.strerror or error}", parameter="out"
        )
