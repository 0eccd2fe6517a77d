"""Images named one by one, for prediction: files, and folders whose every image is meant."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.files import IMAGE_SUFFIXES, read_regular, scan, without_suffix
from img2prompt_cache.sources.listing import make_listing


class PathsSource:
    """Image files in the order they were named, without prompts.

    Parameters
    ----------
    paths : sequence of pathlib.Path
        Files and folders; a folder stands for the images below it, in code-point order. Being named by the
        user, a file may be a link and have any suffix.

    Raises
    ------
    UsageError
        If there is no path, or one is not there.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise UsageError("no images were named")
        missing = [path for path in paths if not path.exists()]
        if missing:
            raise UsageError(f"there is no file or folder {missing[0]}")
        self._paths = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - links stay as named
        folders = [path if path.is_dir() else path.parent for path in self._paths]
        self.root = Path(os.path.commonpath(folders))
        self.settings = {"format": "paths"}

    def list(self) -> Listing:
        """List the images; an id is the stem where no two are the same, else the path without suffix."""
        uris: list[str] = []
        notes: list[str] = []
        for path in self._paths:
            if path.is_dir():
                found = scan(path, IMAGE_SUFFIXES)
                uris += [(path / name).relative_to(self.root).as_posix() for name in found.files]
                notes += found.notes()
            else:
                uris.append(path.relative_to(self.root).as_posix())
        stems = [without_suffix(uri.rpartition("/")[2]) for uri in uris]
        count = Counter(stems)
        ids = [
            stem if count[stem] == 1 else without_suffix(uri) for stem, uri in zip(stems, uris, strict=True)
        ]
        return make_listing(ids, uris, [None] * len(uris), self.root, notes=notes)

    def read(self, uri: str) -> bytes:
        """Give the bytes of a file."""
        return read_regular(self.root / uri)
