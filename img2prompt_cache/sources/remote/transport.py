"""What every kind of remote store can do: list objects, look at one, and read one from an offset on."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.sources.remote.address import scrub

CHUNK = 8 << 20
"""Bytes that are in memory at once while an object is copied."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Object:
    """An object as its store describes it.

    Attributes
    ----------
    url : str
        Without a query.
    size : int
        Bytes.
    version : str
        The ETag, or else another mark that changes with the contents; empty if the store gives none.
    """

    url: str
    size: int
    version: str

    @property
    def stamp(self) -> tuple[int, int]:
        """Size, and 63 bits of the version, in the place of a file's size and time."""
        digest = hashlib.sha256(self.version.encode()).digest()
        return self.size, int.from_bytes(digest[:8], "big") >> 1 if self.version else 0


class Transport(Protocol):
    """A kind of store."""

    def find(self, folder: str) -> list[Object]:
        """List the objects directly in a folder, and the folders in it, whose URLs end in a slash."""

    def look(self, url: str) -> Object:
        """Ask for the size and version of one object."""

    def read(self, known: Object, offset: int, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from an offset on, up to another one or to the end, at most `CHUNK` at a time.

        Raises
        ------
        Whole
            If the store gives no ranges, and only one is wanted.
        Changed
            If the store has another object of that name by now, and the store says so.
        """


class Absent(Exception):
    """There is no such object."""


class Refused(Exception):
    """The store does not let this process read it."""


class Changed(Exception):
    """The object is not the one that was listed."""


class Whole(Exception):
    """The store gives an object only as a whole."""


class Interrupted(Exception):
    """What may go well the next time: a cut connection, a timeout, too many requests.

    Parameters
    ----------
    message : str
    wait : float
        Seconds that the server asked to wait.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(slots=True)
class Patience:
    """How often what was interrupted is tried again, and after how long.

    Attributes
    ----------
    attempts : int
        In a row without progress.
    first, longest : float
        Seconds before the second attempt, doubled before each further one; the longest wait.
    timeout : float
        Seconds that a server may be silent.
    slowest : int
        Bytes that must have come for an attempt to count as progress.
    """

    attempts: int = 7
    first: float = 0.5
    longest: float = 60.0
    timeout: float = 60.0
    slowest: int = 1 << 20

    def wait(self, attempt: int, asked: float) -> None:
        """Wait after a number of attempts without progress; as long as the server asked, within bounds."""
        own = self.first * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311 - spreads clients
        time.sleep(min(self.longest, max(own, asked)))


PATIENCE = Patience()


def persist(url: str, action: Callable[[], T]) -> T:
    """Do something until it is not interrupted.

    Raises
    ------
    Img2PromptError
        If it is interrupted again and again, or the store refuses.
    Absent, Changed
        As `action`.
    """
    attempt = 0
    while True:
        try:
            return action()
        except Interrupted as error:
            attempt += 1
            if attempt >= PATIENCE.attempts:
                raise gave_up(url, attempt, error) from None
            PATIENCE.wait(attempt, error.wait)
        except Refused as error:
            raise refused(url, error) from None


def gave_up(url: str, attempts: int, error: Exception) -> Img2PromptError:
    """Say that an object cannot be read now."""
    return Img2PromptError(
        f"{url} could not be read in {attempts} attempts: {scrub(str(error))}. Run the same command again to "
        "go on where it stopped"
    )


def refused(url: str, error: Exception) -> Img2PromptError:
    """Say that a store does not let this process read."""
    web = url.startswith("http")
    advice = (
        "The query of a signed URL is not kept: name the whole URL again, with one that has not expired"
        if web
        else "Credentials come from the environment, where the store's own tools find them, too"
    )
    return Img2PromptError(f"{url} may not be read: {scrub(str(error))}. {advice}")


def changed(url: str) -> Img2PromptError:
    """Say that an object has changed in the middle of a pass."""
    return Img2PromptError(
        f"{url} has changed since it was listed; run the same command again: it lists the source anew, goes "
        "on, and says which cached images have changed"
    )
