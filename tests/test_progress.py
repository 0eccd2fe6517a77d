"""Progress: what is told to whom, and the line that shows it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest

from img2prompt_cache import progress, progress_line
from img2prompt_cache.heads import make_head
from img2prompt_cache.progress import Event, listening, note, stage, task, warn
from img2prompt_cache.progress_line import ProgressLine, Running, clock
from synthetic import make_cache


class Terminal(io.StringIO):
    """A stream that somebody watches."""

    def isatty(self) -> bool:
        return True

    @property
    def seen(self) -> str:
        """The line as it stands, after all that was written over it."""
        row: list[str] = []
        for part in self.getvalue().rpartition("\n")[2].split("\r"):
            row[: len(part)] = part
        return "".join(row).rstrip()


def steps(events: list[Event]) -> list[tuple[str, int, int]]:
    return [(event.task, event.done, event.total) for event in events if event.kind == "step"]


@pytest.fixture
def line(monkeypatch):
    """A line that shows everything at once, and is drawn only when asked to."""
    monkeypatch.setattr(progress_line, "QUIET", 0.0)
    monkeypatch.setattr(progress_line, "BEFORE", 0.0)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(progress_line, "TICK", 60.0)
    line = ProgressLine(Terminal())
    yield line
    line.close()


def shown_on(line: Any) -> Any:
    return partial(progress._show, line)


def draw(line: Any, now: float) -> str:
    line._draw(line.text(now))
    return str(line._stream.seen)


def test_a_stage_is_told_to_whom_listens_to_the_call_and_to_nobody_else():
    events: list[Event] = []
    with stage("before", 2) as advance:
        advance(2)
    with listening(events.append), stage("fit", 2) as advance:
        advance(1)
        with listening(progress=False), stage("silent"):
            pass
        advance(1)
    with stage("after"):
        pass
    assert steps(events) == [("fit", 0, 2), ("fit", 1, 2), ("fit", 2, 2)]


def test_a_stage_in_another_thread_is_not_told():
    events: list[Event] = []

    def work() -> None:
        with stage("elsewhere"):
            pass

    with listening(events.append):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert events == []


def test_a_task_that_may_end_early_ends_with_its_last_step():
    events: list[Event] = []
    with task(events.append, "epochs", 100, "at most") as advance:
        advance(3)
    with listening(events.append), stage("load"):
        pass
    assert steps(events) == [("epochs", 0, 100), ("epochs", 3, 100), ("epochs", 100, 100), *LOADED]


LOADED = [("load", 0, 1), ("load", 1, 1)]


@pytest.mark.parametrize("head", ["ridge", "kernel", "knn", "mlp", "best", "blend"])
def test_a_head_tells_its_stages_and_stays_silent_alone(head, capsys):
    rng = np.random.default_rng(0)
    X, y, groups = rng.normal(size=(60, 12)), rng.normal(size=(60, 8)), np.arange(60) // 2
    members = [{"head": "knn"}, {"head": "ridge"}]
    settings = {"mlp": {"max_epochs": 3}, "best": {"members": members}, "blend": {"members": members}}
    events: list[Event] = []
    with listening(events.append):
        told = make_head(head, **settings.get(head, {})).fit(X, y, groups=groups, widths=(6, 6))
    alone = make_head(head, **settings.get(head, {})).fit(X, y, groups=groups, widths=(6, 6))
    assert capsys.readouterr() == ("", "")
    np.testing.assert_array_equal(told.predict(X), alone.predict(X))
    under_way: dict[str, int] = {}
    for name, done, total in steps(events):
        assert done == 0 or under_way[name] < done <= total
        under_way[name] = done
    assert under_way
    ended = {name: total for name, _, total in steps(events)}
    assert under_way == ended


def test_the_time_that_is_left_follows_from_the_last_half_minute():
    run = Running("extract", 100, "even", now=0.0)
    assert run.left(50.0) is None  # nothing is known before the first step
    run.step(10, 100.0)
    assert run.left(100.0) == pytest.approx(900)
    for second in range(1, 41):  # now it is ten times as fast
        run.step(10 + second, 100.0 + second)
    assert run.left(140.0) == pytest.approx(50)
    assert run.left(140.5) == pytest.approx(49.5)
    assert run.left(500.0) == pytest.approx(49)  # the step in hand is late; the others are not there yet


def test_a_last_step_that_takes_longer_than_the_others_is_not_said_to_end_at_once():
    run = Running("fit", 4, "even", now=0.0)
    for done in (1, 2, 3):
        run.step(done, 50.0 * done)
    assert run.left(199.0) == pytest.approx(1)
    assert run.left(201.0) is None
    assert run.text(201.0, outer=True) == "fit [############----] 3/4, 3:21 so far"
    assert run.text(190.0, outer=True, least=25.0) == "fit [############----] 3/4, 0:25 left"


def test_what_was_done_before_says_nothing_of_the_speed():
    run = Running("trials", 100, "even", now=0.0)
    run.step(90, 0.01)
    assert run.left(5.0) is None
    run.step(91, 10.01)
    assert run.left(10.01) == pytest.approx(90)


@pytest.mark.parametrize(
    ("pace", "told"),
    [
        ("even", "fit [####------------] 1/4, 0:30 left"),
        ("at most", "fit [####------------] 1/4, at most 0:30 left"),
        ("uneven", "fit [####------------] 1/4, 0:10 so far"),
    ],
)
def test_the_line_says_only_what_can_be_known(pace, told):
    run = Running("fit", 4, pace, now=0.0)
    assert run.text(3.0, outer=True) == "fit [----------------] 0/4, 0:03 so far"
    run.step(1, 10.0)
    assert run.text(10.0, outer=True) == told


def test_times_are_spelled_as_on_a_clock():
    assert [clock(7.4), clock(125), clock(3600)] == ["0:07", "2:05", "1:00:00"]


def test_the_line_shows_a_task_with_its_part_and_is_gone_in_the_end(line):
    now = line._told
    with listening(shown_on(line)) as tell:
        assert draw(line, now) == ""
        line.waits = True
        assert draw(line, now + 3) == ""
        line.waits = False
        assert draw(line, now + 3) == "working, 0:03"
        with task(tell, "fit", 2) as advance:
            with stage("epochs", 8, "at most") as epoch:
                epoch(2)
                shown = draw(line, now + 5)
                assert shown.startswith("fit [----------------] 0/2, 0:05 so far > epochs 2/8, at most ")
            assert "epochs" not in draw(line, now + 6)
            advance(1)
            note(tell, "a line that stays")
            assert line._stream.getvalue().endswith("\ra line that stays\n")
            assert draw(line, now + 7).startswith("fit [########--------] 1/2, ")
    line.close()
    assert line._stream.seen == ""


def test_a_task_that_failed_is_not_shown_beside_the_next(line):
    with listening(shown_on(line)) as tell, task(tell, "trials", 2) as advance:
        with pytest.raises(ValueError, match="diverged"), stage("epochs", 8):
            raise ValueError("diverged")
        advance(1)
        assert "epochs" not in draw(line, line._told + 5)


def test_a_line_is_no_wider_than_the_terminal(line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    with listening(shown_on(line)), stage("a name that is wider than that", 5):
        assert draw(line, line._told + 5) == "a name that is wide"


def test_where_nobody_watches_only_notes_are_written():
    stream = io.StringIO()
    line = ProgressLine(stream)
    with listening(shown_on(line)) as tell, task(tell, "fit", 1) as advance:
        warn(tell, "a note")
        advance(1)
    line.close()
    assert (stream.getvalue(), line._thread) == ("a note\n", None)


def test_a_terminal_that_has_gone_is_no_error(line):
    line._stream.close()
    with stage("fit"):
        line._draw("fit")
    assert not line.shown


SCRIPT = """
import sys
from img2prompt_cache import progress, progress_line
progress_line.QUIET = progress_line.WAITING = 0.0
progress_line.TICK = 0.001
from img2prompt_cache.cli.main import main
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals of POSIX")
@pytest.mark.parametrize("quiet", [False, True])
def test_on_a_terminal_progress_is_shown_and_results_go_where_they_belong(tmp_path, quiet):
    folder = make_cache(tmp_path / "cache", 60)
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", SCRIPT, "fit", "--head", "ridge", "--folds", "3", "--cache"]
    with subprocess.Popen(
        [*command, str(folder), *["--quiet"] * quiet], stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # how Linux tells that the other end is closed
                break
            if not part:
                break
            shown += part
        assert process.stdout is not None
        result = process.stdout.read().decode()
    os.close(ours)
    assert process.returncode == 0
    assert "cosine" in result
    assert "\r" not in result
    assert b"cosine" not in shown
    assert (b"fit [" in shown) is not quiet
    assert shown == b"" or shown.endswith(b"\r")
