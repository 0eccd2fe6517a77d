"""The engine: runs with their models, loaded once, and what they say of images; one thread uses it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.app.gallery import Gallery
from img2prompt_cache.app.outcomes import Outcome, Prediction
from img2prompt_cache.app.settings import MOST_RESULTS, Settings
from img2prompt_cache.app.uploads import UNUSABLE, Refusal, refusal_of
from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.models.devices import cores
from img2prompt_cache.prediction.bank import Bank, cached_bank, encoded_bank
from img2prompt_cache.prediction.bank_folder import load_bank
from img2prompt_cache.prediction.known_prompts import BANK, mean_for_hubs, why_no_prompts
from img2prompt_cache.prediction.own_prompts import open_own_prompts
from img2prompt_cache.prediction.stream import BATCH_SIZE, load_backbones, predict_images
from img2prompt_cache.prediction.weights import weights_of
from img2prompt_cache.progress import Callback, ignore
from img2prompt_cache.runs.names import find_runs, open_run
from img2prompt_cache.runs.run import Run, load_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.prediction.predictions import Predictions
    from img2prompt_cache.prediction.stream import Loaded

    F32 = NDArray[np.float32]

FRESH_SECONDS = 2.0
"""How long a look at the runs of the cache is good for."""

MOST_RUNS = 4
"""Runs that are held in memory with their backbones and prompts; the one not asked for longest goes first."""


@dataclass(eq=False)
class Served:
    """A run that is loaded, with what it takes to predict and, where it is known, to correct for hubs."""

    run: Run
    head: Head
    backbones: dict[str, Backbone]
    bank: Bank
    mean_prediction: F32 | None


@dataclass(frozen=True, slots=True, eq=False)
class _Memory:
    """A source of images that are in memory."""

    images: Sequence[bytes]
    root: Path = field(default_factory=Path)
    settings: dict[str, str] = field(default_factory=dict)

    def list(self) -> Any:
        raise NotImplementedError("its rows are made with it")

    def read(self, uri: str) -> bytes:
        return self.images[int(uri)]


class Engine:
    """Runs, models and embeddings of one cache.

    Everything but `runs`, `find` and `gallery` is for one thread.

    Parameters
    ----------
    settings : Settings
    tell : callable
        Told of what is loaded.

    Attributes
    ----------
    default : str
        The run that is taken where none is named.
    folder : pathlib.Path or None
        The cache; None where it is gone.
    gallery : Gallery or None
        Its pictures.

    Raises
    ------
    UsageError
        If there is no run.
    Img2PromptError
        If it is damaged.
    """

    def __init__(self, settings: Settings, tell: Callback = ignore) -> None:
        self.settings, self._tell = settings, tell
        cache = settings.cache or DEFAULT_CACHE
        first = open_run(settings.run, cache)
        self.folder = first.home if settings.run is not None and settings.cache is None else cache
        self.default = first.name
        self._only = first if settings.run is not None else None
        self._runs, self._look_again = {first.name: first}, 0.0
        self.gallery = None if self.folder is None else Gallery(Cache(self.folder))
        self._served: OrderedDict[tuple[str, str], Served] = OrderedDict()
        self._loaded: Loaded = {}
        self._banks: dict[tuple[tuple[str, str], ...], Bank] = {}
        self._own_prompts = open_own_prompts(self.folder, tell)

    @property
    def runs(self) -> dict[str, Run]:
        """The runs that are served, newest last; damaged ones are left out. Looked for every few seconds."""
        if self._only is None and self.folder is not None and time.monotonic() >= self._look_again:
            self._runs = _readable(self.folder)
            self._look_again = time.monotonic() + FRESH_SECONDS
        return self._runs

    @property
    def batch_size(self) -> int:
        """Images that are best predicted at a time."""
        return BATCH_SIZE * min(cores(), 8)

    def find(self, name: str) -> Run:
        """Find a run that is served.

        Raises
        ------
        UsageError
            If there is none of this name.
        """
        runs = self.runs
        if name not in runs:
            raise unknown("run", name, list(runs), parameter="run")
        return runs[name]

    def load(self, name: str) -> Served:
        """Load a run with its models, unless that was done.

        Raises
        ------
        UsageError, Img2PromptError
            If it is not there or damaged, or a model is not the one it was fitted with.
        """
        run = self.find(name)
        key = (run.name, run.head_sha256)
        if key not in self._served:
            with weights_of(run):
                backbones = load_backbones(run.features, self.settings.device, self._loaded, tell=self._tell)
                head = run.estimator.use_device(self.settings.device)
                run.expectation  # noqa: B018 it is read once, now: what is wrong with it is to be known at once
                bank = self._bank(run)
            self._served[key] = Served(run, head, backbones, bank, mean_for_hubs(run, self._tell))
            while len(self._served) > MOST_RUNS:
                self._served.popitem(last=False)
            self._let_go()
        self._served.move_to_end(key)
        return self._served[key]

    def predict(self, run: str, images: Sequence[bytes]) -> list[Outcome]:
        """Predict for image files, in order.

        Raises
        ------
        UsageError, Img2PromptError
            As `load`.
        """
        import pyarrow as pa

        served, numbers = self.load(run), [str(number) for number in range(len(images))]
        table = pa.table({"imgId": numbers, "uri": numbers})
        outcomes: dict[str, Outcome] = {}
        for batch in predict_images(
            served.head,
            served.backbones,
            _Memory(images),
            table,
            expectation=served.run.expectation,
            own_prompts=self._own_prompts,
            batch_size=min(BATCH_SIZE, -(-len(images) // cores())),
        ):
            outcomes |= {name: refusal_of(name, reason) for name, reason in batch.failed.items()}
            outcomes |= self._described(served, batch)
        return [outcomes[number] for number in numbers]

    def _described(self, served: Served, batch: Predictions) -> dict[str, Outcome]:
        names, vectors, expected, own = batch.ids, batch.vectors, batch.expected, batch.own_prompts
        found: dict[str, Outcome] = {}
        if not names:
            return found
        finite = np.isfinite(vectors.sum(axis=1))
        for row in np.flatnonzero(~finite).tolist():
            found[names[row]] = Refusal(names[row], UNUSABLE, "its prediction is not finite")
        kept, most = np.flatnonzero(finite), MOST_RESULTS
        if not len(kept):
            return found
        prompts, scores = served.bank.nearest(vectors[kept], most, served.mean_prediction)
        for at, row in enumerate(kept.tolist()):
            found[names[row]] = Prediction(
                vectors[row],
                list(zip(prompts[at], scores[at].tolist(), strict=True)),
                None if expected is None else float(expected[row]),
                None if own is None else own[row],
            )
        return found

    def work_ahead(self) -> bool:
        """Predict some more rows of the cache for the gallery; False where all are done."""
        gallery = self.gallery
        if gallery is None:
            return False
        for served in reversed(self._served.values()):
            if gallery.predict_some(served.run, served.head):
                return True
        return False

    def _let_go(self) -> None:
        """Drop the backbones and prompts that no run in memory uses any more."""
        held = self._served.values()
        backbones = {id(each) for served in held for each in served.backbones.values()}
        banks = {id(served.bank) for served in held}
        self._loaded = {key: each for key, each in self._loaded.items() if id(each) in backbones}
        self._banks = {key: each for key, each in self._banks.items() if id(each) in banks}

    def _bank(self, run: Run) -> Bank:
        key = tuple(sorted({**run.target.fingerprint, "carried": str(run.carried)}.items()))
        if key not in self._banks:
            if self.settings.bank is not None:
                found = encoded_bank(self.settings.bank, run.target, self.settings.device, self._tell)
            elif run.carried is not None and (run.carried / BANK).is_dir():
                found = load_bank(run.carried / BANK, run.target.width)
            elif self.folder is not None:
                found = cached_bank(Cache(self.folder), run.target)
            else:
                raise UsageError(f"{why_no_prompts(run)}; name prompts with `bank`", parameter="bank")
            self._banks[key] = found
        return self._banks[key]


def _readable(cache: Path) -> dict[str, Run]:
    found = {}
    for folder in find_runs(cache):
        with suppress(Img2PromptError):
            run = load_run(folder)
            found[run.name] = run
    return found


def threads() -> int:
    """Threads for what is not the model's: checking uploads, and pictures."""
    return max(2, min(8, cores()))
