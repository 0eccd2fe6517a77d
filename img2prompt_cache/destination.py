"""Where something may be written: never among the files of a cache or a run, and never over an input."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from img2prompt_cache.errors import UsageError

_HEAD = 4096
_MANIFEST = re.compile(rb'\s*\{\s*"schema":\s*\d+,\s*"rows":')
_RECORD = re.compile(rb'\s*\{\s*"schema":\s*\d+,\s*"head":')


def require_free_place(
    path: Path, parameter: str, *, own: str | None = None, inputs: Iterable[str | Path] = ()
) -> None:
    """Refuse a path at which writing would replace, or lie among, the files of a cache or a run.

    Whatever writes to a path that the user names calls this first. The folders above the path are looked at,
    as it is spelled and with links resolved; the nearest one that is a cache or a run decides.

    Parameters
    ----------
    path : pathlib.Path
        A file or folder to be made or replaced.
    parameter : str
        The parameter that names it.
    own : str, optional
        Where in a cache such files belong: ``"runs/*"`` is anything below that folder, ``"*.csv"`` a file in
        the cache's folder itself. If None, nowhere.
    inputs : iterable of path, optional
        Files that are read meanwhile; the same file under another name, by a link of either kind, counts too.

    Raises
    ------
    UsageError
        Naming the parameter, and what is in the way.
    """
    try:
        # Both, because a folder of the cache may be a link to another disk.
        spellings = {Path(os.path.abspath(path)), path.resolve()}  # noqa: PTH100
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"`{parameter}` {path} is no path that can be used: {error}", parameter=parameter
        ) from None
    for spelling in sorted(spellings):
        owner = next(filter(None, map(_owner, spelling.parents)), None)
        if owner is None:
            continue
        kind, folder = owner
        if kind == "run" or not _belongs(spelling.relative_to(folder), own):
            raise UsageError(
                f"`{parameter}` {path} lies among the files of the {kind} {folder}; name a place outside it",
                parameter=parameter,
            )
    with suppress(OSError):
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UsageError(f"`{parameter}` {path} is a device or pipe; name a file", parameter=parameter)
    for each in inputs:
        with suppress(OSError, ValueError):
            if path.samefile(each):
                raise UsageError(
                    f"`{parameter}` {path} is the same file as {each}, which is read; name another file",
                    parameter=parameter,
                )


def _owner(folder: Path) -> tuple[str, Path] | None:
    """Say whether a folder is a cache or a run; damaged ones are, too."""
    if _has(folder, "cache.json", "rows", _MANIFEST):
        return "cache", folder
    if _has(folder, "run.json", "head.safetensors", _RECORD):
        return "run", folder
    return None


def _has(folder: Path, name: str, beside: str, head: re.Pattern[bytes]) -> bool:
    """Find a file of this name that is ours: by what lies beside it, or by how it begins."""
    try:
        with (folder / name).open("rb") as file:
            return os.path.lexists(folder / beside) or head.match(file.read(_HEAD)) is not None
    except (OSError, ValueError):
        return False


def _belongs(inside: Path, own: str | None) -> bool:
    if own is None:
        return False
    home, _, name = own.rpartition("/")
    if home:
        return inside.parts[0] == home and len(inside.parts) > 1
    return len(inside.parts) == 1 and fnmatchcase(inside.name.lower(), name)
