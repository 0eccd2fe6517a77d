"""A folder of images whose prompts, if there are any, lie beside each image or inside it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar

from img2prompt_cache.errors import ImageError
from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.embedded.prompts import read_prompt
from img2prompt_cache.sources.files import FileSource
from img2prompt_cache.sources.listing import make_listing
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, without_suffix
from img2prompt_cache.sources.reading import MAX_TEXT_BYTES, read_regular
from img2prompt_cache.sources.scan import Scan, counted, scan

LOOKED_AT = 64
"""How many images, the first by name, are opened to tell whether they carry prompts."""


class FolderSource(FileSource):
    """Images alone: every one is listed without a prompt, in code-point order of its path."""

    suffixes: ClassVar[Sequence[str]] = IMAGE_SUFFIXES

    @classmethod
    def detects(cls, root: Path) -> bool:
        """Accept any folder: what no other source wants."""
        return root.is_dir()

    def list(self) -> Listing:
        """List the images below the folder; an id is the path without its suffix."""
        found = scan(self.root, self.suffixes)
        images = [name for name in found.files if name.lower().endswith(IMAGE_SUFFIXES)]
        ids = [without_suffix(name) for name in images]
        prompts, without_image, notes = self.prompts(found, images, ids)
        return make_listing(
            ids,
            images,
            prompts,
            self.root,
            without_image=without_image,
            notes=(*self.notes, *notes, *found.notes()),
        )

    def prompts(
        self, found: Scan, images: Sequence[str], ids: Sequence[str]
    ) -> tuple[Sequence[str | None], int, tuple[str, ...]]:
        """Give a prompt or None for each image, the number of prompts without an image, and notes."""
        return [None] * len(images), 0, ()


class SidecarSource(FolderSource):
    """A text file beside each image: ``cat.png`` and ``cat.txt``."""

    suffixes: ClassVar[Sequence[str]] = (*IMAGE_SUFFIXES, ".txt")

    @classmethod
    def detects(cls, root: Path) -> bool:
        """Say whether any image has a text file beside it."""
        if not root.is_dir():
            return False
        names = scan(root, cls.suffixes).files
        texts = {name[:-4] for name in names if name.lower().endswith(".txt")}
        return any(without_suffix(name) in texts for name in names if name.lower().endswith(IMAGE_SUFFIXES))

    def prompts(
        self, found: Scan, images: Sequence[str], ids: Sequence[str]
    ) -> tuple[Sequence[str | None], int, tuple[str, ...]]:
        """Read the text beside each image, without the line break at its end."""
        texts = {name[:-4]: name for name in found.files if name.lower().endswith(".txt")}
        bad: list[str] = []

        def read(name: str | None) -> str | None:
            if name is None:
                return None
            try:
                text = read_regular(self.root / name, MAX_TEXT_BYTES).decode("utf-8-sig").rstrip("\r\n")
            except (ImageError, UnicodeDecodeError):
                bad.append(name)
                return None
            return text if text.strip() else None

        prompts = [read(texts.pop(key, None)) for key in ids]
        return prompts, len(texts), counted(bad, "text files that cannot be read or are not UTF-8")


class MetadataSource(FolderSource):
    """Images that carry their prompt, as the programs that made them wrote it; see `embedded.find_prompt`."""

    @classmethod
    def detects(cls, root: Path) -> bool:
        """Say whether any of the first images carries a prompt."""
        if not root.is_dir():
            return False
        first = islice(scan(root, IMAGE_SUFFIXES).files, LOOKED_AT)
        return any(read_prompt(root / name) is not None for name in first)

    def prompts(
        self, found: Scan, images: Sequence[str], ids: Sequence[str]
    ) -> tuple[Sequence[str | None], int, tuple[str, ...]]:
        """Read the head of every image."""
        return [read_prompt(self.root / name) for name in images], 0, ()
