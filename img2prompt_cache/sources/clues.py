"""The error for images without a single prompt: which files may contain prompts, and how to read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.columns import bytes_column
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, without_suffix
from img2prompt_cache.sources.owntables import is_own_table
from img2prompt_cache.sources.scan import files_in, scan
from img2prompt_cache.sources.sidecar import TEXT_SUFFIXES
from img2prompt_cache.sources.tablefile import DOCUMENT_SUFFIX, TABLE_SUFFIXES, column_names

MOST = 3
"""Number of tables that are opened."""
_SHEETS = (".xlsx", ".xls", ".ods")
_ARCHIVES = (".tar.gz", ".tgz", ".zip", ".7z", ".rar", ".tar.zst")


def explain_missing_prompts(root: Path, images: int, format: str, notes: Sequence[str] = ()) -> str:
    """Explain that no image has a prompt, which files may contain prompts, and how to read them.

    Parameters
    ----------
    root : pathlib.Path
        Root of the source.
    images : int
        Number of images.
    format : str
        The format as which the source was read.
    notes : sequence of str
        What was found out already: tables that name no image.
    """
    folder = root.parent if root.is_file() else root
    clues = [*notes, *_clues(folder, format, notes)]
    found = "; ".join(clues) or "nothing beside them looks like captions"
    alone = (
        '. To cache images without prompts, give `format="folder"`'
        if format in ("imagefolder", "table", "sidecar", "metadata", "folder")
        else ""
    )
    return f'none of the {images} images of {root} has a prompt (read as `format="{format}"`): {found}{alone}'


def _clues(folder: Path, format: str, notes: Sequence[str]) -> Iterator[str]:
    names = scan(folder, (*TABLE_SUFFIXES, *TEXT_SUFFIXES, *_SHEETS, *_ARCHIVES, ".tar", ".json")).files
    tables = [folder / name for name in names if name.lower().endswith(TABLE_SUFFIXES)]
    if not tables:
        tables = [folder.parent / name for name in files_in(folder.parent, TABLE_SUFFIXES)]
    unread = (path for path in tables if not any(f"{path} " in note for note in notes))
    yield from map(_table, islice((path for path in unread if not is_own_table(path)), MOST))
    for endings, remedy in (
        (TEXT_SUFFIXES, "give a text the name of its image, and make a list of prompts a CSV: imgId,prompt"),
        ((".tar",), '`format="webdataset"` reads it'),
        (_SHEETS, "save it as CSV in UTF-8, and name it with `prompts`"),
        (_ARCHIVES, "unpack it"),
    ):
        ending = [name for name in names if name.lower().endswith(endings)]
        if endings == TEXT_SUFFIXES and ending:
            stems = {without_suffix(name) for name in scan(folder, IMAGE_SUFFIXES).files}
            ending = [name for name in ending if name.rpartition(".")[0] not in stems]
        if ending and not (endings == (".tar",) and format == "webdataset"):
            more = f" and {len(ending) - 1} more" if ending[1:] else ""
            yield f"{ending[0]}{more}: {remedy}"
    documents = [name for name in names if name.lower().endswith(DOCUMENT_SUFFIX)]
    captions = [name for name in documents if name.lower().rpartition("/")[2].startswith("captions")]
    if captions:
        yield f"{captions[0]} may be a list of captions: name it with `prompts`, and the folder of its images"
    elif documents:
        yield f"{len(documents)} JSON files (first: {documents[0]}) state no prompt under a usual name"


def _table(path: Path) -> str:
    try:
        columns = column_names(path)
    except UsageError as error:
        return str(error)
    if path.suffix.lower() == ".parquet" and bytes_column(pq.read_schema(path)) is not None:
        return f'{path} holds images: name it as the source, or give `format="parquet"`'
    told = ", ".join(columns[:20]) or "none"
    return (
        f"{path} has the columns {told}: name it with `prompts`, and its columns with `id_column` and "
        "`prompt_column`"
    )
