"""Formats of prediction files, chosen by the extension of a path.

| extension | holds | nearest prompts, further columns |
|---|---|---|
| ``.npy`` | float32 (n, dim), in input order; ``x.ids.csv`` beside it: ``row,imgId`` | no; in ``x.ids.csv`` |
| ``.csv`` | Kaggle's ``imgId_eId,val``; the eIds of an image: ``<imgId>_0`` … ``<imgId>_383`` | no |
| ``.prompts.csv`` | to read: ``image,prompt,similarity``, ``expected`` where known | the first one |
| ``.parquet`` | ``imgId``, ``embedding``, ``prompts`` (a list of ``prompt``, ``cosine``) | where given |
| ``.jsonl`` | one object a line with the same names | where given |
| a folder | a ``.txt`` for each image: its composed or nearest prompt, no embedding | the first one |

Numbers in text have the fewest digits that read back as the same float32. Files are UTF-8.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from img2prompt_cache.destination import require_earlier_output, require_free_place
from img2prompt_cache.errors import UsageError
from img2prompt_cache.files import Replacement
from img2prompt_cache.prediction.outputs.base import Writer
from img2prompt_cache.prediction.outputs.captions import CaptionWriter
from img2prompt_cache.prediction.outputs.jsonl import JsonlWriter
from img2prompt_cache.prediction.outputs.kaggle import CsvWriter
from img2prompt_cache.prediction.outputs.npy import NpyWriter
from img2prompt_cache.prediction.outputs.parquet import ParquetWriter
from img2prompt_cache.prediction.outputs.prompt_table import PromptTableWriter

WRITERS: dict[str, type[Writer]] = {
    ".npy": NpyWriter,
    ".csv": CsvWriter,
    ".parquet": ParquetWriter,
    ".jsonl": JsonlWriter,
    ".prompts.csv": PromptTableWriter,
}
"""Extension to the writer of its format; the longest that fits counts."""


def writer_for(path: str | Path, parameter: str = "out") -> type[Writer]:
    """Choose the format: captions for a path that ends with ``/`` or is a folder, else by the extension.

    `parameter` is what names it, for the message.

    Raises
    ------
    UsageError
        If the extension is unknown.
    """
    name = os.fspath(path)
    is_folder = name.endswith(("/", os.sep))
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    endings = ("".join(suffixes[-2:]), "".join(suffixes[-1:]))
    kind = None if is_folder else next(filter(None, map(WRITERS.get, endings)), None)
    if is_folder or (name and kind is None and Path(name).is_dir()):
        return CaptionWriter
    if kind is None:
        captions = "; a name that ends with / is a folder of captions" * (parameter == "out")
        raise UsageError(
            f"`{parameter}` {path}: the extension must be one of {', '.join(WRITERS)}{captions}",
            parameter=parameter,
        )
    return kind


def open_writer(
    path: str | Path,
    dim: int,
    *,
    overwrite: bool = False,
    inputs: Iterable[str | Path] = (),
    parameter: str = "out",
) -> Writer:
    """Choose the writer by the extension of `path`, and find out now whether it can be written.

    Parameters
    ----------
    path : str or pathlib.Path
        File to be made; its extension is a key of `WRITERS`. Or a folder of captions; see `writer_for`.
    dim : int
        Width of the embeddings.
    overwrite : bool
        Replace an earlier output, once the new file is whole; no other file is replaced.
    inputs : iterable of path, optional
        Files that are read meanwhile; none of them is replaced.
    parameter : str
        What names the path, for messages.

    Returns
    -------
    Writer
        To be entered with ``with``.

    Raises
    ------
    UsageError
        If the extension is unknown, the folder is not there, not writable or part of a cache or run, or a
        file is there already and `overwrite` is not set or it is no earlier output.
    """

    def refuse(why: str) -> UsageError:
        return UsageError(f"`{parameter}` {path}{why}", parameter=parameter)

    kind, path = writer_for(path, parameter), Path(path)
    if kind is CaptionWriter:
        return CaptionWriter(path, dim, overwrite=overwrite, inputs=inputs)
    if not path.parent.is_dir():
        raise refuse(f": the folder {path.parent} does not exist; make it first")
    inputs = list(inputs)
    # The path that was given comes first: a message had better name that one.
    finals = sorted(kind.finals(path), key=lambda final: final != path)
    for final in finals:
        require_free_place(final, parameter, inputs=inputs)
    try:
        Replacement(path).discard()
    except OSError as error:
        raise refuse(f" cannot be made: {error.strerror}; name another file") from error
    for final in finals:
        if final.is_dir():
            raise refuse(f": {final} is a folder; name a file")
        if final.exists() and not overwrite:
            raise refuse(f": {final} exists; give `overwrite=True` to replace it, or another name")
        require_earlier_output(final, parameter, "predict", kind.is_ours)
    return kind(path, dim)
