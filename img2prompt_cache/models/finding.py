"""Models found where they lie now: in the places of this context, or where their specs say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.weights.places import ENVIRONMENT, active

if TYPE_CHECKING:
    from pathlib import Path

    from img2prompt_cache.models.fingerprints import Fingerprint
    from img2prompt_cache.models.specs import Spec

Loaded = TypeVar("Loaded")

ELSEWHERE = (
    "If its weights lie elsewhere now, `predict(weights=DIR)` or the environment variable "
    f"{ENVIRONMENT} names a folder to search"
)
REPLACED = "; `replace` exchanges the beginning of its path"


def find_model(
    spec: Spec,
    fingerprint: Fingerprint,
    load: Callable[[Spec, Path | None], Loaded],
    fits: Callable[[Loaded], bool],
) -> Loaded:
    """Load a model from the places of this context (see `weights.places`), or from where its spec says.

    Raises
    ------
    UsageError, Img2PromptError
        If it is not there, or cannot be loaded; the message says how to name another place.
    """
    places = active()
    tried = 0
    for folder in places.candidates(spec, fingerprint):
        try:
            found = load(spec, folder)
        except Img2PromptError:
            tried += 1
            continue
        if fits(found):
            return found
        tried += 1
    searched = ", ".join(map(str, places.folders))
    weights = fingerprint.get("weights", "")[:19]
    told = (
        f"; none of the {tried} folders with weights in {searched} has those ({weights}…)" if searched else ""
    )
    try:
        return load(places.current(spec), None)
    except Img2PromptError as error:
        advice = ELSEWHERE + (REPLACED if spec.name.startswith("local-dir:") else "")
        raise type(error)(f"{error}{told}. {advice}", parameter=error.parameter) from error
