"""The verb `search`: the pictures of a cache that are nearest to a text or to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.cache.opening import open_cache
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn, choose_features, choose_target
from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.models.recorded import load_recorded_encoder
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.standardise import mean_and_scale
from img2prompt_cache.prediction.cached_rows import predict_rows, target_column, target_rows
from img2prompt_cache.prediction.predict import predict
from img2prompt_cache.prediction.stream import encode_image
from img2prompt_cache.prediction.zero_shot import ZeroShotModel, make_zero_shot
from img2prompt_cache.progress import Callback, listening, note
from img2prompt_cache.runs.names import find_runs, open_run
from img2prompt_cache.runs.ranking import TOP, Measure, RankedPictures, require_some
from img2prompt_cache.runs.run import AnyRun, Run
from img2prompt_cache.sources.names import IMAGE_SUFFIXES
from img2prompt_cache.tables import Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

BY = ("image", "prompt")
SAMPLE = 16384
"""Rows from which features are standardised: evenly spaced, if there are more."""


def search(
    query: str | Path,
    cache: str | Path | Cache = DEFAULT_CACHE,
    *,
    by: Literal["image", "prompt"] | None = None,
    run: AnyRun | None = None,
    top_k: int = TOP,
    device: str = "auto",
    progress: bool | Callback = False,
) -> Records:
    """Find the pictures of a cache that are nearest to a text or to a picture.

    Parameters
    ----------
    query : str or pathlib.Path
        A text, or an image file.
    cache : str, pathlib.Path or Cache
        Its pictures are searched.
    by : {"image", "prompt"}, optional
        What of the pictures is compared. ``"prompt"``: the embedding of their own (first) prompt.
        ``"image"``: with a text, what a run predicts for each picture; with a picture, the features of the
        first backbone. If None, by image where that can be done, else by prompt.
    run : Run, str or pathlib.Path, optional
        A run, its folder, or its name in the cache's `runs`; the newest if None. Where there is none, a text
        is compared with own prompts, and if no picture has one, with zero-shot predictions.
    top_k : int
        How many pictures.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    progress : bool or callable
        True shows notes and progress bars; a callable is called with every `Event`.

    Returns
    -------
    Records
        Best first: `row` in the cache, `imgId`, `cosine`, `prompt` (its own; empty where it has none) and
        `file` (None where it lies in an archive, or is gone).

    Raises
    ------
    UsageError
        If there is no such cache, run or picture, or nothing that could be compared.
    Img2PromptError
        If a model is not the one a column was made with, or a part is damaged.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> ipc.search("a red boat at night", top_k=3)  # doctest: +SKIP
    >>> ipc.search("picture.png", by="prompt").to_pandas()  # doctest: +SKIP
    """
    if by not in (None, *BY):
        raise unknown("`by`", str(by), BY, parameter="by")
    require_some(top_k)
    picture = _picture(query)
    opened = open_cache(cache)
    with listening(progress) as tell:
        pictures = RankedPictures.of(opened)
        if picture is not None and by != "prompt":
            compare = _by_features(opened, picture, pictures.rows, device)
        else:
            compare = _by_embeddings(opened, picture or str(query), by, run, pictures.prompts, device, tell)
        cosines = np.minimum(pictures.measure(compare, "search", tell), 1)
        return pictures.best("cosine", cosines, top_k)


def _picture(query: str | Path) -> Path | None:
    """Tell whether a file is searched for, and not a text."""
    path = Path(query)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):  # a text that is too long for a name
        return None
    if isinstance(query, Path) or (path.suffix.lower() in IMAGE_SUFFIXES and " " not in str(query)):
        raise UsageError(f"there is no image {query}", parameter="query")
    if not query.strip():
        raise UsageError("there is nothing to search for: the text is empty", parameter="query")
    return None


def _by_features(cache: Cache, picture: Path, rows: NDArray[np.int64], device: str) -> Measure:
    """Compare by the features of the first backbone, standardised as for finding duplicates."""
    column = choose_features(cache, ())[0]
    cache.require_undamaged([column])
    sample = cache.values(column, rows[:: -(-len(rows) // SAMPLE) or 1])
    whole = np.isfinite(sample).all(axis=1)
    if not whole.any():
        raise UsageError(f"{cache.folder} has no usable image")
    mean, scale = mean_and_scale(sample[whole])
    vector = unit((encode_image(UsedColumn.of(column), picture, device)[None] - mean) / scale)[0]
    return lambda piece: unit((cache.values(column, piece) - mean) / scale) @ vector


def _by_embeddings(
    cache: Cache,
    query: str | Path,
    by: str | None,
    run: AnyRun | None,
    prompts: list[str],
    device: str,
    tell: Callback,
) -> Measure:
    """Compare by embeddings in the space of the targets: of own prompts, or of what is predicted."""
    if by == "prompt" and not any(prompt.strip() for prompt in prompts):
        raise UsageError(
            f"no picture of {cache.folder} has a prompt to search by; search by image", parameter="by"
        )
    fitted = _fitted(cache, query, by, run, prompts, device, tell)
    target = UsedColumn.of(choose_target(cache, None)) if fitted is None else fitted.target
    if isinstance(query, Path):
        if fitted is None:
            raise TypeError("a picture is compared by what is predicted for it")
        vector = predict(fitted, [query], top_k=0, cache=cache, device=device).vectors[0]
    else:
        vector = load_recorded_encoder(target, device=device).encode([query])[0]
    if fitted is None or by == "prompt":
        cache.require_undamaged([target_column(cache, target)])
        return lambda piece: target_rows(cache, target, piece) @ vector
    head = fitted.estimator.use_device(device)

    def compare(piece: NDArray[np.int64]) -> F32:
        vectors, _, whole = predict_rows(cache, fitted.features, head, piece)
        cosines = np.full(len(piece), np.nan, np.float32)
        if whole.any():
            cosines[whole] = vectors @ vector
        return cosines

    return compare


def _fitted(
    cache: Cache,
    query: str | Path,
    by: str | None,
    run: AnyRun | None,
    prompts: list[str],
    device: str,
    tell: Callback,
) -> Run | ZeroShotModel | None:
    """Open what predicts; None where a text is compared with own prompts."""
    if run is not None or find_runs(cache.folder):
        found = open_run(run, cache)
        if run is None and not (by == "prompt" and isinstance(query, str)):
            note(tell, f"run {found.name}")
        return found
    if isinstance(query, str) and by != "image" and any(prompt.strip() for prompt in prompts):
        if by is None:
            note(tell, "there is no run to search by image: the pictures' own prompts are searched")
        return None
    return make_zero_shot(cache, device=device, tell=tell)
