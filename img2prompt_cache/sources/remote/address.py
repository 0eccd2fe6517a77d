"""Addresses of remote sources: what is accepted, and what of one may be stored or shown.

A query (``?X-Amz-Signature=…``) is often a credential. It is taken off at once and kept in the memory of this
process alone: `secret_of` gives it back to whoever asks the server. User names and passwords are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from img2prompt_cache.destination import refuse_url
from img2prompt_cache.errors import UsageError

SCHEMES = ("s3", "gs", "hf", "https", "http", "file")
MOST_NAMES = 100_000
"""Most names that a range in braces may stand for."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
_CHOICE = re.compile(r"\{([^{}]+)\}")
_SECRETS: dict[str, str] = {}


def is_url(text: object) -> bool:
    """Check whether a source is named by a URL, and not by a path.

    Raises
    ------
    UsageError
        If it is a URL that was made into a path: `pathlib` turns ``s3://`` into ``s3:/``.
    """
    if isinstance(text, Path):
        refuse_url(text, "source", "give it as a str, because a Path cannot hold one")
    return isinstance(text, str) and _URL.match(text) is not None


def parse_url(text: str) -> str:
    """Check a URL, take its query off and remember that for `secret_of`.

    Returns
    -------
    str
        What may be stored and shown: scheme in lower case, no query, no slash at the end.

    Raises
    ------
    UsageError
        If the scheme is unknown, a user or password is in it, or there is no bucket, server or file.
    """
    clean, _, query = text.partition("?")
    clean, _, fragment = clean.partition("#")
    try:
        parts = urlsplit(clean)
        user = parts.username is not None or parts.password is not None
    except ValueError:
        raise UsageError("`source` is not a URL that can be read", parameter="source") from None
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        raise UsageError(
            f"`source`: {scheme}:// is not supported; supported are {', '.join(f'{s}://' for s in SCHEMES)}",
            parameter="source",
        )
    if user:
        raise UsageError(
            f"`source`: a {scheme}:// URL may not hold a user name or password (what stands before @); "
            "credentials come from the environment",
            parameter="source",
        )
    shown = f"{scheme}://{clean.partition('://')[2].rstrip('/')}"
    if fragment or not parts.netloc + parts.path.strip("/") or re.search(r"[\x00-\x20]", clean):
        raise UsageError(f"`source`: {shown} is not a URL of an object or a folder", parameter="source")
    if any(step in (".", "..") for step in unquote(parts.path).split("/")):
        raise UsageError(f"`source`: {shown} may not hold . or .. as a folder", parameter="source")
    if query and scheme not in ("https", "http"):
        raise UsageError(
            f"`source`: {shown} may hold no query (?…), and ? is no wildcard; use * or {{0..9}}",
            parameter="source",
        )
    if query:
        _SECRETS[shown] = query
    return shown


def secret_of(address: str) -> str:
    """Give the query that an address came with in this process; empty if it had none."""
    return _SECRETS.get(address, "")


def scheme_of(address: str) -> str:
    """Give the scheme of an address: ``s3``."""
    return address.partition("://")[0]


def is_pattern(address: str) -> bool:
    """Whether an address stands for several objects: it holds braces, ``*`` or ``[``."""
    return any(mark in address for mark in "{*[")


def expand_braces(address: str) -> list[str]:
    """Write the ranges ``{000..127}`` and choices ``{train,test}`` of an address out.

    Raises
    ------
    UsageError
        If they stand for more than `MOST_NAMES` names, or a range runs backwards.
    """
    found = _RANGE.search(address) or _CHOICE.search(address)
    if found is None:
        return [address]
    if found.re is _RANGE:
        first, last = int(found[1]), int(found[2])
        if not first <= last < first + MOST_NAMES:
            raise UsageError(
                f"`source`: {found[0]} must run upwards over at most {MOST_NAMES:,} names", parameter="source"
            )
        middle = [str(number).zfill(len(found[1])) for number in range(first, last + 1)]
    else:
        middle = found[1].split(",")
    before, after = address[: found.start()], expand_braces(address[found.end() :])
    if len(middle) * len(after) > MOST_NAMES:
        raise UsageError(f"`source`: {address} stands for more than {MOST_NAMES:,} names", parameter="source")
    return [before + one + rest for one in middle for rest in after]


def scrub(text: str) -> str:
    """Take queries and users out of the URLs in a text of somebody else, and keep its first line."""
    line = (text.strip().splitlines() or [""])[0][:300]
    line = re.sub(r"(\w+://[^\s?'\"<>]*)\?[^\s'\"<>]*", r"\1", line)
    return re.sub(r"(\w+://)[^\s/@'\"]*@", r"\1", line)
