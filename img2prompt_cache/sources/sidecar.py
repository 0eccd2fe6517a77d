"""Prompts in files beside images: ``cat.png`` and ``cat.txt``, ``cat.caption``, ``cat.json``, …

A text belongs to the image with the same name, with or without the image's suffix (``cat.png.json``); or to
the image with the same name in a sibling folder (``images/cat.png`` and ``captions/cat.txt``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources.captions import decode_text, prompt_of_text
from img2prompt_cache.sources.embedded.prompts import Found, read_prompt
from img2prompt_cache.sources.folder import DETECTION_SAMPLE, FolderPrompts, FolderSource
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, without_suffix
from img2prompt_cache.sources.reading import MAX_TEXT_BYTES, read_regular
from img2prompt_cache.sources.scan import Scan, Walk, count_note

TEXT_SUFFIXES = (".txt", ".caption", ".prompt")
"""Suffixes of texts, the preferred one first."""
RECORD_SUFFIXES = (".swarm.json", ".json", ".civitai.info")
"""Suffixes of JSON files beside images, which often contain no prompt."""
_ENDINGS = (*TEXT_SUFFIXES, *RECORD_SUFFIXES)
CAPTION_FOLDERS = frozenset({"captions", "caption", "texts", "text", "txt", "prompts", "prompt"})
IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "pictures", "photos"})
_INSIDE = (
    'of the first {1} of {0} images without a prompt beside them {2} one inside: `format="metadata"` reads '
    "it, and leaves out what lies beside"
)
_TWO_TEXTS = "with two texts that differ; the .txt, else the .caption, is taken"
DEEPEST = 8
"""Number of folders in a path that are compared with `CAPTION_FOLDERS` and `IMAGE_FOLDERS`."""


class SidecarSource(FolderSource):
    """Images with their prompts in files beside them."""

    suffixes: ClassVar[Sequence[str]] = (*IMAGE_SUFFIXES, *TEXT_SUFFIXES, *RECORD_SUFFIXES)

    @classmethod
    def recognise(cls, walk: Walk) -> str:
        """Look for an image with a text beside it, or one of the first with JSON that states a prompt."""
        root = walk.root
        if not root.is_dir():
            return ""
        files = walk.scan(cls.suffixes).files
        images = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES)]
        try:
            pairs, _ = pair(images, files)
        except UsageError as error:
            return str(error)  # ambiguous; `list` raises the error
        beside = [(name, image) for image in images for name in pairs.get(image, ())]
        texts = (one for one in beside if one[0].lower().endswith(TEXT_SUFFIXES))
        records = (one for one in beside[:DETECTION_SAMPLE] if states_prompt(root / one[0]))
        name, image = next(texts, None) or next(records, ("", ""))
        return f"{name} states the prompt of {image}" if name else ""

    def prompts(self, found: Scan, images: Sequence[str]) -> FolderPrompts:
        """Read the files beside each image; of several, the first that contains a prompt counts."""
        pairs, lost = pair(images, found.files)
        bad: list[str] = []
        large: list[str] = []
        silent: list[str] = []
        differ: list[str] = []
        prompts = [self._prompt(pairs.get(image, ()), bad, large, silent, differ) for image in images]
        alone = [image for image, prompt in zip(images, prompts, strict=True) if prompt is None]
        inside = [image for image in alone[:DETECTION_SAMPLE] if read_prompt(self.root / image)]
        notes = (
            *count_note(
                inside,
                *(
                    _INSIDE.format(len(alone), min(len(alone), DETECTION_SAMPLE), carry)
                    for carry in ("carries", "carry")
                ),
            ),
            *count_note(
                large,
                f"file beside an image is larger than {MAX_TEXT_BYTES >> 20} MiB, and was not read",
                f"files beside images are larger than {MAX_TEXT_BYTES >> 20} MiB, and were not read",
            ),
            *count_note(
                bad,
                "text file that cannot be read or is not UTF-8",
                "text files that cannot be read or are not UTF-8",
            ),
            *count_note(
                silent,
                "JSON file beside an image that states no prompt",
                "JSON files beside images that state no prompt",
            ),
            *count_note(differ, f"image {_TWO_TEXTS}", f"images {_TWO_TEXTS}"),
        )
        return FolderPrompts(prompts, len(lost), notes)

    def _prompt(
        self,
        names: Iterable[str],
        bad: list[str],
        large: list[str],
        silent: list[str],
        differ: list[str],
    ) -> Found | None:
        first: Found | None = None
        for name in names:
            text = name.lower().endswith(TEXT_SUFFIXES)
            if first and not text:
                break
            try:
                found = _read(self.root / name)
            except (ImageError, UnicodeDecodeError):
                (large if _is_large(self.root / name) else bad).append(name)
                continue
            if first and found and found.prompt.strip() != first.prompt.strip():
                differ.append(name)
            elif found is None and not text:
                silent.append(name)
            first = first or found
        return first


def pair(images: Sequence[str], files: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Find the texts of each image.

    Parameters
    ----------
    images, files : sequences of str
        Paths below a folder. Of `files`, only texts and JSON are used.

    Returns
    -------
    pairs : dict of str to list of str
        The texts of each image, the preferred one first; only images that have some.
    lost : list of str
        Texts without an image, but not JSON, which may be anything.

    Raises
    ------
    UsageError
        If an image with the name of a text is in two sibling folders.
    """
    texts: dict[str, str] = {}
    for name in files:
        ending = next((ending for ending in _ENDINGS if name.lower().endswith(ending)), None)
        if ending:
            texts[name[: -len(ending)] + ending] = name
    pairs: dict[str, list[str]] = {}
    used: set[str] = set()
    for image in images:
        keys = (stem + ending for ending in _ENDINGS for stem in (without_suffix(image), image))
        names = [texts[key] for key in dict.fromkeys(keys) if key in texts]
        if names:
            pairs[image] = names
            used.update(names)
    plain = (name for name in texts.values() if name.lower().endswith(TEXT_SUFFIXES))
    lost = [name for name in plain if name not in used]
    beside = _pair_folders([image for image in images if image not in pairs], lost)
    pairs.update((image, [name]) for image, name in beside.items())
    taken = set(beside.values())
    return pairs, [name for name in lost if name not in taken]


