"""The out-of-fold predictions of a run, written as a file that others can read."""

from __future__ import annotations

from pathlib import Path

from img2prompt_cache.errors import UsageError
from img2prompt_cache.prediction.outputs import open_writer, writer_for
from img2prompt_cache.prediction.outputs.base import Writer
from img2prompt_cache.prediction.outputs.captions import CaptionWriter
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.run import Run


def open_oof(path: str | Path, width: int, *, overwrite: bool) -> Writer:
    """Choose the writer for out-of-fold predictions, and find out now whether it can be written.

    Parameters
    ----------
    path : str or pathlib.Path
        ``.npy``, ``.csv`` (as Kaggle's submissions), ``.parquet`` or ``.jsonl``; see `outputs.formats`.
    width : int
        Of the embeddings.
    overwrite : bool
        Replace an earlier output.

    Raises
    ------
    UsageError
        As `open_writer`, or if it would be captions.
    """
    if writer_for(path, "oof") is CaptionWriter:
        raise UsageError(f"`oof` {path} would be a folder of captions; name a file", parameter="oof")
    return open_writer(path, width, overwrite=overwrite, parameter="oof")


def save_oof(run: Run, path: str | Path, *, overwrite: bool) -> None:
    """Write what a run predicts for its held-out rows, by heads that were not fitted on them.

    By folds these are all rows, in the order of the cache; of a hold-out only that share.

    Raises
    ------
    UsageError, Img2PromptError
        As `open_oof`; also if the file cannot be written.
    """
    held = load_validation(run.folder, run)
    with open_oof(path, run.target.width, overwrite=overwrite) as writer:
        writer.write(held.ids, held.predictions)
