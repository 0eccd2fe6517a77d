"""Lists of captions in a text file: the name of an image and a caption on each line.

Flickr8k's ``captions.txt`` (``a.jpg,a caption`` after a header) and ``Flickr8k.token.txt``
(``a.jpg#0``, a tab, a caption), and lists like them. A list of captions alone, one for each image in some
order, is not read, because nothing in it says which image a line belongs to.
"""

from __future__ import annotations

import re
from pathlib import Path

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources.names import IMAGE_SUFFIXES
from img2prompt_cache.sources.reading import read_regular

LIST_NAMES = ("captions.txt", "caption.txt", "prompts.txt", "token.txt", "tokens.txt")
"""Endings of the names of such lists; a text with another name is the prompt of one image."""
MAX_LIST_BYTES = 96 << 20
_SUFFIXES = "|".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
_LINE = re.compile(
    rf'"?(?P<name>[^\t|,;"]{{0,1000}}?\.(?:{_SUFFIXES}))"?(?:#\d{{1,4}})?(?:\s*[\t,|;:]\s*|\s+)(?P<text>\S.*)',
    re.IGNORECASE,
)


def read_list(path: Path, lines: int | None = None) -> dict[str, list[str]]:
    """Read a list of captions.

    Parameters
    ----------
    path : pathlib.Path
    lines : int, optional
        Read only so many lines.

    Returns
    -------
    dict of str to list of str
        The captions of every image, in the order of the file.

    Raises
    ------
    UsageError
        If the file is too large, or a line other than the first, which may be a header, has no image or no
        caption.
    UnicodeDecodeError
        If it is not UTF-8.
    """
    try:
        text = read_regular(path, MAX_LIST_BYTES).decode("utf-8-sig")
    except ImageError as error:
        raise UsageError(f"{path} {error}; write it as CSV: imgId,prompt") from error
    found: dict[str, list[str]] = {}
    for number, line in enumerate(map(str.strip, text.split("\n")[:lines])):
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match:
            found.setdefault(match["name"], []).append(_unquoted(match["text"]))
        elif number:
            raise UsageError(
                f"{path}, line {number + 1}, does not begin with the name of an image; make it a CSV with "
                "the columns imgId,prompt"
            )
    return found


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1].replace('""', '"') if quoted else text
