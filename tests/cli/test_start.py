"""Interrupts at any moment: while the program starts, while it runs, and when it has ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from synthetic import make_cache

COUNTED = """
import sys

class Interrupting:
    "Sends the process what Ctrl-C sends, when the n-th module is imported."

    def __init__(self, left):
        self.left = left

    def find_spec(self, name, path=None, target=None):
        import os, signal

        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.{name})

sys.argv[1:] = {arguments!r}
from img2prompt_cache.cli.start import main
sys.meta_path.insert(0, Interrupting({imports}))
main()
"""
COMMANDS = (["--help"], ["info"], ["fit", "--head", "mean"])


def interrupted(arguments: list[str], imports: int, name: str = "SIGINT") -> tuple[int, str]:
    script = COUNTED.format(arguments=arguments, imports=imports, name=name)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("imports", [1, 2, 30, 120, 300, 900])
def test_an_interrupt_during_any_import_is_not_a_traceback(imports, tmp_path):
    make_cache(tmp_path / "cache", 8)
    for arguments in COMMANDS if imports < 300 else COMMANDS[2:]:
        given = arguments if arguments == ["--help"] else [*arguments, "--cache", str(tmp_path / "cache")]
        code, err = interrupted(given, imports)
        assert code == 130, err
        assert "Traceback" not in err
        assert "Exception ignored" not in err


def test_sigterm_during_an_import_is_the_same():
    assert interrupted(["--help"], 2, "SIGTERM") == (130, "")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("delay", [0.05, 0.1, 0.2, 0.3, 0.5, 0.8])
def test_an_interrupt_at_any_time_is_not_a_traceback(arguments, delay, tmp_path):
    make_cache(tmp_path / "cache", 8)
    given = arguments if arguments == ["--help"] else [*arguments, "--cache", str(tmp_path / "cache")]
    # The bytes that are printed first tell that Python itself has started, which is not ours to guard.
    script = (
        "import os, sys\nfrom img2prompt_cache.cli.signals import leave_when_asked\nleave_when_asked()\n"
        "os.write(1, b'up')\nfrom img2prompt_cache.cli.start import main\n"
        f"sys.argv[1:] = {given!r}\nmain()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.read(2) == b"up"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_python_ends_does_not_change_what_was_done(number):
    """After the last callback Python takes its handlers away, and what it would do by itself is to die."""
    script = (
        "import atexit, os, sys\nfrom img2prompt_cache.cli.start import main\nsys.argv[1:] = ['--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    atexit._run_exitfuncs()\n"
        f"    os.kill(os.getpid(), {int(number)})\n    os.write(2, b'late')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"late")