def _pair_folders(images: Sequence[str], texts: Iterable[str]) -> dict[str, str]:
    """Match ``images/a.png`` with ``captions/a.txt``: paths that differ in one folder."""
    wanted: dict[str, list[str]] = {}
    for name in texts:
        for folder, rest in _without_a_folder(name):
            if folder.lower() in CAPTION_FOLDERS:
                wanted.setdefault(rest.rpartition(".")[0], []).append(name)
    if not wanted:
        return {}
    found: dict[str, list[tuple[bool, str]]] = {}
    pairs: dict[str, str] = {}
    for image in images:
        stem = without_suffix(image)
        for folder, rest in [*_without_a_folder(stem), ("", stem)]:
            for name in wanted.get(rest, [])[:2]:
                found.setdefault(name, []).append((folder.lower() in IMAGE_FOLDERS, image))
    for name, candidates in found.items():
        known = [image for likely, image in candidates if likely] or [image for _, image in candidates]
        if len(known) > 1:
            raise UsageError(
                f"{name} may belong to {known[0]} or to {known[1]}; put it beside its image, or name the "
                "folder of the images `images`"
            )
        if known[0] in pairs:
            raise UsageError(f"{known[0]} may have the prompt of {pairs[known[0]]} or of {name}; keep one")
        pairs[known[0]] = name
    return pairs


def _without_a_folder(path: str) -> Iterator[tuple[str, str]]:
    """Yield each folder of a path, the outermost first, with the path without that folder."""
    parts = path.split("/")
    for at, folder in enumerate(parts[:-1][:DEEPEST]):
        yield folder, "/".join((*parts[:at], *parts[at + 1 :]))


def _read(path: Path) -> Found | None:
    return prompt_of_text(decode_text(read_regular(path, MAX_TEXT_BYTES)))


def _is_large(path: Path) -> bool:
    try:
        return path.stat().st_size > MAX_TEXT_BYTES
    except OSError:
        return False


def states_prompt(path: Path) -> bool:
    """Check whether a file beside an image can be read and states a prompt."""
    try:
        return _read(path) is not None
    except (ImageError, UnicodeDecodeError):
        return False
