"""Moving and linking the image files of a cache: nothing is lost, and nothing is written over.

A file is moved by giving it a second name and taking the first one away. Where that cannot be (on another
disk), it is copied, compared, and only then removed from its old place.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.destination import require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.image_files import ImageFiles
from img2prompt_cache.files import hash_file, sync_folder
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, is_below
from img2prompt_cache.sources.sidecar import RECORD_SUFFIXES, TEXT_SUFFIXES


@dataclass(frozen=True, slots=True)
class Relocation:
    """Files that get another place, or a link there.

    Attributes
    ----------
    row : int
        Of the cache.
    pairs : tuple of (pathlib.Path, pathlib.Path)
        Where each file lies and where it goes: the image, then the texts beside it that have its name.
    """

    row: int
    pairs: tuple[tuple[Path, Path], ...]


def plan_relocations(
    cache: Cache, rows: Iterable[int], folder: Path, parameter: str
) -> tuple[list[Relocation], dict[int, str]]:
    """Find out where the image files of some rows would go, with the paths they have in their sources.

    Parameters
    ----------
    cache : Cache
    rows : iterable of int
    folder : pathlib.Path
        Where they go; with several sources into a folder of each.
    parameter : str
        The parameter that names the folder.

    Returns
    -------
    relocations : list of Relocation
    left : dict of int to str
        The rows whose image has to stay where it is, and why.

    Raises
    ------
    UsageError
        If the folder lies among the files of a cache or run, or in a source; or something is there at a path
        that one of the files would get.
    """
    check_folder(folder, parameter)
    files, found, left = ImageFiles(cache), list[Relocation](), dict[int, str]()
    digests = cache.text("sha256")["sha256"]
    names = _source_names(cache)
    taken = set[Path]()
    for row in rows:
        home, path = files.folder(row), files.path(row)
        if home is None:
            left[row] = "it lies in an archive, or its source is gone"
        elif path is None:
            left[row] = "there is no such file any more"
        elif path.is_symlink():
            left[row] = "it is a link"
        elif not digests[row] or hash_file(path) != digests[row]:
            left[row] = "it has changed since it was cached"
        else:
            if is_below(os.path.realpath(home), os.path.realpath(folder) + os.sep):
                raise UsageError(
                    f"`{parameter}` {folder} lies in the folder of the images, where the next pass would "
                    "find them again; name one outside",
                    parameter=parameter,
                )
            target = folder / names[files.source(row)]
            pairs = tuple((each, target / each.relative_to(home)) for each in (path, *beside(path)))
            for _, place in pairs:
                if place in taken or os.path.lexists(place):
                    raise UsageError(
                        f"`{parameter}`: {place} is there already, and nothing is written over; name another "
                        "folder",
                        parameter=parameter,
                    )
            taken |= {place for _, place in pairs}
            found.append(Relocation(row, pairs))
    return found, left


def check_folder(folder: Path, parameter: str) -> None:
    """Refuse early, before the work is done, a folder that files cannot go to.

    Raises
    ------
    UsageError
        If it lies among the files of a cache or run, or is no folder.
    """
    require_free_place(folder / "image", parameter)
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"`{parameter}` {folder} is no folder", parameter=parameter)


def beside(image: Path) -> list[Path]:
    """List the texts beside an image that are named after it alone."""
    stem = image.with_suffix("")
    alone = not any(
        other.exists()
        for suffix in IMAGE_SUFFIXES
        for other in (stem.with_name(stem.name + suffix), stem.with_name(stem.name + suffix.upper()))
        if other != image
    )
    names = [image.name, *([stem.name] if alone else [])]
    found = [
        image.with_name(name + ending) for name in names for ending in (*TEXT_SUFFIXES, *RECORD_SUFFIXES)
    ]
    return [path for path in found if path.is_file() and not path.is_symlink()]


def move(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Move files; none is written over.

    Raises
    ------
    Img2PromptError
        If one cannot be moved: it stays where it is, and so do those after it.
    """
    for path, place in pairs:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, place)  # fails where something is, unlike a rename
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                    raise
                _copy(path, place)
            sync_folder(place.parent)
            path.unlink()
        except OSError as error:
            raise Img2PromptError(
                f"{path} cannot be moved to {place}: {error.strerror or error}; it stays where it is"
            ) from None


def link(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Make symbolic links to files; nothing is written over.

    Raises
    ------
    Img2PromptError
        If one cannot be made.
    """
    for path, place in pairs:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.resolve())
        except OSError as error:
            raise Img2PromptError(f"{place} cannot be made: {error.strerror or error}") from None


def _copy(path: Path, place: Path) -> None:
    """Copy a file to a place where nothing is, and compare; half a copy does not stay."""
    with place.open("xb") as copy:
        try:
            with path.open("rb") as file:
                shutil.copyfileobj(file, copy)
            copy.flush()
            os.fsync(copy.fileno())
            shutil.copystat(path, place)
            whole = hash_file(path) == hash_file(place)
        except BaseException:
            place.unlink()
            raise
    if not whole:
        with suppress(OSError):
            place.unlink()
        raise OSError("the copy is not the same")


def _source_names(cache: Cache) -> list[str]:
    """Name a folder for each source of a cache; none where there is only one."""
    roots = [Path(entry["root"]) for entry in cache.manifest.sources]
    if len(roots) < 2:
        return [""] * len(roots)
    return [f"{number}-{root.name}" for number, root in enumerate(roots, 1)]
