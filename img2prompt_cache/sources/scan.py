"""Finding files below a folder, safely in the presence of links.

The user trusts the folder, but its contents may come from an untrusted archive:

- A link to an image is followed wherever it leads: the model hub's cache, DVC and git-annex consist of such
  links, and the file is used only if it decodes as an image.
- A link to a text is followed only below the folder, because any file can be read as text and its contents
  would become prompts.
- A link to a folder is never followed; see `reading` for a table that names a path through one.
- Anything but a regular file is skipped (a named pipe would block for ever), and so is a name that is not
  UTF-8, because it cannot be stored with its row.
- A cache below the folder is skipped, without a note: pictures in it belong to a report, and its tables to
  runs.

Notes say what was skipped and what to do about it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from img2prompt_cache.destination import is_cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.shortage import passing
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, is_below, is_file, is_folder, is_utf8, printable
from img2prompt_cache.tables import counted


@dataclass(slots=True)
class Scan:
    """The files found below a folder.

    Attributes
    ----------
    files : list of str
        Paths relative to the folder, POSIX, in code-point order.
    links : list of str
        Links that were skipped: to a folder (these end in ``/``), to nothing, or to a text outside.
    unreadable : list of str
        Folders that could not be opened, and names that are not UTF-8 (escaped).
    """

    files: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """Describe what was skipped, one line for each kind."""
        return (
            *count_note(
                [link for link in self.links if link.endswith("/")],
                f"link to a folder, {_REMEDY}",
                f"links to folders, {_REMEDY}",
            ),
            *count_note(
                [link for link in self.links if not link.endswith("/")],
                f"link to nothing, or to a text outside, {_REMEDY}",
                f"links to nothing, or to a text outside, {_REMEDY}",
            ),
            *count_note(
                self.unreadable,
                "name that cannot be read or is not UTF-8, skipped",
                "names that cannot be read or are not UTF-8, skipped",
            ),
        )


@dataclass(slots=True)
class Walk:
    """One walk of a folder, shared by everything that looks for files in it.

    Attributes
    ----------
    root : pathlib.Path
        A folder, or a file, which is not walked.
    """

    root: Path
    _found: Scan | None = field(default=None, init=False, repr=False, compare=False)

    def scan(self, suffixes: Iterable[str], below: str = "") -> Scan:
        """Give what `scan` gives, but walk the folder at most once as a whole.

        Parameters
        ----------
        suffixes : iterable of str
        below : str
            A folder below the root that is no link, ending in ``/``: only what is in it, relative to it.

        Raises
        ------
        UsageError
            If the root is not a folder that can be listed.
        """
        if self._found is None:
            if below:
                return scan(self.root / below, suffixes)
            self._found = scan(self.root, ("",))
        endings = tuple(suffixes)

        def pick(names: list[str], *, folders: bool = False) -> list[str]:
            return [
                name[len(below) :]
                for name in names
                if name.startswith(below)
                and (name.lower().endswith(endings) or (folders and name[-1] == "/"))
            ]

        unreadable = [name[len(below) :] for name in self._found.unreadable if name.startswith(below)]
        return Scan(pick(self._found.files), pick(self._found.links, folders=True), unreadable)

    def __getstate__(self) -> tuple[None, dict[str, object]]:
        return None, {"root": self.root, "_found": None}  # another process walks the folder itself


_REMEDY = "skipped; name what a link leads to, or a copy made with `cp -rL`"


def count_note(names: list[str], one: str, many: str) -> tuple[str, ...]:
    """Make one note about many names: their number, what they are, and the first; no note for no names.

    Parameters
    ----------
    names : list of str
    one, many : str
        What they are, if there is one name and if there are several.
    """
    return (f"{counted(len(names), one, many)} (first: {min(names)})",) if names else ()


def scan(folder: Path, suffixes: Iterable[str]) -> Scan:
    """Find every regular file below `folder` whose lower-cased name ends in one of `suffixes`.

    Hidden names (``.x``) and caches are skipped silently. No file is opened, and only links are resolved.

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
        if prefix and is_cache(Path(top, prefix)):
            continue
        try:
            entries = os.scandir(os.path.join(top, prefix))  # noqa: PTH118 - a million Path objects are slow
        except OSError as error:
            if passing(error):
                raise
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
    """List the files that end in `suffix` in a folder or, if there are none, in its sub-folders.

    Returns
    -------
    list of str
        Relative to the folder, POSIX, in code-point order; if `root` is a file, its name. Links are followed:
        the model hub's cache consists of them, and only images are read from a shard.
    """
    if root.is_file():
        return [root.name] if root.name.lower().endswith(suffix) else []
    return files_in(root, suffix) or [
        f"{folder}/{name}" for folder in folders_in(root) for name in files_in(root / folder, suffix)
    ]


def files_in(folder: Path, suffix: str | tuple[str, ...]) -> list[str]:
    """List the files directly in a folder that end in `suffix`, except hidden ones.

    Of other files, of which there may be a million, only the name is read.

    Returns
    -------
    list of str
        In code-point order; none if the folder cannot be listed. Links are followed.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a million Path objects are slow
    except OSError as error:
        if passing(error):
            raise
        return []
    ending = [name for name in names if name.lower().endswith(suffix) and not name.startswith(".")]
    return sorted(name for name in ending if (name.isascii() or is_utf8(name)) and is_file(folder / name))


def folders_in(folder: Path) -> list[str]:
    """List the folders directly in a folder, except hidden ones and caches.

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
                and not is_cache(Path(entry.path))
            )
    except OSError as error:
        if passing(error):
            raise
        return []
