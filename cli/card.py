"""``img2prompt-cache card``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import console


def card(
    run: console.RunArgument = None,
    cache: console.RunCacheOption = None,
    license: console.LicenseOption = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model. Default: that of the run.")
    ] = None,
    json: console.Json = False,
) -> None:
    """Print a model card of a run, as the Hugging Face Hub reads it: data, scores, failures, models.

    It names no path, image or prompt. `img2prompt-cache card RUN > README.md` keeps it.
    """
    from img2prompt_cache.exporting.model_card import card as write_card

    text = write_card(run, cache=cache, license=license, name=name)
    if json:
        console.result_json({"card": text})
    else:
        console.result(text.rstrip("\n"))
