"""Image files and folders of images named by the user, for prediction."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.listing import make_listing
from img2prompt_cache.sources.names import (
    IMAGE_SUFFIXES,
    is_file,
    is_folder,
    is_utf8,
    printable,
    without_suffix,
)
from img2prompt_cache.sources.reading import read_regular
from img2prompt_cache.sources.scan import count_note, scan


class PathsSource:
    """Image files in the order in which they were named, without prompts.

    A bad entry does not affect the others: a file that does not exist is listed, and `read` raises an error;
    a folder that cannot be listed or contains no images is noted; a file that is named twice counts once.

    Parameters
    ----------
    paths : sequence of pathlib.Path
        Files and folders; a folder stands for the images below it, in code-point order. A file may be a link
        and have any suffix, because the user named it.
    notes : tuple of str
        Notes to put first in the listing.

    Raises
    ------
    UsageError
        If there is no path, or none of them exists.
    """

    def __init__(self, paths: Sequence[Path], notes: tuple[str, ...] = ()) -> None:
        if not paths:
            raise UsageError("no images were named")
        if not any(is_folder(path) or is_file(path) for path in paths):
            more = f", nor any of the {len(paths) - 1} others" if paths[1:] else ""
            raise UsageError(f"there is no file or folder {printable(str(paths[0]))}{more}")
        self._paths = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - links stay as named
        folders = [path if is_folder(path) else path.parent for path in self._paths]
        self._notes = notes
        self.root = Path(os.path.commonpath(folders))
        self.settings = {"format": "paths"}

    def list(self) -> Listing:
        """List the images.

        An id is the file name without suffix; if that is not unique, the path without suffix; if that is not
        unique, either, the path. For a single folder it is the path below it, with the suffix only if another
        image has the same path otherwise.
        """
        uris: list[str] = []
        notes = [*self._notes]
        unreadable: list[str] = []
        for path in self._paths:
            if not is_utf8(str(path)):
                unreadable.append(printable(str(path)))
            elif not is_folder(path):
                uris.append(path.relative_to(self.root).as_posix())
            else:
                try:
                    found = scan(path, IMAGE_SUFFIXES)
                except UsageError as error:
                    notes.append(str(error))
                    continue
                if not found.files and len(self._paths) > 1:
                    notes.append(f"{path} holds no images")
                uris += [(path / name).relative_to(self.root).as_posix() for name in found.files]
                notes += found.notes()
        notes += count_note(
            unreadable, "name that is not UTF-8, skipped", "names that are not UTF-8, skipped"
        )
        notes += count_note(
            [uri for uri, n in Counter(uris).items() if n > 1],
            "image named twice, taken once",
            "images named twice, taken once",
        )
        uris = list(dict.fromkeys(uris))
        alone = len(self._paths) == 1 and is_folder(self._paths[0])
        return make_listing(_ids(uris, by_path=alone), uris, [None] * len(uris), self.root, notes=notes)

    def read(self, uri: str) -> bytes:
        """Read the bytes of a file."""
        return read_regular(self.root / uri)


def _ids(uris: Sequence[str], *, by_path: bool) -> list[str]:
    spellings = [(without_suffix(uri.rpartition("/")[2]), without_suffix(uri), uri) for uri in uris]
    level = [int(by_path)] * len(uris)
    while True:
        ids = [spelling[at] for spelling, at in zip(spellings, level, strict=True)]
        count = Counter(ids)
        if len(count) == len(ids):
            return ids
        level = [min(at + (count[name] > 1), 2) for name, at in zip(ids, level, strict=True)]
