"""Data sets of the model hub, on a loopback server that answers as the hub does."""

import io
import json
from collections.abc import Iterable, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.remote.transport import PATIENCE
from kit import paint
from loopback import Files, Store, meanwhile, serving


class Hub(Files):
    """One data set, ``me/set``, whose files lie in ``data/``."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith("/datasets/me/set/resolve/main/"):
            environ = {**environ, "PATH_INFO": path.partition("/main")[2], "QUERY_STRING": ""}
            return super().__call__(environ, start_response)
        answer: Any = None
        if path in ("/api/datasets/me/set", "/api/datasets/me/set/revision/main"):
            answer = {"id": "me/set", "sha": "0" * 40, "siblings": [], "tags": []}
        elif path == "/api/datasets/me/set/tree/main":
            answer = [{"type": "directory", "path": "data", "oid": "1", "size": 0}]
        elif path == "/api/datasets/me/set/tree/main/data":
            answer = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(data),
                    "oid": _digest(data),
                }
                for name, data in self.files.items()
            ]
        body = json.dumps({} if answer is None else answer).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if answer is None:
            headers.append(("X-Error-Code", "RepoNotFound"))
        start_response("200 OK" if answer is not None else "404 Not Found", headers)
        return [body]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    from huggingface_hub import constants, hf_api

    monkeypatch.setenv("IMG2PROMPT_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(PATIENCE, "first", 0.01)
    monkeypatch.setattr(PATIENCE, "attempts", 2)
    with serving(Hub()) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hf_api.HfApi, "__init__", _with_endpoint(hf_api.HfApi.__init__, served.url))
        for number in range(2):
            image = paint(tmp_path / f"{number}.png", number).read_bytes()
            buffer = io.BytesIO()
            pq.write_table(pa.table({"image": [image], "text": [f"prompt {number}"]}), buffer)
            served.app.files[f"data/train-{number:05d}.parquet"] = buffer.getvalue()
        yield served


def _digest(data: bytes) -> str:
    return md5(data, usedforsecurity=False).hexdigest()


def _with_endpoint(made: Any, endpoint: str) -> Any:
    def make(self: Any, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **{**options, "endpoint": endpoint})

    return make


def test_parquet_files_of_a_data_set(hub: Store, tmp_path: Path) -> None:
    source = open_source("hf://datasets/me/set")
    table = source.list().table
    assert table["imgId"].to_pylist() == ["data/train-00000/0", "data/train-00001/0"]
    assert table["prompt"].to_pylist() == ["prompt 0", "prompt 1"]
    assert source.read("data/train-00001.parquet#0") == (tmp_path / "1.png").read_bytes()
    assert open_source("hf://datasets/me/set/data/*.parquet").list().table["imgId"].to_pylist() == [
        "train-00000/0",
        "train-00001/0",
    ]


def test_a_file_that_changes_on_the_hub(hub: Store) -> None:
    source = open_source("hf://datasets/me/set/data/train-00000.parquet")
    other = hub.app.files["data/train-00001.parquet"]
    hub.faults = [meanwhile(lambda: hub.app.files.update({"data/train-00000.parquet": other}))]
    with pytest.raises(Img2PromptError, match="has changed since it was listed"):
        source.list()


def test_a_data_set_that_is_not_there(hub: Store) -> None:
    with pytest.raises(UsageError, match="there is no hf://datasets/me/other"):
        open_source("hf://datasets/me/other")
