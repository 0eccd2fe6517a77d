"""A model hub on 127.0.0.1: repositories with commits, branches and owners, which fails as it is told."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

TOKEN = "hf_writes"
READER = "hf_reads"
LARGE = (".onnx", ".npz", ".safetensors")
"""What the hub wants to have by the protocol for large files, whatever its size."""


@dataclass
class Repository:
    """A repository: its commits, each a mapping of name to bytes, and where its branches are."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit to a branch."""
        text = json.dumps([len(self.commits), branch, sorted(files)])
        oid = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        """Give the commit of a branch or commit."""
        return revision if revision in self.commits else self.branches.get(revision)

    @property
    def files(self) -> dict[str, bytes]:
        """Those of the last commit of the main branch, without what the hub itself puts there."""
        found = self.commits[self.branches["main"]]
        return {name: data for name, data in found.items() if name != ".gitattributes"}


@dataclass
class Fault:
    """What is to happen to the next `times` requests whose method and path match: a status, or a cut."""

    match: str
    status: int = 0
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


class ModelHub(ThreadingHTTPServer):
    """Serves `repositories`, by name. `TOKEN` may write below ``me/``; `READER` may only read."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a client may go away."""

    def gone(self) -> None:
        """Answer nobody any more."""
        self.shutdown()
        self.server_close()


@contextmanager
def serving() -> Iterator[ModelHub]:
    """Serve on a free port of 127.0.0.1."""
    hub = ModelHub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.gone()
        thread.join()


def point_at(hub: ModelHub, patch: pytest.MonkeyPatch, cache: Any) -> None:
    """Point huggingface_hub, which reads the environment when it is imported, at a hub and an empty cache."""
    from huggingface_hub import constants, file_download

    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)


class _Handler(BaseHTTPRequestHandler):
    server: ModelHub
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        self.body = self._read()
        path = unquote(self.path.partition("?")[0])
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        hub = self.server
        with hub.lock:
            hub.asked.append(f"{self.command} {path}")
            hub.tokens.append(token)
            fault = next(
                (each for each in hub.faults if each.times and re.search(each.match, hub.asked[-1])), None
            )
            if fault:
                fault.times -= 1
            if fault and fault.status:
                return self._answer(fault.status, fault.headers)
            self.cut = fault.cut if fault else None
            if token and token not in (TOKEN, READER):
                return self._answer(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
            return self._route(path, token)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _route(self, path: str, token: str) -> None:
        owner = r"(?P<name>[\w.-]+/[\w.-]+)"
        routes = {
            rf"(?:GET|HEAD) /{owner}/resolve/(?P<revision>[^/]+)/(?P<file>.+)": self._resolve,
            rf"GET /api/models/{owner}(?:/revision/(?P<revision>.+))?": self._info,
            r"POST /api/repos/create": self._create,
            rf"POST /api/models/{owner}/branch/(?P<branch>.+)": self._branch,
            r"POST /api/validate-yaml": self._validate,
            rf"POST /api/models/{owner}/preupload/(?P<revision>.+)": self._preupload,
            rf"POST /{owner}\.git/info/lfs/objects/batch": self._batch,
            r"PUT /lfs/(?P<oid>\w+)": self._put,
            r"POST /lfs/verify": self._verify,
            rf"POST /api/models/{owner}/commit/(?P<revision>.+)": self._commit,
        }
        for pattern, route in routes.items():
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                wanted = found.groupdict()
                name = wanted.pop("name", None)
                if name is None:
                    return route(token=token, **wanted)
                repository = self.server.repositories.get(name)
                hidden = repository is not None and repository.private and not token
                if repository is None or hidden:
                    return self._answer(401 if hidden else 404, {"X-Error-Code": "RepoNotFound"})
                if self.command == "POST" and not (token == TOKEN and name.startswith("me/")):
                    return self._answer(403 if token else 401, {"X-Error-Message": "no write access"})
                return route(repository, name=name, **wanted)
        return self._answer(404)

    def _resolve(self, repository: Repository, name: str, revision: str, file: str) -> None:
        commit = repository.resolve(revision)
        if commit is None:
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        data = repository.commits[commit].get(file)
        if data is None:
            return self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(found[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self._answer(206, headers, data[start:])
        return self._answer(200, headers, data)

    def _info(self, repository: Repository, name: str, revision: str | None) -> None:
        commit = repository.resolve(revision or "main")
        if commit is None:
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        files = [{"rfilename": each} for each in repository.commits[commit]]
        return self._json({"id": name, "sha": commit, "private": repository.private, "siblings": files})

    def _create(self, token: str) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if token != TOKEN or asked["organization"] != "me":
            return self._answer(403 if token else 401, {"X-Error-Message": "no right to create it"})
        if name in self.server.repositories:
            return self._answer(409)
        made = self.server.repositories[name] = Repository(private=asked.get("visibility") == "private")
        made.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        return self._json({"url": f"{self.server.url}/{name}"})

    def _branch(self, repository: Repository, name: str, branch: str) -> None:
        repository.branches.setdefault(branch, repository.branches["main"])
        return self._answer(201)

    def _validate(self, token: str) -> None:
        import yaml

        head = re.match(r"---\n(.*?)\n---\n", json.loads(self.body)["content"], re.DOTALL)
        try:
            fine = head is not None and isinstance(yaml.safe_load(head[1]), dict)
        except yaml.YAMLError:
            fine = False
        errors = [] if fine else [{"message": "no metadata"}]
        return self._json({"errors": errors, "warnings": []}, 200 if fine else 400)

    def _preupload(self, repository: Repository, name: str, revision: str) -> None:
        commit = repository.resolve(revision)
        if commit is None:
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        ignored = repository.commits[commit].get(".gitignore", b"").decode().split()
        files = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
                "shouldIgnore": each["path"] in ignored,
                "oid": None,
            }
            for each in json.loads(self.body)["files"]
        ]
        return self._json({"files": files})

    def _batch(self, repository: Repository, name: str) -> None:
        objects = []
        for each in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.server.url}/lfs/{each['oid']}?X-Signature=secret"}
            verify = {"href": f"{self.server.url}/lfs/verify"}
            known = each["oid"] in self.server.stored
            objects.append({**each, **({} if known else {"actions": {"upload": upload, "verify": verify}})})
        return self._json({"transfer": "basic", "objects": objects})

    def _put(self, oid: str, token: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._answer(400)
        self.server.stored[oid] = self.body
        return self._answer(200)

    def _verify(self, token: str) -> None:
        asked = json.loads(self.body)
        return self._answer(200 if len(self.server.stored[asked["oid"]]) == asked["size"] else 400)

    def _commit(self, repository: Repository, name: str, revision: str) -> None:
        head, *changes = map(json.loads, self.body.splitlines())
        before = repository.branches.get(revision)
        if before is None:
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        if head["value"].get("parentCommit") not in (None, before):
            return self._answer(412, {"X-Error-Message": "the branch has moved"})
        files = dict(repository.commits[before])
        for change in changes:
            value = change["value"]
            if change["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
            elif change["key"] == "deletedFile":
                files.pop(value["path"])
        oid = repository.commit(files, revision)
        repository.messages.append(head["value"]["summary"])
        return self._json({"commitUrl": f"{self.server.url}/{name}/commit/{oid}", "commitOid": oid})

    def _read(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _answer(self, status: int, headers: dict[str, str] | None = None, data: bytes = b"") -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        cut = getattr(self, "cut", None)
        if self.command != "HEAD":
            self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
