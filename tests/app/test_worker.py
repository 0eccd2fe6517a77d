"""The worker: batches across requests, a bound on what waits, and an end that finishes what was taken."""

from __future__ import annotations

import threading

import pytest

from img2prompt_cache.app.uploads import Upload
from img2prompt_cache.app.worker import Full, Worker


class Gate:
    """A predictor that waits at a gate, and notes its batches and its thread."""

    def __init__(self, ahead=0):
        self.open, self.entered = threading.Event(), threading.Event()
        self.batches, self.threads, self.ahead = [], set(), ahead

    def predict(self, run, images):
        self.threads.add(threading.get_ident())
        self.entered.set()
        assert self.open.wait(30)
        self.batches.append((run, list(images)))
        if b"bad" in images:
            raise ValueError("bad")
        return [image.upper() for image in images]

    def work_ahead(self):
        self.threads.add(threading.get_ident())
        self.ahead -= 1
        return self.ahead > 0


def uploads(*names):
    return [Upload(name, name.encode()) for name in names]


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def worker(gate):
    worker = Worker(gate, 6, 4, lambda size: None)
    yield worker
    gate.open.set()
    worker.stop()


def held(worker, gate):
    """Let the worker stand at the gate with one image, so that what comes next has to wait."""
    (first,) = worker.predict("one", uploads("first"))
    assert gate.entered.wait(30)
    return first


def test_what_waits_is_predicted_in_batches_of_one_run(worker, gate):
    first = held(worker, gate)
    rest = [*worker.predict("one", uploads("a", "b")), *worker.predict("two", uploads("c"))]
    rest += worker.predict("one", uploads("d"))
    gate.open.set()
    assert [future.result(30) for future in [first, *rest]] == [b"FIRST", b"A", b"B", b"C", b"D"]
    assert gate.batches == [("one", [b"first"]), ("one", [b"a", b"b", b"d"]), ("two", [b"c"])]
    assert len(gate.threads) == 1


def test_a_batch_is_bounded(worker, gate):
    held(worker, gate)
    rest = worker.predict("one", uploads(*"abcdef"))
    gate.open.set()
    assert [future.result(30) for future in rest] == [b"A", b"B", b"C", b"D", b"E", b"F"]
    assert [len(images) for _, images in gate.batches] == [1, 4, 2]


def test_a_request_is_taken_whole_or_not_at_all(worker, gate):
    held(worker, gate)
    worker.predict("one", uploads(*"abcd"))
    with pytest.raises(Full):
        worker.predict("one", uploads(*"efg"))
    assert worker.waiting == 4
    assert len(worker.predict("one", uploads(*"ef"))) == 2
    with pytest.raises(Full):
        worker.predict("one", uploads("g"))


def test_an_error_is_told_to_whoever_waits_and_the_worker_goes_on(worker, gate):
    gate.open.set()
    (bad,) = worker.predict("one", uploads("bad"))
    with pytest.raises(ValueError, match="bad"):
        bad.result(30)
    assert worker.predict("one", uploads("good"))[0].result(30) == b"GOOD"
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 // 0).result(30)
    assert worker.call(lambda: 7).result(30) == 7


def test_nobody_is_answered_who_has_gone(worker, gate):
    held(worker, gate)
    (gone,) = worker.predict("one", uploads("gone"))
    (here,) = worker.predict("one", uploads("here"))
    assert gone.cancel()
    gate.open.set()
    assert here.result(30) == b"HERE"
    assert [b"first"] in [images for _, images in gate.batches]
    assert not any(b"gone" in images for _, images in gate.batches)


def test_stopping_finishes_what_was_taken_and_takes_nothing_more(worker, gate):
    first = held(worker, gate)
    rest = worker.predict("one", uploads(*"abc"))
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    while True:
        try:
            worker.predict("one", uploads())
        except Full:
            break
    assert stopper.is_alive()
    gate.open.set()
    stopper.join(30)
    assert [future.result(0) for future in [first, *rest]] == [b"FIRST", b"A", b"B", b"C"]


def test_what_may_be_wanted_later_is_done_while_nobody_waits():
    gate = Gate(ahead=3)
    gate.open.set()
    worker = Worker(gate, 6, 4, lambda size: None)
    assert worker.predict("one", uploads("a"))[0].result(30) == b"A"
    while gate.ahead > 0:
        pass
    worker.stop()
    assert len(gate.threads) == 1
