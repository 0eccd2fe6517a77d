"""The usable rows of a cache: those whose image could be read, with or without a prompt, and their texts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.reader import OK, Cache
from img2prompt_cache.cache.texts import Texts, TextWriter
from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TEXTS = ("imgId", "prompt", "sha256")


@dataclass(frozen=True, slots=True, eq=False)
class UsableRows:
    """Rows of a cache, ascending, with their texts; see `Dataset`."""

    rows: NDArray[np.int64]
    ids: Texts
    prompts: Texts
    images: Texts


def find_usable(
    cache: Cache, missing: Collection[int], with_prompt: bool | None, only: Collection[str] | None
) -> UsableRows:
    """Find the usable rows, reading one part of the cache's texts after the other.

    Parameters
    ----------
    cache : Cache
    missing : collection of int
        Rows that lack a feature.
    with_prompt, only
        As for `load_dataset`.

    Raises
    ------
    UsageError
        If there is none, or the cache lacks an imgId of `only`.
    Img2PromptError
        If a part cannot be read.
    """
    rows = [np.empty(0, np.int64)]
    kept = {name: TextWriter() for name in _TEXTS}
    wanted = None if only is None else {*only}
    absent = set(wanted or ())
    for part, text in cache.text_by_part(*_TEXTS, "status"):
        usable = [
            at
            for at, (name, prompt, _, status) in enumerate(zip(*text.values(), strict=True))
            if status == OK
            and part.start + at not in missing
            and (with_prompt is None or bool(prompt.strip()) == with_prompt)
            and (wanted is None or name in wanted)
        ]
        absent.difference_update(text["imgId"])
        rows.append(part.start + np.array(usable, np.int64))
        for name, writer in kept.items():
            writer.add(text[name][at] for at in usable)
    if absent:
        raise UsageError(
            f"`only` names {len(absent)} imgIds that {cache.folder} does not have, first {min(absent)!r}",
            parameter="only",
        )
    found = np.concatenate(rows)
    if wanted is not None and not len(found):
        raise UsageError(f"`only` names no usable row of {cache.folder}", parameter="only")
    if not len(found):
        what = {
            True: " with a prompt; extract images with their prompts into a cache of their own",
            False: " without a prompt",
            None: "",
        }[with_prompt]
        raise UsageError(f"{cache.folder} has no usable image{what}")
    return UsableRows(found, *(writer.texts() for writer in kept.values()))
