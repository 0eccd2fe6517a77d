"""Formats of sources, and which of them a folder or file has.

`open_source` detects the format by asking each of `FORMATS` in order and takes the first that recognises the
folder or file. If others of the first four recognise it, too, a note in the listing says so; and also if
images have prompts beside or inside them that the first two leave out (see `hidden`). A table that was not
named, and names no image, is left out (`list_source`):

1. ``imagefolder``: ``metadata.csv|jsonl|parquet`` with `file_name` and a prompt column, or DiffusionDB's
   ``part-*/part-*.json``, in the folder or below it;
2. ``table``: ``prompts.csv|tsv|jsonl|parquet|json``, or another table with an id and a prompt column in the
   folder, or the only one in its sub-folders; but not the tables that img2dataset writes beside its shards;
3. ``webdataset``: ``.tar`` files;
4. ``parquet``: ``.parquet`` files with a column of image bytes;
5. ``sidecar``: a text or JSON beside an image, see `sidecar`;
6. ``metadata``: a prompt inside one of the first images;
7. ``folder``: images alone.

If `prompts` names a table, the format is ``table``; `id_column` and `prompt_column` exclude the formats that
have no columns. A new source is one module and one line in `FORMATS`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.sources.base import Listing, Source, SourceOptions
from img2prompt_cache.sources.files import FileSource
from img2prompt_cache.sources.folder import FolderSource, MetadataSource
from img2prompt_cache.sources.imagefolder import ImageFolderSource
from img2prompt_cache.sources.matching import UnmatchedTableError
from img2prompt_cache.sources.named import NamedSource, as_recorded
from img2prompt_cache.sources.names import IMAGE_SUFFIXES
from img2prompt_cache.sources.packed import PackedSource
from img2prompt_cache.sources.parquet import ParquetSource
from img2prompt_cache.sources.paths import PathsSource
from img2prompt_cache.sources.remote import RemoteRoot, is_url
from img2prompt_cache.sources.scan import Walk
from img2prompt_cache.sources.sidecar import SidecarSource
from img2prompt_cache.sources.table import TableSource
from img2prompt_cache.sources.webdataset import WebDatasetSource

FORMATS: dict[str, type[FileSource]] = {
    "imagefolder": ImageFolderSource,
    "table": TableSource,
    "webdataset": WebDatasetSource,
    "parquet": ParquetSource,
    "sidecar": SidecarSource,
    "metadata": MetadataSource,
    "folder": FolderSource,
}
"""Sources by the names of their formats, in the order of detection."""


def open_source(path: str | Path, options: SourceOptions | None = None) -> FileSource:
    """Open a folder or file as a source; its format is detected unless `options` names it.

    Parameters
    ----------
    path : str or pathlib.Path
        A path, or a URL as a str: tar shards or parquet files on another machine.
    options : SourceOptions, optional

    Raises
    ------
    UsageError
        If it does not exist, has no known format, or an option does not fit the format.
    """
    options = options or SourceOptions()
    if options.format not in ("auto", *FORMATS):
        raise unknown("`format`", options.format, FORMATS, parameter="format")
    if is_url(path):
        remote = RemoteRoot(str(path))
        if remote.local is None:
            return _open_remote(remote, options)
        path = remote.local
    root = Path(os.path.abspath(path))  # noqa: PTH100 - a link stays as the user named it
    if not root.exists():
        raise UsageError(f"there is no file or folder {path}", parameter="source")
    if isinstance(options.prompts, Path):
        options = replace(options, prompts=Path(os.path.abspath(options.prompts)))  # noqa: PTH100
    given = {key for key, value in asdict(options).items() if key != "format" and value is not None}
    notes: tuple[str, ...] = ()
    walk = Walk(root)
    detected = options.format == "auto"
    why = "asked for"
    if detected:
        fitting = {"table": f"{options.prompts} was named"} if options.prompts else _detect(walk, given)
        if not fitting and given:
            raise UsageError(
                f"`{min(given)}` goes with a table, and {path} holds none; name one with `prompts`, or leave "
                "the option out",
                parameter=min(given),
            )
        if not fitting:
            raise UsageError(
                f"{path} is not a source: give a folder of images, a table, a .tar or a parquet file",
                parameter="source",
            )
        (format, why), *others = fitting.items()
        options = replace(options, format=format)
        if others:
            more = ", ".join(name for name, _ in others)
            notes = (f"read as {format}; also looks like {more} (`format` chooses)",)
    source = FORMATS[options.format]
    for key in sorted(given - source.takes):
        raise UsageError(f'`{key}` means nothing to `format="{options.format}"`; leave it out', parameter=key)
    return source(root, options, notes, detected, why, [walk])


def _open_remote(root: RemoteRoot, options: SourceOptions) -> FileSource:
    """Open what a URL stands for; its format is told by the endings of the names."""
    given = {key for key, value in asdict(options).items() if key != "format" and value is not None}
    packed = {name: source for name, source in FORMATS.items() if issubclass(source, PackedSource)}
    format = options.format
    why = "asked for"
    if format == "auto":
        found = {name: root.names(source.suffix) for name, source in packed.items()}
        format = next((name for name, names in found.items() if names), "")
        why = f"{found[format][0]} is a {packed[format].suffix} file" if format else ""
    if format not in packed:
        raise UsageError(
            f"`source`: {root} names no .tar shards and no .parquet files, and nothing else is read from "
            "elsewhere. Copy a folder of images to this machine, or pack it into shards; a table goes with "
            "`prompts`",
            parameter="source",
        )
    for key in sorted(given - packed[format].takes):
        raise UsageError(f'`{key}` means nothing to `format="{format}"`; leave it out', parameter=key)
    detected = options.format == "auto"
    return packed[format](root, replace(options, format=format), (), detected, why)


def list_source(source: Source) -> tuple[Source, Listing]:
    """List a source; where a table was only detected, and names no image, take the next format that fits.

    Returns
    -------
    source : Source
        The one that was listed. Its notes say which tables were left out.
    listing : Listing

    Raises
    ------
    UsageError
        As `Source.list`; that no row of a table names an image, only if the user asked for the table.
    """
    if isinstance(source, NamedSource):
        inner, listing = list_source(source.source)
        return replace(source, source=inner), source.rename(listing)
    notes: dict[str, None] = {}
    while True:
        try:
            return source, source.list()
        except UnmatchedTableError as error:
            if not isinstance(source, FileSource) or not source.detected or not source.root.is_dir():
                raise
            if source.settings.keys() != {"format"}:
                raise
            notes[str(error)] = None
            walk = source.take_walk()
            at = list(FORMATS).index(source.options.format)
            format, why = next(iter(_detect(walk, set(), after=at).items()))
            options = replace(source.options, format=format)
            source = FORMATS[format](
                source.root, options, tuple(notes), detected=True, why=why, _walks=[walk]
            )


def note_ignored_prompts(source: Source) -> tuple[str, ...]:
    """Note which format would read prompts in a folder that is read as images alone, if one would."""
    source = source.source if isinstance(source, NamedSource) else source
    if not isinstance(source, FolderSource) or source.options.format != "folder":
        return ()
    for format, why in _detect(Walk(source.root), set()).items():
        if format != "folder":
            return (f'`format="folder"` reads no prompts, but {why}: `format="{format}"` reads them',)
    return ()


def reopen_source(entry: Mapping[str, str]) -> Source:
    """Open a source again from ``{"root": source.root, **source.settings}``.

    Raises
    ------
    UsageError
        As `open_source`.
    """
    prompts = entry.get("prompts")
    options = SourceOptions(
        format=entry["format"],
        prompts=table_of_prompts(prompts or None),
        id_column=entry.get("id_column"),
        prompt_column=entry.get("prompt_column"),
    )
    source = open_source(entry["root"], options)
    return as_recorded(replace(source, why="it was cached as that before"), entry)


def table_of_prompts(named: str | Path | None) -> Path | RemoteRoot | None:
    """Give the table that `prompts` names by a path or a URL.

    Raises
    ------
    UsageError
        If it is a URL of something else.
    """
    if named is None:
        return None
    if not is_url(named):
        return Path(named)
    table = RemoteRoot(str(named))
    if not table.is_file():
        raise UsageError(f"`prompts` must be one table, not {table}", parameter="prompts")
    return table.local or table


def open_paths(paths: Sequence[Path]) -> Source:
    """Open the images for a prediction: one source of any format, or a list of images and folders of images.

    Raises
    ------
    UsageError
        If nothing was given, or none of the files and folders exists.
    """
    if len(paths) == 1 and not paths[0].name.lower().endswith(IMAGE_SUFFIXES):
        return open_source(paths[0])
    return PathsSource(paths)


def list_images(paths: Sequence[Path]) -> tuple[Source, Listing]:
    """Open and list the images for a prediction, which needs no prompts.

    In a folder without a table, prompts beside or inside the images are not searched for. If a table cannot
    be read or matched with the images, they are listed without it, and a note says why.

    Raises
    ------
    UsageError
        As `open_paths`; or if there are no images.
    """
    source = open_paths(paths)
    if isinstance(source, FolderSource):
        source = PathsSource(paths)
    try:
        return source, source.list()
    except UsageError as error:
        if isinstance(source, PathsSource) or not paths[0].is_dir():
            raise
        images = PathsSource(paths, (f"the images are taken without their table: {error}",))
        try:
            return images, images.list()
        except UsageError:
            raise error from None


def find_default(folder: Path) -> Path:
    """Find the source of an `extract` without one: ``images/`` in the folder, or the folder itself.

    The folder itself only where a table, tar shards or parquet files are there; then every image below it is
    a row.

    Raises
    ------
    UsageError
        If there is no folder ``images/``, and the folder is not a source.
    """
    if (folder / "images").is_dir():
        return folder / "images"
    named = ("imagefolder", "table", "webdataset", "parquet")
    walk = Walk(folder)
    if any(FORMATS[name].recognise(walk) for name in named):
        return folder
    raise UsageError(
        f"nothing to extract in {folder}: there is no images/ with prompts.csv beside it, nor a table of "
        "prompts, metadata.csv, .tar or parquet files with images. Name a `source`",
        parameter="source",
    )


def _detect(walk: Walk, given: set[str], after: int = -1) -> dict[str, str]:
    """List the formats that recognise a root, and why; those that open images are asked only if none did.

    Only the formats after number `after` are asked.
    """
    known: dict[str, str] = {}
    for name, source in islice(FORMATS.items(), after + 1, None):
        if known and issubclass(source, FolderSource):
            break
        if given <= source.takes and (why := source.recognise(walk)):
            known[name] = why
    return known
