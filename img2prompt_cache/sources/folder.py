"""Folders of images without prompts, or with prompts inside the image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.embedded.prompts import Found, find_prompt, read_prompt
from img2prompt_cache.sources.files import FileSource
from img2prompt_cache.sources.listing import make_listing, text_columns
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, without_originals, without_suffix
from img2prompt_cache.sources.scan import Scan, Walk, count_note
from img2prompt_cache.sources.several import MORE_PROMPTS, pack

ORIGINALS = (
    "image that cannot be decoded left out beside a copy of the same name",
    "images that cannot be decoded left out beside a copy of the same name",
)
DETECTION_SAMPLE = 64
"""Number of images, the first by name, that are opened to detect whether they contain prompts."""


@dataclass(frozen=True, slots=True)
class FolderPrompts:
    """The prompts of n images.

    Attributes
    ----------
    found : sequence of Found or None
        The prompt of each image, None if it has none.
    without_image : int
        Number of prompts without an image.
    notes : tuple of str
    """

    found: Sequence[Found | None]
    without_image: int = 0
    notes: tuple[str, ...] = ()


class FolderSource(FileSource):
    """Images alone: every one is listed without a prompt, in code-point order of its path."""

    suffixes: ClassVar[Sequence[str]] = IMAGE_SUFFIXES

    @classmethod
    def recognise(cls, walk: Walk) -> str:
        """Accept any folder; this format is asked last."""
        return (
            "no file with prompts was found, and none of the first images has one"
            if walk.root.is_dir()
            else ""
        )

    def list(self) -> Listing:
        """List the images below the folder; an id is the path without its suffix.

        If there are prompts, the column `found_in` says where each was found; see `Found`.
        """
        found = self.take_walk().scan(self.suffixes)
        images = [name for name in found.files if name.lower().endswith(IMAGE_SUFFIXES)]
        images, originals = without_originals(images)
        ids = [without_suffix(name) for name in images]
        read = self.prompts(found, images)
        readers = [one.reader if one else "" for one in read.found]
        more = [pack(one.more) if one else "" for one in read.found]
        return make_listing(
            ids,
            images,
            [one.prompt if one else None for one in read.found],
            self.root,
            extras=text_columns({"found_in": readers, MORE_PROMPTS: more}),
            without_image=read.without_image,
            notes=(*self.notes, *read.notes, *count_note(originals, *ORIGINALS), *found.notes()),
        )

    def prompts(self, found: Scan, images: Sequence[str]) -> FolderPrompts:
        """Find the prompt of each image."""
        return FolderPrompts([None] * len(images))


class MetadataSource(FolderSource):
    """Images that contain their prompt, as their generators wrote it; see `embedded.find_prompt`."""

    @classmethod
    def recognise(cls, walk: Walk) -> str:
        """Look for a prompt inside the first images."""
        if not walk.root.is_dir():
            return ""
        first = islice(walk.scan(IMAGE_SUFFIXES).files, DETECTION_SAMPLE)
        name = next((name for name in first if read_prompt(walk.root / name) is not None), None)
        return f"{name} has a prompt inside" if name else ""

    def prompts(self, found: Scan, images: Sequence[str]) -> FolderPrompts:
        """Read the prompt from the metadata of every image."""
        return FolderPrompts([find_prompt(self.root / name) for name in images])
