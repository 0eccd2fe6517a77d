"""The guard before the app: who may ask, how much may be sent, and the headers of every answer."""

from __future__ import annotations

import asyncio
import hmac
import socket
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException

from img2prompt_cache.app.answers import problem
from img2prompt_cache.app.settings import Settings

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "img2prompt_session"
OPEN_PATHS = ("/", "/docs", "/openapi.json", "/health")
"""What needs no token: pages and their files, which hold nothing of the cache."""
STATIC = "/static/"
LINKED = ("/", "/docs", "/report")
"""What links of other sites may lead to."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Guard:
    """An ASGI app before another.

    - The Host header must name this machine, so that no stranger's name that resolves to it (DNS rebinding)
      makes its page one of ours.
    - What is asked must come from our own page or from no page at all, but for links to our pages.
    - Where there is a token, everything but the pages themselves needs it.
    - Bodies are bounded, each and all together, and must come in time.

    Parameters
    ----------
    app : ASGI application
    settings : Settings
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings, self._limits = app, settings, settings.limits
        self._hosts = own_names(settings)
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # a websocket: there is none
            return await send({"type": "websocket.close", "code": 1008})

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refuse(scope)
        if refused:
            return await refused(scope, receive, send_guarded)
        taken = 0

        async def receive_bounded() -> Message:
            nonlocal taken
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - loop.time()))
            except TimeoutError:
                raise HTTPException(408, "the body did not come in time") from None
            taken += len(message.get("body", b""))
            self._bytes += len(message.get("body", b""))
            if taken > self._limits.request_bytes:
                raise HTTPException(413, f"the body is larger than {self._limits.request_bytes >> 20} MiB")
            if self._bytes > self._limits.total_bytes:
                raise HTTPException(503, "busy; come again", {"Retry-After": "1"})
            return message

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.body_seconds
        try:
            await self._app(scope, receive_bounded, send_guarded)
        finally:
            self._bytes -= taken
        return None

    def _refuse(self, scope: Scope) -> Response | None:
        """Give the answer where a request is refused unread."""
        headers = Headers(scope=scope)
        if not self._names_us(headers.get("host", "")):
            return problem(421, "this machine is not known by that name")
        path = scope["path"]
        if not self._from_us(headers, scope["method"], path):
            return problem(403, "the request comes from another site")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limits.request_bytes:
            return problem(413, f"the body is larger than {self._limits.request_bytes >> 20} MiB")
        if not (path in OPEN_PATHS or path.startswith(STATIC)) and not self._knows_token(headers):
            reason = "a token is needed: send it as `Authorization: Bearer …`"
            return problem(401, reason, {"WWW-Authenticate": "Bearer"})
        return None

    def _names_us(self, host: str) -> bool:
        name = host_name(host)
        if name in self._hosts:
            return True
        # With a token, any address will do: a name can be made to resolve to this machine, an address cannot.
        return bool(self._settings.token) and _is_address(name)

    def _from_us(self, headers: Headers, method: str, path: str) -> bool:
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            # A link on another site may lead to our pages, and that is all.
            return method == "GET" and path in LINKED and headers.get("sec-fetch-mode") == "navigate"
        origin = headers.get("origin")
        # Compared, not parsed: an origin is a scheme and a host, and parsers raise on some that are neither.
        return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()

    def _knows_token(self, headers: Headers) -> bool:
        token = self._settings.token
        if not token:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(given.strip(), token):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, session_of(token))


def session_of(token: str) -> str:
    """Make what the page's cookie says: not the token itself, which other ports of this host would see."""
    return hmac.digest(token.encode(), COOKIE.encode(), "sha256").hex()


def host_name(host: str) -> str:
    """Give the name or the address in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def own_names(settings: Settings) -> frozenset[str]:
    """List the names by which a client may address this machine."""
    names = {"localhost", "127.0.0.1", "::1", settings.host.strip("[]"), *settings.allow_hosts}
    if settings.token:
        names |= {socket.gethostname(), socket.getfqdn()}
    return frozenset(name.lower().rstrip(".") for name in names)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode())
