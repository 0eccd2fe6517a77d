"""The verb `top`: the pictures of a cache by how well a run predicts their prompts, or is expected to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.cache.opening import open_cache
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.prediction.cached_rows import predict_rows
from img2prompt_cache.progress import Callback, listening, note, warn
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.names import open_run
from img2prompt_cache.runs.ranking import TOP, Measure, RankedPictures, require_some
from img2prompt_cache.runs.run import AnyRun, Run
from img2prompt_cache.tables import Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

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
    require_some(top_k)
    opened = open_cache(cache)
    fitted = open_run(run, opened)
    with listening(progress) as tell:
        if run is None:
            note(tell, f"run {fitted.name}")
        if by == "expected" and fitted.doubts:
            warn(tell, fitted.doubts)
        pictures = RankedPictures.of(opened)
        values = (
            _scores(fitted, pictures.ids)
            if by == "score"
            else pictures.measure(_expected(opened, fitted, device), "predict", tell)
        )
        return pictures.best(by, values, top_k, worst=worst)


def _expected(cache: Cache, run: Run, device: str) -> Measure:
    """Give what finds the expected cosine of rows."""
    if run.expectation is None:
        raise UsageError(f'`by="expected"`: {run.without_expectation}', parameter="by")
    head, expectation = run.estimator.use_device(device), run.expectation

    def measure(rows: NDArray[np.int64]) -> F32:
        values = np.full(len(rows), np.nan, np.float32)
        _, expected, whole = predict_rows(cache, run.features, head, rows, expectation)
        if expected is not None:
            values[whole] = expected
        return values

    return measure


def _scores(run: Run, ids: list[str]) -> F32:
    """Give the cosine of each of these rows that was held out; NaN for the others."""
    held = load_validation(run.folder, run)
    known = dict(zip(held.ids, held.cosine.tolist(), strict=True))
    return np.array([known.get(name, np.nan) for name in ids], np.float32)
