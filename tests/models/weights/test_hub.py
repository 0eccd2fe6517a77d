"""Weights from a hub: a real one on the loopback interface, with what huggingface_hub asks of it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import huggingface_hub
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.specs import STANDARD_BACKBONES
from img2prompt_cache.models.weights import hub
from img2prompt_cache.models.weights.hub import STANDARD_REPOSITORIES, choose_preset, fetch

OLD, NEW = "a" * 40, "b" * 40


class Hub(ThreadingHTTPServer):
    """Serves `repositories`: repository → commit → file name → bytes. `main` is the last commit."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = {}
        self.asked = []
        self.status = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append(f"{self.command} {unquote(self.path)}")
        if self.server.status:
            return self.answer(self.server.status)
        repository, slash, rest = unquote(self.path.partition("?")[0]).strip("/").partition("/resolve/")
        commits = self.server.repositories.get(repository)
        if not slash or commits is None:
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        revision, _, name = rest.partition("/")
        commit = list(commits)[-1] if revision == "main" else revision
        if commit not in commits:
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        if name not in commits[commit]:
            return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = commits[commit][name]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        return self.answer(200, {"X-Repo-Commit": commit, "ETag": etag}, data)

    def answer(self, status, headers=None, data=b""):
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": len(data)}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Hub() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def client(server, tmp_path, monkeypatch):
    """Point huggingface_hub, which reads the environment when it is imported, at the server."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, huggingface_hub.file_download):
        if hasattr(module, "HUGGINGFACE_CO_URL_TEMPLATE"):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "ASK_SECONDS", 3.0)
    server.repositories["me/model"] = {
        OLD: {"config.json": b"old", "weights.bin": b"old weights"},
        NEW: {"config.json": b"new", "weights.bin": b"new weights", "sub/weights.safetensors": b"safe"},
    }
    return server


WANTED = [("config.json",), ("sub/weights.safetensors", "weights.bin")]


def contents(snapshot):
    return [path.read_bytes() for path in snapshot.files]


def test_the_best_file_of_the_newest_commit(client):
    snapshot = fetch("timm:x", "me/model", WANTED)
    assert snapshot.commit == NEW
    assert contents(snapshot) == [b"new", b"safe"]
    assert (snapshot.folder / "sub" / "weights.safetensors").read_bytes() == b"safe"


@pytest.mark.parametrize("revision", [OLD, NEW])
def test_a_commit_is_pinned_and_later_needs_no_hub(client, revision):
    snapshot = fetch("timm:x", "me/model", WANTED, revision)
    assert snapshot.commit == revision
    assert contents(snapshot)[0] == client.repositories["me/model"][revision]["config.json"]
    before = len(client.asked)
    assert fetch("timm:x", "me/model", WANTED, revision) == snapshot
    assert len(client.asked) == before


def test_a_recorded_commit_stays_when_the_branch_moves(client):
    moved = client.repositories["me/model"].pop(NEW)
    first = fetch("timm:x", "me/model", WANTED)
    client.repositories["me/model"][NEW] = moved
    assert fetch("timm:x", "me/model", WANTED, first.commit) == first
    assert fetch("timm:x", "me/model", WANTED).commit == NEW


@pytest.mark.parametrize("trouble", ["down", 503, 403])
def test_without_an_answer_the_last_known_files_serve(client, trouble, monkeypatch):
    first = fetch("timm:x", "me/model", WANTED)
    if trouble == "down":
        client.socket.close()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            "http://127.0.0.1:9/{repo_id}/{revision}/{filename}",
        )
    else:
        client.status = trouble
    start = time.monotonic()
    assert fetch("timm:x", "me/model", WANTED) == first
    with pytest.raises(Img2PromptError, match='`preset="packaged"`') as caught:
        fetch("timm:other", "me/other", WANTED)
    assert time.monotonic() - start < 10
    assert caught.value.exit_code == 1
    assert str(caught.value).startswith("timm:other: ")
    assert "\n" not in str(caught.value)


def test_a_hub_that_never_answers_is_given_up(client, monkeypatch):
    monkeypatch.setattr(hub, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(hub, "CHOOSE_SECONDS", 0.2)
    monkeypatch.setattr(Handler, "do_HEAD", lambda self: time.sleep(1))
    with pytest.raises(Img2PromptError, match='`preset="packaged"`'):
        fetch("timm:x", "me/model", WANTED)
    assert choose_preset()[0] == "packaged"


def test_offline_mode_is_honoured(client, monkeypatch):
    first = fetch("timm:x", "me/model", WANTED)
    before = len(client.asked)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch("timm:x", "me/model", WANTED) == first
    with pytest.raises(Img2PromptError, match='`preset="packaged"`'):
        fetch("timm:x", "me/other", WANTED)
    assert len(client.asked) == before


@pytest.mark.parametrize(
    ("repository", "wanted", "revision", "said"),
    [
        ("me/absent", WANTED, "", "has no repository me/absent"),
        ("me/model", WANTED, "v9", "no revision 'v9'"),
        ("me/model", [("a.json", "b.json")], "", r"no file a\.json or b\.json"),
        ("me/model", [("config.json",), ("a.json",)], "", r"no file .*a\.json"),
        ("not a name", WANTED, "", "not a repository"),
    ],
)
def test_what_the_hub_has_not_is_wrong_use(client, repository, wanted, revision, said):
    with pytest.raises(UsageError, match=said) as caught:
        fetch("timm:x", repository, wanted, revision)
    assert "\n" not in str(caught.value)


def test_something_else_at_the_address_is_no_hub(client, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.answer(200))
    with pytest.raises(Img2PromptError, match="not a model hub"):
        fetch("timm:x", "me/model", WANTED)


def test_preset_follows_hub_and_cache(client):
    assert choose_preset()[0] == "packaged"  # a hub without these weights
    for name, files in STANDARD_REPOSITORIES.items():
        client.repositories[name] = {NEW: {files[-1]: b"weights"}}
    name, reason = choose_preset()
    assert (name, client.url in reason) == ("standard", True)
    client.status = 503
    name, reason = choose_preset()
    assert (name, client.url in reason) == ("packaged", True)
    client.status = None
    for name, files in STANDARD_REPOSITORIES.items():
        fetch("timm:x", name, [files])
    client.status = 503
    name, reason = choose_preset()
    assert (name, "cache" in reason) == ("standard", True)
    assert "\n" not in reason


def test_standard_repositories_are_those_the_libraries_name():
    found = {"sentence-transformers/all-MiniLM-L6-v2"}
    for spec in STANDARD_BACKBONES:
        family, _, name = spec.partition(":")
        if family == "timm":
            found.add(timm.get_pretrained_cfg(name).hf_hub_id)
        else:
            found.add(open_clip.get_pretrained_cfg(*name.split("/"))["hf_hub"].rstrip("/"))
    assert found == set(STANDARD_REPOSITORIES)


def test_open_clip_weights_by_tag_keep_the_activation_they_were_trained_with(client, tmp_path, monkeypatch):
    publish_clip(client, "me/clip", OLD, tmp_path)
    config = json.loads(client.repositories["me/clip"][OLD].pop("open_clip_config.json"))["model_cfg"]
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    like_openai = {**open_clip.get_pretrained_cfg("ViT-B-32", "openai"), "hf_hub": "me/clip/"}
    plain = {**like_openai, "quick_gelu": False, "mean": (0.5,) * 3}
    tags = {"openai": like_openai, "plain": plain}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", tags)
    quick = load_backbone("open_clip:tiny-clip/openai")
    assert quick.identity["activation"] == "QuickGELU"
    assert (quick.identity["architecture"], quick.identity["revision"]) == ("tiny-clip", OLD)
    assert quick.mean == open_clip.OPENAI_DATASET_MEAN
    gelu = load_backbone("open_clip:tiny-clip/plain")
    assert gelu.identity["activation"] == "GELU"
    assert gelu.mean == (0.5, 0.5, 0.5)
    assert gelu.identity["weights"] == quick.identity["weights"]
    pixels = torch.full((1, 32, 32, 3), 90, dtype=torch.uint8)
    oracle = open_clip.create_model_from_pretrained(
        "tiny-clip",
        pretrained=str(tmp_path / "weights.safetensors"),
        force_quick_gelu=True,
        return_transform=False,
    )
    images = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(quick.mean).view(3, 1, 1)) / torch.tensor(
        quick.std
    ).view(3, 1, 1)
    with torch.inference_mode():
        expected = oracle.eval().encode_image(images, normalize=False)
    torch.testing.assert_close(torch.from_numpy(quick.encode(pixels)), expected, rtol=1e-4, atol=1e-5)


SCRIPT = """
import json, sys, torch
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.errors import Img2PromptError
for spec, revision in json.loads(sys.argv[1]):
    try:
        backbone = load_backbone(spec, revision=revision)
        height, width = backbone.geometry.crop
        pixels = torch.zeros(1, height, width, 3, dtype=torch.uint8)
        told = {"identity": backbone.identity, "sum": float(backbone.encode(pixels).sum())}
    except Img2PromptError as error:
        told = {"error": str(error), "exit": error.exit_code}
    print("TOLD", json.dumps(told))
