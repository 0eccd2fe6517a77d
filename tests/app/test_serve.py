"""The real command, as a process of its own behind a real socket."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from synthetic import Cli, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def started(*arguments):
    """The app, and the address that it says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "img2prompt_cache.cli", "app", "--port", "0", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    told = []
    for line in process.stderr:
        told.append(line)
        found = re.search(r"open (http://\S+) in a browser", line)
        if found:
            return process, found[1]
    pytest.fail("".join(told))


def client_in_the_docs():
    """The class of docs/app.md."""
    page = (Path(__file__).parents[2] / "docs" / "app.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(code, names)
    return names["Client"]


def ask(url, data=None, kind="image/png"):
    headers = {"Content-Type": kind} if data is not None else {}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_the_app_answers_until_it_is_stopped_and_finishes_what_it_took(served, pairs):
    process, address = started("--cache", served, "--device", "cpu")
    with ExitStack() as stack:
        stack.callback(process.communicate)
        stack.callback(process.kill)
        assert ask(f"{address}health")["status"] == "ok"
        assert len(ask(f"{address}runs")["runs"]) == 2
        data = (pairs / "img001.png").read_bytes()
        assert ask(f"{address}predict", data)["results"][0]["prompts"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{address}predict", b"nothing")
        assert refused.value.code == 415
        refused.value.close()

        client = client_in_the_docs()(address)
        results = client.predict(pairs / "img001.png", pairs / "words.png", top_k=2)
        assert [len(results[0]["prompts"]), results[1]["error"]] == [2, "not an image"]
        assert client.predict(pairs / "words.png")[0]["status"] == 415
        with pytest.raises(RuntimeError, match="nobody"):
            client.predict(pairs / "img001.png", run="nobody")

        # A request of which half has come when the app is asked to stop.
        host, port = re.match(r"http://([^:]+):(\d+)/", address).groups()
        half = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
        head = f"POST /predict HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: image/png\r\n"
        half.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data[:100])
        ask(f"{address}health")  # the half was read before this
        process.send_signal(signal.SIGTERM)
        half.sendall(data[100:])
        answer = b""
        while piece := half.recv(65536):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b'"prompts"' in answer
        assert process.wait(60) == 0
        assert "what was taken is answered" in process.stderr.read()
        with pytest.raises(OSError):
            socket.create_connection((host, int(port)), timeout=5).close()


def test_a_port_that_is_taken_is_told_at_once(cli, served):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        cli("app", "--cache", served, "--port", taken.getsockname()[1]).refused(2, "--port")


def test_wrong_use_is_told(cli, served, tmp_path):
    cli("app", "--cache", tmp_path / "none", "--port", 0).refused(2, "no run")
    cli("app", "--cache", served, "--host", "0.0.0.0").refused(2, "--token")
    cli("app", "--cache", served, "--host", "no.such.host.invalid").refused(2, "--token")
    cli("app", "--cache", served, "--run", "nothing", "--port", 0).refused(2, "nothing")


def test_models_that_are_gone_are_told_before_anything_is_served(cli, tmp_path):
    folder = make_cache(tmp_path / "cache")
    assert cli("fit", "--head", "mean", "--cache", folder).code == 0
    said = cli("app", "--cache", folder, "--port", 0, "--device", "cpu")
    assert said.code != 0
    assert "open http" not in said.err


def test_a_run_alone_takes_its_prompts_from_its_cache_from_another_or_from_a_bank(served, tmp_path):
    from img2prompt_cache.app.engine import Engine
    from img2prompt_cache.app.settings import Settings
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.runs.names import find_runs

    inside = find_runs(served)[0]
    engine = Engine(Settings(run=str(inside), device="cpu"))
    assert (list(engine.runs), engine.folder) == ([inside.name], served)
    away = shutil.copytree(inside, tmp_path / "away")
    record = json.loads((away / "run.json").read_text())
    (away / "run.json").write_text(json.dumps({**record, "cache": str(tmp_path / "gone")}))
    alone = Engine(Settings(run=str(away), device="cpu"))
    assert alone.gallery is None
    with pytest.raises(UsageError, match="`bank`"):
        alone.load(alone.default)
    assert Engine(Settings(served, str(away), device="cpu")).load("away").bank.prompts
    bank = tmp_path / "bank.txt"
    bank.write_text("two red boats\na calm sea\n")
    assert Engine(Settings(run=str(away), bank=bank, device="cpu")).load("away").bank.prompts == [
        "two red boats",
        "a calm sea",
    ]
