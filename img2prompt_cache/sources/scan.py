"""Finding files below a folder without being led astray by links.

The folder is the user's, but what is in it may come from a stranger's archive:

- A link to an image is followed wherever it leads: snapshots of the model hub, DVC and git-annex are made of
  such links, and whatever they lead to is kept only if it decodes as an image.
- A link to a text is followed only below the folder: any file reads as text, and prompts are passed on.
- A link to a folder is never followed; see `reading` for a table that names a path through one.
- Anything but a regular file is passed over (a named pipe would block for ever), and so is a name that is not
  UTF-8, because it cannot be stored with its row.

What was passed over is told, and what to do about it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, is_below, is_file, is_folder, is_utf8, printable


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
                        follow = name.lower().endswith(IMAGE_SUFFIXES) or is_below(top, target)
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
