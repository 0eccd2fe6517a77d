"""Files below a folder: finding them without being led astray by links, and reading them.

The folder is the user's, but what is in it may come from a stranger's archive or table:

- A link to an image is followed wherever it leads: snapshots of the model hub, DVC and git-annex are made of
  such links, and whatever they lead to is kept only if it decodes as an image.
- A link to a text is followed only below the folder: any file reads as text, and prompts are passed on.
- A link to a folder is never followed, neither when the folder is listed nor when a table names a path
  through it. Nor is a path that is absolute or climbs.
- Anything but a regular file is passed over (a named pipe would block for ever), and so is a name that is not
  UTF-8, because it cannot be stored with its row.

What was passed over is told, and what to do about it.
"""

from __future__ import annotations

import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources.base import Listing, SourceOptions

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""What counts as an image when a folder is listed; whether it can be decoded is another question."""

MAX_IMAGE_BYTES = 256 << 20
MAX_TEXT_BYTES = 1 << 20

UNSAFE_PATH = r"^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)|\x00"
"""Matches a path that is absolute or climbs; in the syntax that RE2 (pyarrow) and `re` share."""


@dataclass(slots=True)
class Scan:
    """The files found below a folder.

    Attributes
    ----------
    files : list of str
        Paths relative to the folder, POSIX, in code-point order.
    links : list of str
        Links passed over: to a folder (these end in ``/``), to nothing, or to a text out of the folder.
    unreadable : list of str
        Folders that could not be opened, and names that are not UTF-8 (escaped).
    """

    files: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """Say what was passed over, one line a kind."""
        return (
            *counted([link for link in self.links if link.endswith("/")], f"links to folders, {_REMEDY}"),
            *counted(
                [link for link in self.links if not link.endswith("/")],
                f"links to nothing, or to a text outside, {_REMEDY}",
            ),
            *counted(self.unreadable, "names that cannot be read or are not UTF-8, passed over"),
        )


_REMEDY = "passed over; name what a link leads to, or a copy made with `cp -rL`"


def counted(names: list[str], what: str) -> tuple[str, ...]:
    """Make one note out of many names: how many, what, and the first of them; none for no names."""
    return (f"{len(names)} {what} (first: {min(names)})",) if names else ()


def scan(folder: Path, suffixes: Iterable[str]) -> Scan:
    """Find every regular file below `folder` whose lower-cased name ends in one of `suffixes`.

    Hidden names (``.x``) are passed over silently. No file is opened, nor looked up unless it is a link.

    Raises
    ------
    UsageError
        If `folder` is not a folder that can be listed.
    """
    found = Scan()
    endings = tuple(suffixes)
    top = os.path.realpath(folder)
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            entries = os.scandir(os.path.join(top, prefix))  # noqa: PTH118 - a million Path objects are slow
        except OSError as error:
            if not prefix:
                raise UsageError(f"{folder} cannot be listed: {error.strerror}") from error
            found.unreadable.append(prefix)
            continue
        with entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if not (name.isascii() or is_utf8(name)):
                    found.unreadable.append(prefix + printable(name))
                elif entry.is_file(follow_symlinks=False):
                    if name.lower().endswith(endings):
                        found.files.append(prefix + name)
                elif entry.is_symlink():
                    if is_folder(entry.path):
                        found.links.append(f"{prefix}{name}/")
                    elif name.lower().endswith(endings):
                        target = os.path.realpath(entry.path)
                        follow = name.lower().endswith(IMAGE_SUFFIXES) or _is_below(top, target)
                        kept = follow and is_file(target)
                        (found.files if kept else found.links).append(prefix + name)
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(f"{prefix}{name}/")
    found.files.sort()
    return found


def shards(root: Path, suffix: str) -> list[str]:
    """Name the files that end in `suffix` in a folder, else in its sub-folders; or the file itself.

    Returns
    -------
    list of str
        Relative to the folder (to the file's own folder), POSIX, in code-point order. Links are followed:
        the model hub's cache is made of them, and a shard gives nothing away but images.
    """
    if root.is_file():
        return [root.name] if root.name.lower().endswith(suffix) else []
    return files_in(root, suffix) or [
        f"{folder}/{name}" for folder in folders_in(root) for name in files_in(root / folder, suffix)
    ]


def files_in(folder: Path, suffix: str | tuple[str, ...]) -> list[str]:
    """Name the files right in a folder that end in `suffix`; hidden ones left out.

    Of the others, a million images maybe, only the name is looked at.

    Returns
    -------
    list of str
        In code-point order; none if the folder cannot be listed. Links are followed.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a million Path objects are slow
    except OSError:
        return []
    ending = [name for name in names if name.lower().endswith(suffix) and not name.startswith(".")]
    return sorted(name for name in ending if (name.isascii() or is_utf8(name)) and is_file(folder / name))


def folders_in(folder: Path) -> list[str]:
    """Name the folders right in a folder; hidden ones left out.

    Returns
    -------
    list of str
        In code-point order; none if the folder cannot be listed. Links are followed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if (entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and is_folder(entry.path)))
                and not entry.name.startswith(".")
                and (entry.name.isascii() or is_utf8(entry.name))
            )
    except OSError:
        return []


def without_suffix(name: str) -> str:
    """Cut the suffix of an image off a path; ``a.png`` → ``a``; any other ending stays: ``v1.5``."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in IMAGE_SUFFIXES else name


def read_regular(path: str | Path, limit: int = MAX_IMAGE_BYTES) -> bytes:
    """Read a whole regular file of at most `limit` bytes.

    Raises
    ------
    ImageError
        If it is not there, not a regular file, too large, or cannot be read.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - before opening, because opening a named pipe blocks
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("cannot be read: not a regular file")
        if status.st_size > limit:
            raise ImageError(f"cannot be read: {status.st_size} bytes are more than the {limit} allowed")
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(limit)
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_slice(path: Path, offset: int, size: int) -> bytes:
    """Read `size` bytes of a file at `offset`.

    Raises
    ------
    ImageError
        If there are fewer, they are too many, or the file cannot be read.
    """
    if size > MAX_IMAGE_BYTES:
        raise ImageError(f"cannot be read: {size} bytes are more than the {MAX_IMAGE_BYTES} allowed")
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except (OSError, OverflowError) as error:
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) < size:
        raise ImageError(f"cannot be read: {path.name} ends before the image does")
    return data


def read_below(folder: Path, uri: str) -> bytes:
    """Read a file below `folder`; the file itself may be a link, the folders on the way may not lead out.

    Raises
    ------
    ImageError
        If the path leaves the folder, or as `read_regular`.
    """
    if re.search(UNSAFE_PATH, uri):
        raise ImageError("cannot be read: the path leaves the source")
    path = folder / uri
    if not _is_below(os.path.realpath(folder), os.path.realpath(path.parent) + os.sep):
        raise ImageError("cannot be read: the path leaves the source")
    return read_regular(path)


@dataclass(frozen=True)
class FileSource(ABC):
    """What every source of this package has in common: a root, its options, and files below a folder.

    Parameters
    ----------
    root : pathlib.Path
        Absolute.
    options : SourceOptions
        With `format` set to the name of the source.
    notes : tuple of str
        What was worth saying when the format was chosen.
    """

    root: Path
    options: SourceOptions
    notes: tuple[str, ...] = ()

    takes: ClassVar[frozenset[str]] = frozenset()
    """The options, `format` aside, that mean something to this source."""

    @classmethod
    @abstractmethod
    def detects(cls, root: Path) -> bool:
        """Say whether a file or folder looks like this source."""

    @property
    def folder(self) -> Path:
        """The folder that uris are relative to: the root, or the one the root lies in."""
        return self.root.parent if self.root.is_file() else self.root

    @property
    def settings(self) -> dict[str, str]:
        """The options that were set, as text; see `reopen_source`."""
        return {key: str(value) for key, value in asdict(self.options).items() if value is not None}

    @abstractmethod
    def list(self) -> Listing:
        """List every row."""

    def read(self, uri: str) -> bytes:
        """Give the bytes of the file `uri`."""
        return read_below(self.folder, uri)


def is_folder(path: str | Path) -> bool:
    """Say whether a path leads to a folder; False, where pathlib raises, for one too long or closed to us."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | Path) -> bool:
    """Say whether a path leads to a regular file; False where `is_folder` is."""
    return os.path.isfile(path)  # noqa: PTH113


def is_utf8(name: str) -> bool:
    """Say whether a name is text, and not bytes that Python escaped."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """Make text of a name that is not UTF-8, for messages."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _is_below(top: str, path: str) -> bool:
    return path.startswith(top.rstrip(os.sep) + os.sep)
