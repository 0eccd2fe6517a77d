from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from img2prompt_cache.cli import console, main
from kit import paint, run_cli
from synthetic import Cli, make_cache

pytestmark = pytest.mark.usefixtures("no_weights")

COMMANDS = (
    *("extract", "fit", "tune", "influence", "predict", "compare", "report", "explore", "app"),
    *("info", "verify", "demo", "weights", "doctor"),
)
HEAVY = (
    "torch",
    "optuna",
    "numpy",
    "pyarrow",
    "PIL",
    "sklearn",
    "faiss",
    "timm",
    "h5py",
    "scipy",
    "transformers",
)


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "img2prompt_cache.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), *((name, "--help") for name in COMMANDS)])
def test_help_goes_to_stdout(cli, arguments):
    said = cli(*arguments)
    assert (said.code, said.err) == (0, "")
    assert "Usage: img2prompt-cache" in said.out


def test_help_of_every_command_is_quick_and_imports_nothing_heavy():
    script = f"""
import contextlib, io, sys, time
from img2prompt_cache.cli import main
for command in {COMMANDS!r}:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main.run([command, "--help"]) == 0
    assert command in out.getvalue()
print(*(name for name in {HEAVY!r} if name in sys.modules))
print(time.process_time())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy, seconds = done.stdout.split("\n")[:2]
    assert heavy == ""
    # All of them, and the start of Python; one takes 0.2 s of processor time.
    assert float(seconds) < 2


def test_version(cli):
    said = cli("--version")
    assert said.code == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", said.out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fti",), ("No such command 'fti'", "'fit'", "`img2prompt-cache --help`")),
        (("fit", "--sede", "1"), ("--sede", "--seed", "`img2prompt-cache fit --help`")),
        (("fit", "--seed", "x"), ("'--seed'", "integer")),
        (("fit", "--seed", "-1"), ("'--seed'",)),
        (("fit", "--seed", str(2**32)), ("'--seed'",)),
        (("fit", "--holdout", "nan"), ("'--holdout'",)),
        (("fit", "--lr", "fast"), ("'--lr'",)),
        (("fit", "--seed"), ("--seed", "argument")),
        (("fit", "cache"), ("unexpected extra argument",)),
        (("predict", "--top-k", "1001"), ("'--top-k'",)),
        (("extract", "--batch-size", "0"), ("'--batch-size'",)),
        (("info", "--json", "--jsno"), ("--jsno", "--json")),
    ],
)
def test_wrong_options_are_one_line(cli, arguments, words):
    cli(*arguments).refused(2, *words)


@pytest.mark.parametrize("command", ["fit", "predict", "compare", "info", "verify"])
def test_no_cache_or_no_run(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    cli(command).refused(2, "cache/default")
    cli(command, "--json").refused(2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["fit", "info", "verify"])
def test_a_cache_of_a_newer_schema(cli, tmp_path, command):
    folder = make_cache(tmp_path / "cache", 8)
    path = folder / "cache.json"
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 99', 1))
    cli(command, "--cache", folder).refused(1, "schema 99", "Upgrade")
    path.write_text("{")
    cli(command, "--cache", folder).refused(1, "cache.json")


def test_what_is_unexpected_is_one_line_too_and_debug_shows_where(cli, tmp_path, monkeypatch):
    folder = make_cache(tmp_path / "cache", 8)

    def fail(path):
        raise RuntimeError("first\nsecond \x1b[31m")

    monkeypatch.setattr("img2prompt_cache.cache.reader.load_manifest", fail)
    said = cli("info", "--cache", folder)
    assert said.err == ("error: RuntimeError: first\\nsecond \\x1b[31m (unexpected; --debug shows where)\n")
    assert (said.code, said.out) == (1, "")
    with pytest.raises(RuntimeError):
        cli("--debug", "info", "--cache", folder)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.h5"), "the disk is full (a.h5); make room"),
        (OSError("Can't write (errno = 28, error message = 'No space')"), "the disk is full; make room"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "Permission denied (a)"),
        (MemoryError(), "out of memory"),
    ],
)
def test_failures_of_the_machine_are_told(cli, tmp_path, monkeypatch, error, told):
    def fail(path):
        raise error

    monkeypatch.setattr("img2prompt_cache.cache.reader.load_manifest", fail)
    cli("info", "--cache", tmp_path).refused(1, told)


def test_interrupted_in_this_process(cli, tmp_path, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("img2prompt_cache.cache.reader.load_manifest", interrupt)
    said = cli("info", "--cache", tmp_path)
    assert (said.code, said.out) == (130, "")
    assert said.err == ""  # there is no work to go on with
    said = cli("fit", "--head", "mean", "--cache", tmp_path)
    assert (said.code, said.out) == (130, "")
    assert said.err == "interrupted; nothing half-done is left. Run the same command again to start over.\n"
    on = "interrupted; what was finished is kept. Run the same command again to go on.\n"
    seeds = ("fit", "--head", "mlp", "--seeds", "0-4", "--cache", tmp_path)
    assert cli(*seeds).err == on
    assert main._left(["repair"]) in on
    assert main._left(["watch", "inbox", "--out=seen.jsonl"]) in on
    assert main._left(["watch", "inbox"]) == main._left(["predict"])
    assert main._left(["predict"]) in said.err
    assert "--overwrite" in main._left(["demo"])  # its folder is not empty now
    assert cli(*seeds, "--overwrite").err == said.err  # it replaces what was finished, too


@pytest.mark.parametrize(("command", "told"), [("info", False), ("fit", True)])
def test_only_commands_with_batches_speak_of_them(command, told, monkeypatch, capfd):
    monkeypatch.setattr(console.stop, "asked", False)
    monkeypatch.setattr(console.stop, "in_batches", command in main.BATCH_COMMANDS)
    with pytest.raises(KeyboardInterrupt):
        main._interrupt(signal.SIGINT, None)
    err = capfd.readouterr().err
    assert ("batch in hand" in err) == told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pass_says_how_to_go_on_and_does(tiny, tmp_path, number):
    images = tmp_path / "images"
    images.mkdir()
    data = paint(tmp_path / "one.png", 0, (300, 200)).read_bytes()
    for row in range(2000):
        # What follows the end of a PNG is not read, and makes it another file.
        (images / f"{row:04d}.png").write_bytes(data + b"%d" % row)
    arguments = (
        "extract",
        images,
        "--cache",
        tmp_path / "cache",
        "--part-rows",
        4,
        "--batch-size",
        2,
        "--format",
        "folder",
    )
    models = ("--backbone", tiny.cnn, "--encoder", tiny.encoder)
    with start(*arguments, *models) as process:
        deadline = time.monotonic() + 90
        while not (tmp_path / "cache" / "rows" / "00001.h5").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == (
        "interrupted; what was finished is kept. Run the same command again to go on."
    )
    assert "Traceback" not in err
    cached = json.loads(run_cli("info", "--cache", str(tmp_path / "cache"), "--json").stdout)
    assert 4 <= cached["rows"] < 2000


def test_a_closed_pipe_is_no_error_worth_a_word(tmp_path):
    folder = make_cache(tmp_path / "cache", 2000, groups=50, part_rows=2000)
    assert run_cli("fit", "--head", "mean", "--cache", str(folder)).returncode == 0
    command = f'"{sys.executable}" -m img2prompt_cache.cli predict "{folder}" --cache "{folder}" | head -1'
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=folder, check=False, timeout=60
    )
    assert done.stdout.count("\n") == 1
    assert "Broken" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_under_stdout(tmp_path):
    folder = make_cache(tmp_path / "cache", 8)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "img2prompt_cache.cli", "info", "--cache", str(folder)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: the disk is full; make room and run the same command again\n"


def test_closed_streams(tmp_path):
    folder = make_cache(tmp_path / "cache", 8)
    base = f'"{sys.executable}" -m img2prompt_cache.cli info --cache "{folder}"'
    silent = subprocess.run(f"{base} >&-", shell=True, capture_output=True, text=True, check=False)
    assert (silent.returncode, silent.stderr) == (0, "")
    wrong = subprocess.run(
        f"{base}/none --json 2>&-", shell=True, capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_any_terminal_can_take_the_output(tmp_path):
    folder = make_cache(tmp_path / "cache", 8)
    moved = folder.rename(tmp_path / os.fsdecode("船\udce9".encode("utf-8", "surrogateescape")))
    options = {"env": {**os.environ, "PYTHONIOENCODING": "ascii"}}
    done = run_cli("info", "--cache", str(moved), **options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u8239\\udce9: 8 rows" in done.stdout
    assert run_cli("fit", "--head", "mean", "--cache", str(moved), **options).returncode == 0
    assert json.loads(run_cli("compare", "--cache", str(moved), "--json", **options).stdout)["runs"]


def test_warnings_of_libraries_are_kept_from_the_user():
    script = (
        "import warnings; from img2prompt_cache.cli import main; sys = main.sys; sys.argv = ['x', {!r}]\n"
    )
    script += "main.run = lambda arguments: warnings.warn('a noise') or main.logging.warning('a log')\n"
    script += "main.main()"

    def said(argument):
        return subprocess.run(
            [sys.executable, "-c", script.format(argument)],
            capture_output=True,
            text=True,
            check=True,
            env={key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"},
        ).stderr

    assert said("info") == ""
    assert "a noise" in said("--debug")


def test_text_from_anywhere_is_fit_for_a_terminal():
    assert console.clean("a\x1b]0;b\x07\nc\r\x85\u2028\udc80") == "a\\x1b]0;b\\x07\\nc\\r\\x85\\u2028\\udc80"
    assert console.clean("naïve 船 🚤 👩‍🚀") == "naïve 船 🚤 👩‍🚀"


def test_tables_align_numbers_to_the_right():
    table = console.table(["run", "cosine", "n"], [["a", 0.5, 9], ["long\nname", -0.25, 10]])
    assert table.split("\n") == [
        "run          cosine   n",
        "a            0.5000   9",
        "long\\nname  -0.2500  10",
    ]


def test_json_is_valid_or_there_is_none(capsys):
    console.result_json({"a": "船\n"})
    assert capsys.readouterr().out == '{"a": "\\u8239\\n"}\n'
    with pytest.raises(ValueError, match="JSON"):
        console.result_json({"a": float("nan")})


def test_the_module_is_the_console_script():
    done = run_cli("--version")
    assert done.returncode == 0
    assert main.app.info.name == "img2prompt-cache"
