"""Objects on web servers. The standard library is enough for them.

fsspec's own file system for HTTP takes every error for a file that is not there, throttling too, and reads
whole a body of which it asked for a part.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import IO, Any
from urllib.parse import quote, urlsplit

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.remote.address import secret_of
from img2prompt_cache.sources.remote.transport import (
    CHUNK,
    PATIENCE,
    Absent,
    Changed,
    Interrupted,
    Object,
    Refused,
    Whole,
)

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_NO_HEAD = frozenset({400, 403, 405, 501})
"""What servers answer to HEAD where they answer GET: a signed URL is signed for one of them."""
_SAFE = "/%:@!$&'()*+,;=~"


class Web:
    """``https://`` and ``http://``.

    Parameters
    ----------
    address : str
        The address of the source, whose query goes with every request.
    """

    def __init__(self, address: str) -> None:
        self._query = secret_of(address)
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            _Redirects(),
        ):
            self._opener.add_handler(handler)

    def find(self, folder: str) -> list[Object]:
        """Refuse: a web server lists nothing."""
        raise UsageError(
            f"`source`: a web server does not list {folder}; name a .tar or .parquet file, or several as "
            f"{folder}/shard-{{000..127}}.tar",
            parameter="source",
        )

    def look(self, url: str) -> Object:
        """Ask for the headers of an object."""
        try:
            with closing(self._open(url, "HEAD")) as answer:
                headers, size = answer.headers, _number(answer.headers.get("Content-Length"))
        except _Status as error:
            if error.code not in _NO_HEAD:
                raise error.kind() from None
            size = None
        if size is None:
            try:
                with closing(self._open(url, "GET", {"Range": "bytes=0-0"})) as answer:
                    headers = answer.headers
                    size = _total(headers) if answer.status == 206 else _number(headers.get("Content-Length"))
            except _Status as error:
                raise error.kind() from None
        if size is None:
            raise Refused("the server does not say how large it is")
        return Object(url, size, _version(headers))

    def read(self, known: Object, offset: int, stop: int | None = None) -> Iterator[bytes]:
        """Read on from an offset, in one answer; a server that knows no ranges begins anew."""
        end = known.size if stop is None else stop
        whole = not offset and stop is None
        wanted = {} if whole else {"Range": f"bytes={offset}-{'' if stop is None else stop - 1}"}
        try:
            answer = self._open(known.url, "GET", wanted)
        except _Status as error:
            raise (Changed() if error.code in (412, 416) else error.kind()) from None
        with closing(answer):
            partial = answer.status == 206
            size = _total(answer.headers) if partial else _number(answer.headers.get("Content-Length"))
            if size not in (None, known.size) or _version(answer.headers) != known.version:
                raise Changed
            if partial and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {offset}-"):
                raise Refused("the server answers with another range than the one asked for")
            if stop is not None and not partial:
                raise Whole
            at = offset if partial else 0
            while at < end:
                try:
                    data = answer.read(min(CHUNK, end - at))
                except (OSError, http.client.HTTPException) as error:
                    raise Interrupted(str(error) or type(error).__name__) from None
                if not data:
                    raise Interrupted(f"the connection was cut after {at:,} of {known.size:,} bytes")
                at += len(data)
                if at > offset:
                    yield data[-(at - offset) :] if at - len(data) < offset else data

    def _open(self, url: str, method: str, headers: Mapping[str, str] | None = None) -> Any:
        full = quote(url, safe=_SAFE) + (f"?{self._query}" if self._query else "")
        request = urllib.request.Request(full, method=method, headers={**_HEADERS, **(headers or {})})  # noqa: S310
        try:
            return self._opener.open(request, timeout=PATIENCE.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            raise _Status(error.code, _retry_after(error.headers)) from None
        except urllib.error.URLError as error:
            raise Interrupted(str(error.reason)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Interrupted(str(error) or type(error).__name__) from None


_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "img2prompt-cache"}


class _Status(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, wait: float) -> None:
        moved = ": it redirects to where it is not followed" if 300 <= code < 400 else ""
        super().__init__(f"the server answers {code} ({http.client.responses.get(code, 'unknown')}){moved}")
        self.code, self.wait = code, wait

    def kind(self) -> Exception:
        """What it means for the object."""
        if self.code in (404, 410):
            return Absent()
        return Interrupted(str(self), self.wait) if self.code in _AGAIN else Refused(str(self))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to the web only, and never from an encrypted connection to a plain one."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse other schemes; keep the method and the range."""
        parts = urlsplit(newurl)
        allowed = ("https",) if req.type == "https" else ("https", "http")
        if parts.scheme not in allowed or parts.username is not None:
            raise Refused(f"the server redirects to {parts.scheme or 'no'}://, which is not followed")
        return urllib.request.Request(newurl, method=req.get_method(), headers=dict(req.headers))  # noqa: S310


def _version(headers: Message) -> str:
    return str(headers.get("ETag") or headers.get("Last-Modified") or "").strip()


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 19 else None


def _total(headers: Message) -> int | None:
    return _number(str(headers.get("Content-Range", "")).rpartition("/")[2])


def _retry_after(headers: Message) -> float:
    text = str(headers.get("Retry-After") or "")
    seconds = _number(text)
    if seconds is not None:
        return float(seconds)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