"""


def ask(endpoint, cache, *pairs):
    """Load backbones in a process of its own, as a person does, with HF_ENDPOINT set."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}
    environment["HF_HUB_DISABLE_TELEMETRY"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(pairs)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("TOLD ")]


def publish_timm(server, repository, commit, seed, folder):
    torch.manual_seed(seed)
    timm.models.save_for_hf(timm.create_model("resnet10t"), folder, safe_serialization=True)
    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    server.repositories.setdefault(repository, {})[commit] = files


def publish_clip(server, repository, commit, folder):
    config = open_clip.get_model_config("ViT-B-32")
    config["vision_cfg"] |= {"layers": 1, "width": 64, "image_size": 32}
    config["text_cfg"] |= {"layers": 1, "width": 64, "heads": 1, "vocab_size": 64}
    model = open_clip.CLIP(**config)
    save_file(
        {name: t.contiguous() for name, t in model.state_dict().items()}, folder / "weights.safetensors"
    )
    server.repositories[repository] = {
        commit: {
            "open_clip_config.json": json.dumps({"model_cfg": config, "preprocess_cfg": {}}).encode(),
            "open_clip_model.safetensors": (folder / "weights.safetensors").read_bytes(),
        }
    }


@pytest.mark.slow
def test_backbones_come_from_the_hub_pinned_and_load_offline_later(server, tmp_path):
    # timm:NAME reads the repository that timm knows for the name; the others are named in the spec.
    named = timm.get_pretrained_cfg("resnet10t.c3_in1k").hf_hub_id
    publish_timm(server, named, OLD, 0, tmp_path)
    publish_timm(server, named, NEW, 1, tmp_path)
    publish_clip(server, "me/clip", OLD, tmp_path)
    specs = ["timm:resnet10t.c3_in1k", f"timm:hf-hub:{named}", "open_clip:hf-hub:me/clip"]
    newest = ask(server.url, tmp_path / "hf", *((spec, "") for spec in specs))
    assert [told["identity"]["revision"] for told in newest] == [NEW, NEW, OLD]
    assert newest[0]["identity"]["weights"] == newest[1]["identity"]["weights"]
    pinned = ask(server.url, tmp_path / "hf", (f"{specs[0]}@{OLD}", ""), (specs[1], OLD))
    assert [told["identity"]["revision"] for told in pinned] == [OLD, OLD]
    assert pinned[0]["identity"]["weights"] != newest[0]["identity"]["weights"]
    nowhere = "http://127.0.0.1:9"
    again = ask(
        nowhere, tmp_path / "hf", (specs[0], NEW), (specs[1], ""), (specs[2], OLD), (f"{specs[0]}@{OLD}", "")
    )
    assert again == [*newest, pinned[0]]


@pytest.mark.slow
def test_an_unreachable_hub_is_told_soon(tmp_path):
    specs = ["timm:resnet10t.c3_in1k", "open_clip:ViT-B-32/laion2b_s34b_b79k", "timm:hf-hub:me/x"]
    start = time.monotonic()
    told = ask("http://127.0.0.1:9", tmp_path, *((spec, "") for spec in specs))
    assert time.monotonic() - start < 45  # importing torch, timm and open_clip included
    for spec, one in zip(specs, told, strict=True):
        assert one["exit"] == 1
        assert spec in one["error"]
        assert "http://127.0.0.1:9" in one["error"]
        assert '`preset="packaged"`' in one["error"]
