"""``img2prompt-cache app``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console

if TYPE_CHECKING:
    from img2prompt_cache.progress import Event

TOKEN = "IMG2PROMPT_TOKEN"  # noqa: S105 a name
PORT = 8765


def app(
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the cache; all of its runs are served. Default: that of the run, or "
            "`cache/default`.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Serve this run alone: a run folder, its name in the cache, or hf://OWNER/NAME.",
        ),
    ] = None,
    bank: console.BankOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = PORT,
    host: Annotated[
        str, typer.Option(help="Address to listen at. One that others can reach needs a token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help=f"What clients must know; `new` makes one. Default: the environment variable {TOKEN}.",
            show_default=False,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further name of this machine that clients may use; repeatable."),
    ] = None,
    device: console.DeviceOption = "auto",
) -> None:
    """Open a page that predicts prompts for images, and an HTTP interface.

    Drop images into the page, choose a run, search the pictures of the cache. Nothing is sent anywhere; the
    interface is described at /docs.
    """
    from img2prompt_cache.app.serve import serve
    from img2prompt_cache.app.settings import Settings

    if token == "new":  # noqa: S105
        import secrets

        token = secrets.token_urlsafe(24)
    settings = Settings(
        cache=cache,
        run=run,
        bank=bank,
        device=device,
        host=host,
        token=token if token is not None else os.environ.get(TOKEN, ""),
        allow_hosts=tuple(allow_host or ()),
    )
    serve(settings, port, _tell)


def _tell(event: Event) -> None:
    """Show notes in any case: one has the address, with a port that was free and a new token."""
    if event.kind == "note":
        event = replace(event, warning=True)
    console.tell(event)
    if event.kind == "note":
        console.stderr.waits()  # it serves now
