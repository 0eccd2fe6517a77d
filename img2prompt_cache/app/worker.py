"""The worker: one thread that owns the models, and takes what waits for them in batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from img2prompt_cache.app.uploads import Upload

Result = TypeVar("Result")


class Full(Exception):
    """More images wait than may; the client is to come again."""


class Predictor(Protocol):
    """What the worker asks. Only its thread does."""

    def predict(self, run: str, images: Sequence[bytes]) -> list[Any]:
        """Predict for some images, in order."""

    def work_ahead(self) -> bool:
        """Do a little of what may be wanted later; False where there is nothing to do."""


@dataclass(slots=True, eq=False)
class _Image:
    run: str
    data: bytes = field(repr=False)
    future: Future[Any]


@dataclass(slots=True, eq=False)
class _Call:
    function: Callable[[], Any]
    future: Future[Any]


class Worker:
    """A thread that runs predictions in batches across requests, and other calls that need a model.

    A batch is what waits at the moment when the thread is free: it never waits for more to come.

    Parameters
    ----------
    predictor : Predictor
    most_waiting : int
        Images that may wait.
    batch_size : int
        Images of a batch.
    on_batch : callable
        Told the size of each batch.
    """

    def __init__(
        self, predictor: Predictor, most_waiting: int, batch_size: int, on_batch: Callable[[int], None]
    ) -> None:
        self._predictor, self._on_batch = predictor, on_batch
        self._most, self._batch_size = most_waiting, batch_size
        self._changed = threading.Condition()
        self._waiting: deque[_Image | _Call] = deque()
        self._images = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images that wait."""
        return self._images

    def predict(self, run: str, uploads: Sequence[Upload]) -> list[Future[Any]]:
        """Let images wait for the model: all of them, or none.

        Raises
        ------
        Full
            If there is no room, or the worker is being stopped.
        """
        with self._changed:
            if self._stopping or self._images + len(uploads) > self._most:
                raise Full
            items = [_Image(run, upload.data, Future()) for upload in uploads]
            self._waiting += items
            self._images += len(items)
            self._changed.notify()
        return [item.future for item in items]

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Let the thread call a function, when what came before is done.

        Raises
        ------
        Full
            If there is no room, or the worker is being stopped.
        """
        future: Future[Result] = Future()
        with self._changed:
            if self._stopping or len(self._waiting) > 2 * self._most:
                raise Full
            self._waiting.append(_Call(function, future))
            self._changed.notify()
        return future

    def stop(self) -> None:
        """Finish what was taken, take nothing more, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        idle = True
        while True:
            with self._changed:
                while not self._waiting and not self._stopping and not idle:
                    self._changed.wait()
                if not self._waiting and self._stopping:
                    return
                taken = self._take() if self._waiting else []
            if not taken:
                idle = self._work_ahead()
            elif isinstance(taken[0], _Call):
                _settle(taken[0].future, taken[0].function)
                idle = True
            else:
                self._predict([item for item in taken if isinstance(item, _Image)])
                idle = True

    def _take(self) -> list[_Image | _Call]:
        """Take the first that waits, and with an image the others of its run."""
        first = self._waiting[0]
        if isinstance(first, _Call):
            return [self._waiting.popleft()]
        taken: list[_Image | _Call] = []
        left: deque[_Image | _Call] = deque()
        for item in self._waiting:
            wanted = isinstance(item, _Image) and item.run == first.run and len(taken) < self._batch_size
            (taken if wanted else left).append(item)
        self._waiting = left
        self._images -= len(taken)
        return taken

    def _predict(self, images: list[_Image]) -> None:
        wanted = [image for image in images if image.future.set_running_or_notify_cancel()]
        if not wanted:
            return
        self._on_batch(len(wanted))
        try:
            found = self._predictor.predict(wanted[0].run, [image.data for image in wanted])
            for image, one in zip(wanted, found, strict=True):
                image.future.set_result(one)
        except BaseException as error:
            for image in wanted:
                if not image.future.done():
                    image.future.set_exception(error)

    def _work_ahead(self) -> bool:
        try:
            return self._predictor.work_ahead()
        except Exception:
            return False


def _settle(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
