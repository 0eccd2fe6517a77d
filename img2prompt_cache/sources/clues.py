"""The error for images without a single prompt: which files may contain prompts, and how to read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources.columns import PROMPT_COLUMNS, bytes_column, pick_column
from img2prompt_cache.sources.findtables import ANNOTATIONS
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, without_suffix
from img2prompt_cache.sources.owntables import is_own_table
from img2prompt_cache.sources.reading import read_regular
from img2prompt_cache.sources.remote import RemoteRoot
from img2prompt_cache.sources.scan import count_note, files_in, scan
from img2prompt_cache.sources.sidecar import TEXT_SUFFIXES
from img2prompt_cache.sources.tablefile import (
    DOCUMENT_SUFFIX,
    TABLE_SUFFIXES,
    column_names,
    read_table,
    split_prompts,
)

MOST = 3
"""Number of tables that are opened."""
_BLANK = 1 << 10
_SHEETS = (".xlsx", ".xls", ".ods")
_ARCHIVES = (".tar.gz", ".tgz", ".zip", ".7z", ".rar", ".tar.zst")


def explain_missing_prompts(
    root: Path | RemoteRoot, images: int, settings: Mapping[str, str], notes: Sequence[str] = ()
) -> str:
    """Explain that no image has a prompt, which files may contain prompts, and how to read them.

    Parameters
    ----------
    root : pathlib.Path or RemoteRoot
        Root of the source.
    images : int
        Number of images.
    settings : mapping of str to str
        Of the source: its `format`, and `prompt_column` if that was given.
    notes : sequence of str
        Of the listing: what was found out already.
    """
    format = settings["format"]
    if isinstance(root, RemoteRoot):
        found = "; ".join(notes) or "nothing in these files looks like captions"
    else:
        folder = root.parent if root.is_file() else root
        clues = [*notes, *_clues(folder, format, settings.get("prompt_column"), notes)]
        found = "; ".join(clues) or "nothing beside them looks like captions"
    alone = (
        '. To cache images without prompts, give `format="folder"`'
        if format in ("imagefolder", "table", "sidecar", "metadata", "folder")
        else ""
    )
    read = f' (read as `format="{format}"`)' if format != "folder" else ", and no format with prompts fits"
    none = (
        f"the one image of {root} has no" if images == 1 else f"none of the {images} images of {root} has a"
    )
    return f"{none} prompt{read}: {found}{alone}"


def _clues(folder: Path, format: str, column: str | None, notes: Sequence[str]) -> Iterator[str]:
    names = scan(folder, (*TABLE_SUFFIXES, *TEXT_SUFFIXES, *_SHEETS, *_ARCHIVES, ".tar", ".json")).files
    tables = [folder / name for name in names if name.lower().endswith(TABLE_SUFFIXES)]
    if not tables:
        tables = [folder.parent / name for name in files_in(folder.parent, TABLE_SUFFIXES)]
    unread = (path for path in tables if not any(f"{path} " in note for note in notes))
    for path in islice((path for path in unread if not is_own_table(path)), MOST):
        yield _table(path, column)
    for endings, remedy in (
        (TEXT_SUFFIXES, "give a text the name of its image, and make a list of prompts a CSV: imgId,prompt"),
        ((".tar",), '`format="webdataset"` reads it'),
        (_SHEETS, "save it as CSV in UTF-8, and name it with `prompts`"),
        (_ARCHIVES, "unpack it"),
    ):
        ending = [name for name in names if name.lower().endswith(endings)]
        if endings == TEXT_SUFFIXES and ending:
            images = scan(folder, IMAGE_SUFFIXES).files
            stems = {*images, *map(without_suffix, images)}
            beside = [name for name in ending if name.rpartition(".")[0] in stems]
            blank = [name for name in beside if _is_blank(folder / name)]
            yield from count_note(blank, "text is empty", "texts are empty")
            ending = [name for name in ending if name.rpartition(".")[0] not in stems]
        if ending and not (endings == (".tar",) and format == "webdataset"):
            more = f" and {len(ending) - 1} more" if ending[1:] else ""
            yield f"{ending[0]}{more}: {remedy}"
    documents = [name for name in names if name.lower().endswith(DOCUMENT_SUFFIX)]
    captions = [name for name in documents if name.lower().rpartition("/")[2].startswith("captions")]
    yield from _annotations(folder)
    if captions:
        yield f"{captions[0]} may be a list of captions: name it with `prompts`, and the folder of its images"
    elif documents and not any("JSON files" in note for note in notes):
        yield f"{len(documents)} JSON files (first: {documents[0]}) state no prompt under a usual name"


def _annotations(folder: Path) -> Iterator[str]:
    """Find COCO's captions in ``annotations/`` beside the folder of the images, rather those of its name."""
    known = [
        f"{place}/{name}"
        for place in ANNOTATIONS
        for name in files_in(folder.parent / place, DOCUMENT_SUFFIX)
        if name.lower().startswith("captions")
    ]
    known.sort(key=lambda name: folder.name not in name)
    if known:
        yield f"{folder.parent / known[0]} may be a list of captions of these images: name it with `prompts`"


def _is_blank(path: Path) -> bool:
    try:
        return not read_regular(path, _BLANK).strip()
    except ImageError:
        return False


def _table(path: Path, prompt_column: str | None) -> str:
    try:
        columns = column_names(path)
    except UsageError as error:
        return str(error)
    if path.suffix.lower() == ".parquet" and bytes_column(pq.read_schema(path)) is not None:
        return f'{path} holds images: name it as the source, or give `format="parquet"`'
    told = ", ".join(columns[:20]) or "none"
    try:
        column = pick_column(columns, prompt_column, PROMPT_COLUMNS, "prompt_column", path)
        prompts, _ = split_prompts(read_table(path, prompt_column)[column])
    except (UsageError, KeyError):
        prompts = None
    if prompts is not None and prompts.null_count == len(prompts):
        other = ". If another column has prompts, name it with `prompt_column`" if columns[2:] else ""
        return f"{path} has the columns {told}, but its column {column} is blank in all rows{other}"
    return (
        f"{path} has the columns {told}: name it with `prompts`, and its columns with `id_column` and "
        "`prompt_column`"
    )
