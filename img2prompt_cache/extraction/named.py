"""Opening the sources of a pass: those that were named, those of the cache, or the default one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.writer import open_manifest
from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources import SourceOptions, find_default, open_source, reopen_source
from img2prompt_cache.sources.named import NamedSource, as_recorded, find_recorded, name_of, split_name
from img2prompt_cache.sources.remote import is_url

if TYPE_CHECKING:
    from img2prompt_cache.sources.base import Source

Named: TypeAlias = "str | Path | Source | None"
"""A source as `extract` takes it: a path, ``name=path``, one that is open, or None."""


def open_sources(
    source: Named | Sequence[Named], options: SourceOptions, folder: Path, most: int | None = None
) -> list[Source]:
    """Open the sources of a pass.

    Parameters
    ----------
    source : str, pathlib.Path, Source or a sequence of them, or None
        None: those of the cache that have names, or else the last one; for a new cache the default one in the
        current folder.
    options : SourceOptions
        Of every source that is named by its path.
    folder : pathlib.Path
        The cache, which may have names for them.
    most : int, optional
        How many there may be.

    Returns
    -------
    list of Source
        `NamedSource` where there are several, where one was named, or has a name in the cache.

    Raises
    ------
    UsageError
        If one is not there, two have the same name, there are too many, or the options do not fit.
    """
    made = open_manifest(folder)
    entries = () if made is None else made.sources
    if source is None:
        if not entries or options != SourceOptions():
            opened: list[Source] = [open_source(find_default(Path.cwd()), options)]
            return [as_recorded(each, _entry(entries, each)) for each in opened]
        named = [entry for entry in entries if "name" in entry]
        wanted = named if len(named) > 1 else entries[-1:]
        _require_few(len(wanted), most)
        return [reopen_source(entry) for entry in wanted]
    given = [source] if isinstance(source, str | os.PathLike) or not isinstance(source, Sequence) else source
    if not given:
        raise UsageError("`source` names no source", parameter="source")
    _require_few(len(given), most)
    if len(given) > 1 and options.prompts is not None:
        raise UsageError("`prompts` goes with one source; leave one of both out", parameter="prompts")
    pairs = [_open(each, options) for each in given]
    if len(pairs) == 1 and not pairs[0][0]:
        return [as_recorded(pairs[0][1], _entry(entries, pairs[0][1]))]
    return _with_names(pairs, entries)


def _with_names(pairs: Sequence[tuple[str, Source]], entries: tuple[dict[str, str], ...]) -> list[Source]:
    """Name sources: as they are recorded, as they were given, or after their folders."""
    found: list[Source] = []
    recorded = [find_recorded(entries, source.root, given) for given, source in pairs]
    taken = {entry["name"]: i for i, entry in enumerate(entries) if "name" in entry}
    for (given, source), number in zip(pairs, recorded, strict=True):
        entry = {} if number is None else entries[number]
        name = entry.get("name") or given or name_of(source.root)
        if given and given != name:
            raise UsageError(f"{source.root} is in the cache as {name}, not as {given}", parameter="source")
        if taken.get(name, number) != number:
            raise UsageError(_TWICE.format(name), parameter="source")
        first = not entries and not found
        prefix = entry.get("prefix", "") if number is not None else "" if first else f"{name}/"
        found.append(NamedSource(source, name, prefix))
    name, times = Counter(each.settings["name"] for each in found).most_common(1)[0]
    if times > 1:
        raise UsageError(_TWICE.format(name), parameter="source")
    return found


_TWICE = "two sources are called {0}; give each a name of its own: NAME=PATH"


def _entry(entries: tuple[dict[str, str], ...], source: Source) -> dict[str, str]:
    number = find_recorded(entries, source.root)
    return {} if number is None else entries[number]


def _open(source: Named, options: SourceOptions) -> tuple[str, Source]:
    """Open a source by its path; give the name that was put before that, too."""
    if isinstance(source, str | os.PathLike):
        name, path = split_name(os.fspath(source))
        return name, open_source(path if is_url(path) else Path(path), options)
    if isinstance(source, Cache):
        raise UsageError(
            "`source` takes a path or a source, not a Cache; give that as `cache`", parameter="source"
        )
    if source is None:
        raise UsageError("`source` names no source", parameter="source")
    if options != SourceOptions():
        raise UsageError(
            "`format`, `prompts`, `id_column` and `prompt_column` go with a source named by its path; "
            "give them to `open_source()`"
        )
    return "", source


def _require_few(count: int, most: int | None) -> None:
    if most is not None and count > most:
        raise UsageError(
            f"{count} sources were named or are in the cache, and this takes {most}; name one",
            parameter="source",
        )
