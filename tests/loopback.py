"""Stores on 127.0.0.1, an S3 (moto) and a web server, that fail as they are told."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from typing import Any

from kit import paint, prompt_of

Fault = Callable[[Any, Any, Any], Iterable[bytes] | None]
"""Takes the WSGI application, the environment and `start_response`; None lets the request through."""


@dataclass
class Store:
    """A server, the requests that it got, and the faults that it is to have.

    `faults` are taken one by one by GET requests of objects.
    """

    app: Any
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
        with self._lock:
            method = environ["REQUEST_METHOD"]
            self.seen.append(f"{method} {path}?{query} {environ.get('HTTP_RANGE', '')}")
            fits = method == "GET" and "." in path.rpartition("/")[2]
            fault = self.faults.pop(0) if self.faults and fits else None
        answer = fault(self.app, environ, start_response) if fault else None
        return self.app(environ, start_response) if answer is None else answer

    def gets(self, name: str) -> int:
        """How many GET requests there were for an object."""
        return sum(line.startswith("GET ") and f"/{name}" in line for line in self.seen)


@contextmanager
def serving(app: Any) -> Iterator[Store]:
    """Serve an application on a free port of 127.0.0.1."""
    import logging

    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = Store(app)
    server = make_server("127.0.0.1", 0, store, threaded=True)
    server.daemon_threads = True
    server.log = lambda *_: None  # type: ignore[method-assign]
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Files:
    """Files in memory, with ranges and ETags, as a web server of objects has them.

    Parameters
    ----------
    ranges : bool
        Whether it knows ranges.
    """

    def __init__(self, ranges: bool = True) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = ranges
        self.query = ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        name = environ["PATH_INFO"].lstrip("/")
        if name not in self.files:
            start_response("404 Not Found", [("Content-Length", "0")])
            return [b""]
        if environ.get("QUERY_STRING", "") != self.query or (
            self.query and environ["REQUEST_METHOD"] == "HEAD"
        ):
            start_response("403 Forbidden", [("Content-Length", "0")])
            return [b""]
        data = self.files[name]
        headers = [("ETag", f'"{md5(data, usedforsecurity=False).hexdigest()}"')]
        status, wanted = "200 OK", environ.get("HTTP_RANGE", "")
        if wanted and self.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), int(last) + 1 if last else len(data)
            headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}"))
            status, data = "206 Partial Content", data[start:stop]
        start_response(status, [*headers, ("Content-Length", str(len(data)))])
        return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [data]


def busy(code: str = "503 Service Unavailable", wait: str = "0") -> Fault:
    """Answer that there are too many requests."""

    def fault(app: Any, environ: Any, start_response: Any) -> Iterable[bytes]:
        body = b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>"
        start_response(code, [("Retry-After", wait), ("Content-Length", str(len(body)))])
        return [body]

    return fault


def cut(after: int) -> Fault:
    """Close the connection after some bytes of an answer."""

    def fault(app: Any, environ: Any, start_response: Any) -> Iterable[bytes]:
        data = b"".join(app(environ, start_response))

        def body() -> Iterator[bytes]:
            yield data[:after]
            raise ConnectionAbortedError

        return body()

    return fault


def meanwhile(action: Callable[[], Any]) -> Fault:
    """Do something, and then answer."""

    def fault(app: Any, environ: Any, start_response: Any) -> None:
        action()

    return fault


def make_shard(folder: Path, first: int, count: int) -> bytes:
    """A tar shard of painted images and their prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(first, first + count):
            image = paint(folder / f"{number:03d}.png", number).read_bytes()
            for name, data in (
                (f"{number:03d}.png", image),
                (f"{number:03d}.txt", prompt_of(number).encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
