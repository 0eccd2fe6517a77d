"""Serving: the app behind a socket, until it is asked to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from img2prompt_cache.app.settings import Settings, is_loopback
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.progress import Callback, listening, note

INSTALL = "run `pip install 'img2prompt-cache[app]'`"
CONNECTIONS = 1024
"""Connections at a time; more are answered with 503."""
STOP_SECONDS = 60
"""How long what was taken may take when the app is asked to stop."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(settings: Settings, port: int, tell: Callback) -> None:
    """Serve the app until SIGINT or SIGTERM; then finish what was taken, and return.

    Parameters
    ----------
    settings : Settings
    port : int
        To listen at; 0 for any that is free.
    tell : callable
        Told of the address, and of errors.

    Raises
    ------
    UsageError
        If there is no run, or the address cannot be listened at.
    Img2PromptError
        If the extra `app` is not installed, or a run or a model is damaged.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise Img2PromptError(f"the app takes {error.name}, which is not installed; {INSTALL}") from None
    from img2prompt_cache.app.server import create_app

    with _listening(settings.host, port) as listener:
        app = create_app(settings, tell)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=STOP_SECONDS,
            ws="none",
        )
        listener.listen(CONNECTIONS)
        note(tell, f"open {_address(settings, listener)} in a browser; Ctrl-C stops the app")
        with _signals_kept(), listening(progress=False):  # requests are none of the terminal's business
            uvicorn.Server(config).run(sockets=[listener])
        note(tell, "stopped; what was taken is answered")


def _address(settings: Settings, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    name = "localhost" if is_loopback(settings.host) else socket.gethostname() if _anywhere(host) else host
    if ":" in name:
        name = f"[{name}]"
    # Behind a hash it is not sent to any server, nor written into its log.
    return f"http://{name}:{port}/" + (f"#token={settings.token}" if settings.token else "")


def _anywhere(host: str) -> bool:
    return host in ("0.0.0.0", "::")  # noqa: S104 it is compared, not listened at


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listen at an address, before anything is loaded: a port that is taken is known at once."""
    name = host.strip("[]")
    try:
        family = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"`host` {host}: {error.strerror}", parameter="host") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((name, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"`port` {port} of {host} cannot be listened at: {reason}; name another", parameter="port"
            ) from None
        yield listener


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Leave signals to the server, which raises them once more when it has stopped: then nobody minds."""
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
