"""The image files of a cache: where each row's image lies, for people and for what moves files."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import ImageError, Img2PromptError
from img2prompt_cache.extraction.work import OpenSources
from img2prompt_cache.sources.reading import path_below
from img2prompt_cache.sources.remote import RemoteRoot


class ImageFiles:
    """Finds the image files of a cache's rows.

    Parameters
    ----------
    cache : Cache
    """

    def __init__(self, cache: Cache) -> None:
        self._parts = cache.manifest.columns[0].parts
        self._starts = [part.start for part in self._parts]
        self._sources = OpenSources(cache.manifest.sources)
        self._uris = cache.text("uri")["uri"]

    def path(self, row: int) -> Path | None:
        """Give the file that is a row's image; None where it lies in an archive, or cannot be found.

        It lies in the folder of its source, or in one below that, whatever the cache says.
        """
        folder = self.folder(row)
        if folder is None:
            return None
        try:
            found = path_below(folder, self._uris[row])
            return found if found.is_file() else None
        except (ImageError, OSError, ValueError):
            return None

    def source(self, row: int) -> int:
        """Give the number of a row's source."""
        return self._parts[bisect_right(self._starts, row) - 1].source

    def folder(self, row: int) -> Path | None:
        """Give the folder of a row's source; None where it keeps images in archives, or cannot be opened."""
        try:
            source = self._sources[self.source(row)]
        except (Img2PromptError, LookupError):
            return None
        root = source.root
        if getattr(source, "packed", True) or isinstance(root, RemoteRoot):
            return None
        return root.parent if root.is_file() else root
