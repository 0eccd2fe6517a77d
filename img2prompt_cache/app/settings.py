"""Settings of the app: what it serves, to whom, and how much it takes at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from img2prompt_cache.errors import UsageError

MOST_RESULTS = 100
"""Nearest prompts or pictures of an image, and pictures of a page of the gallery, that may be asked for."""
LONGEST_QUERY = 2000
"""Characters of a text that is searched for; the page's field takes as many."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the app takes at a time; what is beyond is refused, so that memory stays bounded.

    Attributes
    ----------
    file_bytes : int
        Of one image file.
    request_bytes : int
        Of the body of one request.
    total_bytes : int
        Of the bodies of all requests that are in progress.
    images : int
        In one request.
    pixels : int
        Width × height of an image.
    waiting : int
        Images that wait for the model.
    body_seconds : float
        Until the body of a request must be there.
    """

    file_bytes: int = 32 << 20
    request_bytes: int = 64 << 20
    total_bytes: int = 256 << 20
    images: int = 64
    pixels: int = 1 << 25
    waiting: int = 256
    body_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the app serves, and to whom.

    Attributes
    ----------
    cache : pathlib.Path or None
        Where runs are found, and pictures and prompts. If None, the cache of `run`, or ``cache/default``.
    run : str or None
        A run folder or a name; then only this run is served. All runs of the cache if None.
    bank : pathlib.Path or None
        Prompts to choose from, in place of those of the cache.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    host : str
        Address to listen at.
    token : str
        What a client must know; empty only on a loopback address.
    allow_hosts : tuple of str
        Names by which clients may address this machine, besides those that it knows itself by.
    limits : Limits
    """

    cache: Path | None = None
    run: str | None = None
    bank: Path | None = None
    device: str = "auto"
    host: str = "127.0.0.1"
    token: str = field(default="", repr=False)
    allow_hosts: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.token and not is_loopback(self.host):
            raise UsageError(
                f"`host` {self.host} can be reached from other machines; give a `token` that clients must "
                "know",
                parameter="token",
            )
        if self.token and (len(self.token) < LEAST_TOKEN or not self.token.isascii() or " " in self.token):
            raise UsageError(
                f"`token` takes at least {LEAST_TOKEN} ASCII characters without spaces", parameter="token"
            )


LEAST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
