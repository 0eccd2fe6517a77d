"""Texts: the encoder of the prompts, in a thread of its own, so that no picture waits for a text."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from img2prompt_cache.app.worker import Full
from img2prompt_cache.models.devices import choose_device
from img2prompt_cache.models.recorded import load_recorded_encoder
from img2prompt_cache.prediction.compose import Composer
from img2prompt_cache.progress import Callback, ignore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from img2prompt_cache.data.columns import UsedColumn
    from img2prompt_cache.models.encoders.base import Encoder
    from img2prompt_cache.prediction.bank import Bank

    F32 = NDArray[np.float32]
    Key = tuple[tuple[str, str], ...]

MOST_WAITING = 128
"""Texts that may wait."""

MOST_TARGETS = 4
"""Text encoders, and composers, that are held in memory; the one not asked for longest goes first."""

Result = TypeVar("Result")


class Texts:
    """Embeds texts and composes prompts.

    `encode` and `compose` are for its own thread: what calls them is handed to `call`.

    Parameters
    ----------
    device : str
        ``"auto"`` or as torch spells it.
    tell : callable
        Told of the phrases that are encoded before the first prompt is composed.
    """

    def __init__(self, device: str, tell: Callback = ignore) -> None:
        self._device, self._tell = device, tell
        self._encoders: OrderedDict[Key, Encoder] = OrderedDict()
        self._composers: OrderedDict[Key, Composer] = OrderedDict()
        self._pool = ThreadPoolExecutor(1, "texts")
        self._lock = Lock()
        self._waiting = 0

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Let the thread call a function, when what came before is done.

        Raises
        ------
        Full
            If too many calls wait.
        """
        with self._lock:
            if self._waiting >= MOST_WAITING:
                raise Full
            self._waiting += 1
        try:
            future = self._pool.submit(function)
        except RuntimeError:  # it is being stopped
            self._done()
            raise Full from None
        future.add_done_callback(self._done)
        return future

    def stop(self) -> None:
        """Finish what was taken, and end the thread."""
        self._pool.shutdown()

    def encode(self, target: UsedColumn, text: str) -> F32:
        """Embed a text as the targets of a run were, shape (t,).

        Raises
        ------
        UsageError, Img2PromptError
            If the text encoder is not the one that made the targets.
        """
        vector: F32 = self._encoder(target).encode([text])[0]
        return vector

    def compose(self, target: UsedColumn, bank: Bank, vector: F32) -> tuple[str, float]:
        """Write a prompt of phrases of the bank for a prediction; give its cosine, too.

        Raises
        ------
        UsageError, Img2PromptError
            As `encode`.
        """

        def make() -> Composer:
            device = choose_device(self._device)
            return Composer([bank], self._encoder(target), device=device, tell=self._tell)

        prompts, cosines = _held(self._composers, _key(target), make).compose(vector[None])
        return prompts[0], float(cosines[0])

    def _encoder(self, target: UsedColumn) -> Encoder:
        def make() -> Encoder:
            return load_recorded_encoder(target, device=self._device)

        return _held(self._encoders, _key(target), make)

    def _done(self, _: object = None) -> None:
        with self._lock:
            self._waiting -= 1


def _held(held: OrderedDict[Key, Result], key: Key, make: Callable[[], Result]) -> Result:
    """Give what is held under a key, made now if it is not; of more than a few, let the oldest go."""
    if key not in held:
        held[key] = make()
        while len(held) > MOST_TARGETS:
            held.popitem(last=False)
    held.move_to_end(key)
    return held[key]


def _key(target: UsedColumn) -> Key:
    return tuple(sorted(target.fingerprint.items()))
