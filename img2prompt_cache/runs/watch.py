"""The verb `watch`: predictions for images as they arrive in a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.prediction.arrivals import Arrivals
from img2prompt_cache.prediction.known_prompts import load_prompts, mean_for_hubs
from img2prompt_cache.prediction.outputs.base import plain, records
from img2prompt_cache.prediction.own_prompts import open_own_prompts
from img2prompt_cache.prediction.stream import load_backbones, predict_images
from img2prompt_cache.prediction.watch_log import WatchLog
from img2prompt_cache.prediction.weights import Weights, weights_of
from img2prompt_cache.progress import Callback, listening, note
from img2prompt_cache.runs.predict import open_fitted
from img2prompt_cache.runs.run import AnyRun, Run
from img2prompt_cache.sources.reading import read_below

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.prediction.arrivals import Stamp
    from img2prompt_cache.prediction.known_prompts import KnownPrompts
    from img2prompt_cache.prediction.own_prompts import OwnPrompts
    from img2prompt_cache.prediction.predictions import Predictions
    from img2prompt_cache.prediction.zero_shot import ZeroShotModel

INTERVAL = 1.0
"""Seconds between two looks, unless another number is asked for."""
SHARE = 10
"""A look at many files takes time: at least so many times as long passes between two."""


def watch(
    folder: str | Path,
    run: AnyRun | None = None,
    *,
    cache: str | Path | Cache | None = None,
    bank: str | Path | None = None,
    top_k: int = 1,
    zero_shot: bool | None = False,
    weights: Weights = None,
    replace: Mapping[str, str] | None = None,
    out: str | Path | None = None,
    once: bool = False,
    interval: float = INTERVAL,
    device: str = "auto",
    progress: bool | Callback = False,
) -> Iterator[dict[str, Any]]:
    """Predict for images as they arrive in a folder, or in one below it.

    Errors are raised when the first image is asked for.

    Parameters
    ----------
    folder : str or pathlib.Path
    run : Run, str or pathlib.Path, optional
        A run, its folder, or its name in the cache's `runs`. The newest run of the cache if None.
    cache : str, pathlib.Path or Cache, optional
        The cache. If None, the run's own; ``cache/default`` to find a run by its name.
    bank : str or pathlib.Path, optional
        Prompts to choose from; see `predict`.
    top_k : int
        Nearest prompts to find for each image.
    zero_shot : bool or None
        Predict without a run; None for that where there is none. See `predict`.
    weights : path or sequence of paths, optional
        Folders to search for the weights of the run, if they lie elsewhere now; see `predict`.
    replace : mapping of str to str, optional
        Beginnings of paths in the run's specs, and what stands in their place now.
    out : str or pathlib.Path, optional
        A file of JSON lines to append to. Images that it has are passed over, all others in the folder are
        new. If None, images that lie in the folder at first are passed over, unless `once` is set.
    once : bool
        End when nothing new is left.
    interval : float
        Seconds between two looks at the folder. An image is taken when two looks find it the same.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    progress : bool or callable
        True shows notes; a callable is called with every `Event`.

    Yields
    ------
    dict
        Of each image `file` (its path in the folder), `bytes` and `changed` (time of last change in
        nanoseconds); `expected`, `own_prompt` and `prompts` as `predict` gives them, or `reason` where the
        image cannot be used.

    Raises
    ------
    UsageError
        If something named is not there, or `out` is another file.
    Img2PromptError
        If the run is damaged, or a backbone is not the one it was fitted with.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> for seen in ipc.watch("inbox", out="seen.jsonl"):  # doctest: +SKIP
    ...     print(seen["file"], seen["prompts"][0])
    """
    home = Path(folder)
    if not home.is_dir():
        raise UsageError(f"there is no folder {home}", parameter="folder")
    if top_k < 1:
        raise UsageError(f"`top_k` must be at least 1, not {top_k}", parameter="top_k")
    if not 0 < interval <= 86_400:
        raise UsageError(
            f"`interval` must be more than 0 seconds and at most a day, not {interval}", parameter="interval"
        )
    with ExitStack() as stack:
        tell = stack.enter_context(listening(progress))
        log = None if out is None else stack.enter_context(WatchLog(Path(out)))
        arrivals = Arrivals(home, {} if log is None else log.known)
        if log is None and not once:
            arrivals = Arrivals(home, arrivals.stamps())
        fitted = open_fitted(
            run,
            [home],
            zero_shot=zero_shot,
            bank=bank,
            cache=cache,
            weights=weights,
            replace=replace,
            device=device,
            tell=tell,
        )
        if run is None and isinstance(fitted, Run):
            note(tell, f"run {fitted.name}")
        with weights_of(fitted, weights, replace):
            predictor = _open(fitted, home, cache, bank, top_k, device, tell)
        note(tell, f"watching {home}")
        while True:
            began = time.monotonic()
            found = arrivals.look()
            took = time.monotonic() - began
            for seen in predictor.predict(found):
                if log is not None:
                    log.append(seen)
                yield from seen
            if once and not arrivals.waiting:
                return
            time.sleep(max(interval, SHARE * took))


@dataclass(frozen=True, slots=True, eq=False)
class _Folder:
    """A source of images below a folder, whose rows are made as they arrive."""

    root: Path
    settings: dict[str, str] = field(default_factory=dict)

    def list(self) -> Any:
        raise NotImplementedError("its rows are made as they arrive")

    def read(self, uri: str) -> bytes:
        return read_below(self.root, uri)


@dataclass(frozen=True, slots=True, eq=False)
class _Predictor:
    """Whatever predicts, with its models and prompts loaded once."""

    fitted: Run | ZeroShotModel
    backbones: dict[str, Backbone]
    source: _Folder
    known: KnownPrompts
    own_prompts: OwnPrompts | None
    top_k: int

    def predict(self, found: dict[str, Stamp]) -> Iterator[list[dict[str, Any]]]:
        """Predict for images by their path, batch by batch."""
        import pyarrow as pa

        if not found:
            return
        names = pa.array([*found], pa.string())
        for batch in predict_images(
            self.fitted.estimator,
            self.backbones,
            self.source,
            pa.table({"imgId": names, "uri": names}),
            expectation=self.fitted.expectation,
            own_prompts=self.own_prompts,
        ):
            yield self._records(found, self.known.show(batch, self.top_k) if batch.ids else batch)

    def _records(self, found: dict[str, Stamp], batch: Predictions) -> list[dict[str, Any]]:
        def stamped(name: str) -> dict[str, Any]:
            return {"file": name, "bytes": found[name][0], "changed": found[name][1]}

        made = []
        nearest, own = batch.nearest or (), batch.own_prompts or [None] * len(batch.ids)
        for row, (name, prompts) in enumerate(zip(batch.ids, nearest, strict=True)):
            one = stamped(name)
            if batch.expected is not None:
                one["expected"] = plain(batch.expected[row])
            if own[row] is not None:
                one["own_prompt"] = own[row]
            made.append({**one, "prompts": records(prompts)})
        return [*made, *({**stamped(name), "reason": why} for name, why in batch.failed.items())]


def _open(
    fitted: Run | ZeroShotModel,
    home: Path,
    cache: str | Path | Cache | None,
    bank: str | Path | None,
    top_k: int,
    device: str,
    tell: Callback,
) -> _Predictor:
    """Load the models and prompts of what predicts."""
    place = fitted.home if cache is None else cache
    where = place if place is None or isinstance(place, Cache) else Path(place)
    fitted.estimator.use_device(device)
    backbones = load_backbones(fitted.features, device, tell=tell)
    known = load_prompts(fitted, where, bank, device, tell, compose=False)
    known = with_changes(known, mean_prediction=mean_for_hubs(fitted, tell))
    return _Predictor(fitted, backbones, _Folder(home), known, open_own_prompts(where, tell), top_k)
