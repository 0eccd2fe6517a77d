"""Where something may be written: never among the files of a cache or a run, and over no file but our own."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from img2prompt_cache.errors import UsageError

_HEAD = 4096
_LONG_HEAD = 1 << 16
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/]|$)")  # pathlib makes one slash of two
_MANIFEST = re.compile(rb'\s*\{\s*"schema":\s*\d+,\s*"rows":')
_BUNDLE = re.compile(rb'\s*\{\s*"schema":\s*\d+,\s*"name":')
_RECORD = re.compile(rb'\s*\{\s*"schema":\s*\d+,\s*"head":')


def refuse_url(path: str | Path, parameter: str, remedy: str = "name a place on this machine") -> None:
    """Refuse a URL where only a path can be used: as a path it would be a folder called ``s3:``.

    Raises
    ------
    UsageError
        Naming the parameter.
    """
    if _URL.match(str(path)) and not os.path.lexists(path):
        shown = _URL.sub(r"\1://", str(path)).partition("?")[0]
        raise UsageError(f"`{parameter}` cannot be a URL ({shown}); {remedy}", parameter=parameter)


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
    refuse_url(path, parameter)
    try:
        # Both, because a folder of the cache may be a link to another disk.
        spellings = {Path(os.path.abspath(path)), path.resolve()}  # noqa: PTH100
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"{path} is no path that can be used for `{parameter}`: {error}", parameter=parameter
        ) from None
    for spelling in sorted(spellings):
        owner = next(filter(None, map(_owner, spelling.parents)), None)
        if owner is None:
            continue
        kind, folder = owner
        if kind != "cache" or not _belongs(spelling.relative_to(folder), own):
            raise UsageError(
                f"{path} lies among the files of the {kind} {folder}; name a place outside it as "
                f"`{parameter}`",
                parameter=parameter,
            )
    with suppress(OSError):
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UsageError(f"{path} is a device or pipe; name a file as `{parameter}`", parameter=parameter)
    for each in inputs:
        with suppress(OSError, ValueError):
            if path.samefile(each):
                raise UsageError(
                    f"{path} is the same file as {each}, which is read; name another file as `{parameter}`",
                    parameter=parameter,
                )


def require_earlier_output(path: Path, parameter: str, maker: str, is_ours: Callable[[Path], bool]) -> None:
    """Refuse to replace a file that is no earlier output of the same kind: a table or an image of the user.

    With `overwrite`, too: whoever names a wrong path by mistake loses nothing. A path at which there is
    nothing, or an empty file, is free.

    Parameters
    ----------
    path : pathlib.Path
        A file to be replaced.
    parameter : str
        The parameter that names it.
    maker : str
        The command that makes such files: ``"predict"``.
    is_ours : callable
        Recognises such a file; it may raise OSError.

    Raises
    ------
    UsageError
    """
    try:
        known = not path.stat().st_size
    except OSError:  # nothing is there, or a link to nothing
        return
    try:
        known = known or is_ours(path)
    except OSError:
        known = False
    if not known:
        raise UsageError(
            f"{path} is there and was not made by `{maker}()`, so nothing replaces it; name another file as "
            f"`{parameter}`, or remove it first",
            parameter=parameter,
        )


def begins_with(path: Path, head: bytes) -> bool:
    """Compare the first bytes of a file with a regular expression."""
    with path.open("rb") as file:
        return re.match(head, file.read(_LONG_HEAD)) is not None


def is_cache(folder: Path) -> bool:
    """Whether a folder is a cache; one whose manifest is damaged is, too."""
    return _has(folder, "cache.json", "rows", _MANIFEST)


def _owner(folder: Path) -> tuple[str, Path] | None:
    """Say whether a folder is a cache, a bundle or a run; damaged ones are, too."""
    if is_cache(folder):
        return "cache", folder
    if _has(folder, "bundle.json", "run", _BUNDLE):
        return "bundle", folder
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
