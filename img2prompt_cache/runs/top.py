"""The verb `top`: the pictures of a cache by how well a run predicts their prompts, or is expected to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.cache.reader import OK, Cache
from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.extraction.image_files import ImageFiles
from img2prompt_cache.prediction.cached_rows import best_first, predict_rows, steps
from img2prompt_cache.progress import Callback, listening, note, task
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.names import open_run
from img2prompt_cache.runs.run import AnyRun, Run
from img2prompt_cache.tables import Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

TOP = 10
"""Pictures that are shown unless a number is asked for."""
BY = ("expected", "score")


def top(
    cache: str | Path | Cache = DEFAULT_CACHE,
    run: AnyRun | None = None,
    *,
    by: Literal["expected", "score"] = "expected",
    worst: bool = False,
    top_k: int = TOP,
    device: str = "auto",
    progress: bool | Callback = False,
) -> Records:
    """Rank the pictures of a cache by how well a run predicts their prompts.

    Parameters
    ----------
    cache : str, pathlib.Path or Cache
        Its pictures are ranked.
    run : Run, str or pathlib.Path, optional
        A run, its folder, or its name in the cache's `runs`; the newest if None.
    by : {"expected", "score"}
        ``"expected"``: the cosine that is expected, of all pictures, whether they have a prompt or not.
        ``"score"``: the true cosine, of the pictures that were held out when the run was fitted.
    worst : bool
        The lowest first.
    top_k : int
        How many pictures.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    progress : bool or callable
        True shows notes and progress bars; a callable is called with every `Event`.

    Returns
    -------
    Records
        `row` in the cache, `imgId`, `expected` or `score`, `prompt` (its own; empty where it has none) and
        `file` (None where it lies in an archive, or is gone).

    Raises
    ------
    UsageError
        If there is no such cache or run, or the run does not say what to expect.
    Img2PromptError
        If the run is damaged, or was fitted on other columns.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> ipc.top(by="score", worst=True).to_pandas()  # doctest: +SKIP
    """
    if by not in BY:
        raise unknown("`by`", str(by), BY, parameter="by")
    if top_k < 1:
        raise UsageError(f"`top_k` must be at least 1, not {top_k}", parameter="top_k")
    opened = cache if isinstance(cache, Cache) else Cache(cache)
    fitted = open_run(run, opened)
    with listening(progress) as tell:
        if run is None:
            note(tell, f"run {fitted.name}")
        text = opened.text("imgId", "prompt", "status")
        values = (
            _scores(fitted, text["imgId"])
            if by == "score"
            else _expected(opened, fitted, text["status"], device, tell)
        )
        files = ImageFiles(opened)
        return Records(
            {
                "row": row,
                "imgId": text["imgId"][row],
                by: float(values[row]),
                "prompt": text["prompt"][row],
                "file": None if (file := files.path(row)) is None else str(file),
            }
            for row in best_first(-values if worst else values, top_k).tolist()
        )


def _expected(cache: Cache, run: Run, status: list[str], device: str, tell: Callback) -> F32:
    """Give the expected cosine of every row; NaN where it cannot be used."""
    if run.expectation is None:
        raise UsageError(f'`by="expected"`: {run.without_expectation}', parameter="by")
    head = run.estimator.use_device(device)
    values = np.full(len(status), np.nan, np.float32)
    rows = np.flatnonzero([each == OK for each in status])
    with task(tell, "predict", len(rows)) as advance:
        for piece in steps(rows):
            _, expected, whole = predict_rows(cache, run.features, head, piece, run.expectation)
            if expected is not None:
                values[piece[whole]] = expected
            advance(len(piece))
    return values


def _scores(run: Run, ids: list[str]) -> F32:
    """Give the cosine of every row that was held out; NaN for the others."""
    held = load_validation(run.folder, run)
    places = {name: row for row, name in enumerate(ids)}
    values = np.full(len(ids), np.nan, np.float32)
    for name, cosine in zip(held.ids, held.cosine.tolist(), strict=True):
        if name in places:  # a row that was removed since keeps its number, one of another cache has none
            values[places[name]] = cosine
    return values
