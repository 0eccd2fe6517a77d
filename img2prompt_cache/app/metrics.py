"""Metrics: what the app counts, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PREFIX = "img2prompt"


class Metrics:
    """Counters of one app, in a registry of its own.

    Parameters
    ----------
    waiting : callable
        Gives the number of images that wait.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}_requests", "Requests by path and status.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            f"{PREFIX}_request_seconds",
            "Time of requests.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._images = Counter(
            f"{PREFIX}_images", "Images by the status of their answer.", ["status"], registry=self._registry
        )
        self._batches = Histogram(
            f"{PREFIX}_batch_images", "Images of a batch.", buckets=SIZES, registry=self._registry
        )
        Gauge(f"{PREFIX}_waiting_images", "Images that wait.", registry=self._registry).set_function(waiting)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request; `path` is that of the route, so that there are few."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def image(self, status: int) -> None:
        """Count an image."""
        self._images.labels(str(status)).inc()

    def batch(self, size: int) -> None:
        """Count a batch."""
        self._batches.observe(size)

    def text(self) -> bytes:
        """Give everything, as Prometheus reads it."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)


class Counted:
    """An ASGI app before another, that counts requests and their time by the path of their route.

    Parameters
    ----------
    app : ASGI application
    metrics : Metrics
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        finally:
            # Of the route, not of the request: whoever asks for a million paths makes one counter.
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.request(path, status, time.perf_counter() - started)
        return None
