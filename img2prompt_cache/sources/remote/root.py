"""The root of a remote source: an object, or those that a folder or a pattern stands for."""

from __future__ import annotations

import fnmatch
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import url2pathname

import numpy as np

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.sources.remote.address import (
    expand_braces,
    is_pattern,
    parse_url,
    scheme_of,
)
from img2prompt_cache.sources.remote.buckets import Bucket
from img2prompt_cache.sources.remote.spool import Spool
from img2prompt_cache.sources.remote.transport import (
    Absent,
    Changed,
    Object,
    Transport,
    Whole,
    changed,
    persist,
)
from img2prompt_cache.sources.remote.web import Web
from img2prompt_cache.sources.stamps import UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENDINGS = (".tar", ".parquet", ".csv", ".tsv", ".jsonl", ".json", ".txt")
_FEW = 8
"""Pieces of an object that are read from where it lies, before the whole of it is copied."""
_LARGEST_PIECE = 32 << 20
_LOOKS = 8
"""Objects that are asked for side by side."""


class RemoteRoot:
    """What a URL names, in the place of a path.

    It can be pickled: another process opens the store itself.

    Parameters
    ----------
    url : str

    Raises
    ------
    UsageError
        If it is not a URL that can be a source.
    """

    def __init__(self, url: str) -> None:
        self._url = parse_url(url)
        self._forget()

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"RemoteRoot({self._url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteRoot) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __getstate__(self) -> dict[str, Any]:
        return {"_url": self._url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._url = state["_url"]
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._opened: tuple[Transport, Spool] | None = None
        self._objects: dict[str, Object] | None = None
        self._order: dict[str, str] = {}
        self._pieces: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """The last part of the URL that is no pattern, as that of a path."""
        return next(step for step in reversed(self._url.split("/")) if step and not is_pattern(step))

    @property
    def local(self) -> Path | None:
        """The path that a ``file://`` URL without a pattern stands for; None for any other."""
        if scheme_of(self._url) != "file" or is_pattern(self._url):
            return None
        return Path(url2pathname(self._url.partition("://")[2]))

    def resolve(self) -> RemoteRoot:
        """Itself: a URL has no links."""
        return self

    def exists(self) -> bool:
        """Whether it can be named at all; what is there is found out when it is listed."""
        return True

    def is_file(self) -> bool:
        """Whether it is one object, which has a known ending; a folder or a pattern has none."""
        return not is_pattern(self._url) and self._url.lower().endswith(_ENDINGS)

    def is_dir(self) -> bool:
        """Whether it stands for several objects."""
        return not self.is_file()

    def names(self, suffix: str) -> list[str]:
        """List the objects that end in a suffix; of a folder without any, those of the folders in it.

        Every call asks the store, and what is read afterwards must be what it said.

        Returns
        -------
        list of str
            Relative to the folder, in code-point order.

        Raises
        ------
        UsageError
            If there is nothing, or the store cannot list.
        Img2PromptError
            If the store cannot be reached, or refuses.
        """
        found = self._find(suffix)
        objects = {name: found[name] for name in sorted(found)}
        names = list(objects)
        with self._lock:
            self._objects = {**(self._objects or {}), **objects}
            self._order |= dict(pairwise(names))
        return names

    def locate(self, name: str) -> Path:
        """Give a copy of an object on this disk, and fetch the one after it meanwhile.

        Raises
        ------
        Img2PromptError
            If it cannot be read now, or has changed since it was listed.
        """
        wanted = self._object(name)
        _, spool = self._open()
        path = spool.fetch(wanted)
        following = self._order.get(name)
        if following is not None and self._objects is not None:
            spool.fetch_ahead(self._objects[following], wanted)
        return path

    def peek(self, name: str, offset: int, size: int) -> bytes | None:
        """Read a piece of an object that is not copied yet, as long as few pieces of it are asked for.

        A report shows an image here and there; a pass reads one after the other, and `locate` serves it.

        Returns
        -------
        bytes or None
            None if a copy should be read: there is one, many pieces are asked for, or this one is too large,
            not inside the object, or cannot be had by itself.
        """
        transport, spool = self._open()
        known = self._object(name)
        with self._lock:
            self._pieces[name] += 1
            many = self._pieces[name] > _FEW
        if many or not 0 < size <= _LARGEST_PIECE or offset + size > known.size or spool.holds(known):
            return None
        try:
            return persist(known.url, lambda: b"".join(transport.read(known, offset, offset + size)))
        except Whole:
            return None
        except (Absent, Changed):
            raise changed(known.url) from None

    def key_of(self, name: str) -> tuple[str, int, str]:
        """Give what tells the contents of an object from any other: URL, size and version."""
        known = self._object(name)
        return known.url, known.size, known.version

    def url_of(self, name: str) -> str:
        """Give the URL of an object, for people: without a query."""
        return f"{self._base()}/{name}"

    def stamps(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Give the size and version of objects, in the place of a file's size and time.

        Returns
        -------
        numpy.ndarray, int64, shape (n, 2)
        """
        known = self._objects or {}
        found = [known[name].stamp if name in known else (UNKNOWN, UNKNOWN) for name in names]
        return np.array(found, np.int64).reshape(-1, 2)

    def _open(self) -> tuple[Transport, Spool]:
        with self._lock:
            if self._opened is None:
                web = scheme_of(self._url) in ("https", "http")
                transport: Transport = Web(self._url) if web else Bucket(self._url)
                self._opened = transport, Spool(transport)
            return self._opened

    def _base(self) -> str:
        """The folder to which names are relative."""
        if not is_pattern(self._url):
            return self._url.rpartition("/")[0] if self.is_file() else self._url
        plain = self._url[: min(self._url.index(mark) for mark in "{*[" if mark in self._url)]
        return plain.rpartition("/")[0]

    def _object(self, name: str) -> Object:
        """Look an object up that was listed, or now where this process has listed nothing."""
        with self._lock:
            known = (self._objects or {}).get(name)
        if known is None:
            known = self._look(self.url_of(name))
            with self._lock:
                self._objects = {**(self._objects or {}), name: known}
        return known

    def _look(self, url: str) -> Object:
        transport, _ = self._open()
        try:
            return persist(url, lambda: transport.look(url))
        except Absent:
            raise UsageError(f"there is no {url}", parameter="source") from None

    def _list(self, folder: str) -> list[Object]:
        transport, _ = self._open()
        try:
            return persist(folder, lambda: transport.find(folder))
        except Absent:
            raise UsageError(f"there is no {folder}", parameter="source") from None

    def _find(self, suffix: str) -> dict[str, Object]:
        base = self._base()
        if not is_pattern(self._url):
            if self.is_file():
                return {self.name: self._look(self._url)} if self.name.lower().endswith(suffix) else {}
            found = self._list(self._url)
            picked = _pick(found, base, suffix)
            for folder in () if picked else sorted(one.url for one in found if one.url.endswith("/")):
                picked |= _pick(self._list(folder.rstrip("/")), base, suffix)
            return picked
        urls = expand_braces(self._url)
        wild = [url for url in urls if "*" in url or "[" in url]
        picked = {}
        for url in wild:
            folder, _, last = url.rpartition("/")
            if is_pattern(folder):
                raise UsageError(f"`source`: {url} may hold * and [ ] in the name only", parameter="source")
            matching = [
                one for one in self._list(folder) if fnmatch.fnmatchcase(one.url.rpartition("/")[2], last)
            ]
            picked |= _pick(matching, base, suffix)
        plain = [url for url in urls if url not in wild and url.lower().endswith(suffix)]
        with ThreadPoolExecutor(_LOOKS) as pool:
            for one in pool.map(self._look, plain):
                picked[one.url.removeprefix(f"{base}/")] = one
        return picked


@contextmanager
def told_as(path: Path, shown: str) -> Iterator[None]:
    """Name a remote object, and not its copy, in the errors of whoever reads the copy."""
    try:
        yield
    except Img2PromptError as error:
        error.args = (str(error).replace(str(path), shown), *error.args[1:])
        raise


def _pick(found: Iterable[Object], base: str, suffix: str) -> dict[str, Object]:
    names = {one.url.removeprefix(f"{base}/"): one for one in found if one.url.lower().endswith(suffix)}
    return {name: one for name, one in names.items() if not name.rpartition("/")[2].startswith(".")}
