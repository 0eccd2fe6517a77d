"""Shards, parquet files and tables on a loopback web server."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import ImageError, Img2PromptError, UsageError
from img2prompt_cache.extraction.look import look
from img2prompt_cache.reporting.rows import cached_images
from img2prompt_cache.sources import SourceOptions, open_source, reopen_source, table_of_prompts
from img2prompt_cache.sources.remote import address
from img2prompt_cache.sources.remote.transport import PATIENCE
from kit import Tiny, make_source, paint, parts_of
from loopback import Fault, Files, Store, busy, cut, make_shard, meanwhile, serving


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMG2PROMPT_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(PATIENCE, "first", 0.01)
    monkeypatch.setattr(address, "_SECRETS", {})


@pytest.fixture
def web() -> Iterator[Store]:
    with serving(Files()) as served:
        yield served


@pytest.fixture
def shard(web: Store, tmp_path: Path) -> bytes:
    data = make_shard(tmp_path / "images", 0, 4)
    web.app.files["a/shard-07.tar"] = data
    return data


def local(data: bytes, folder: Path, name: str = "shard-07.tar") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def redirect(to: str) -> Fault:
    def fault(app: Any, environ: Any, start_response: Any) -> list[bytes]:
        start_response("302 Found", [("Location", to), ("Content-Length", "0")])
        return [b""]

    return fault


def answer(status: str, body: bytes, **headers: str) -> Fault:
    def fault(app: Any, environ: Any, start_response: Any) -> list[bytes]:
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        start_response(status, [*named, ("Content-Length", str(len(body)))])
        return [body]

    return fault


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_taken_up_again(web: Store, shard: bytes, tmp_path: Path, ranges: bool) -> None:
    web.app.ranges = ranges
    web.faults = [cut(1000), busy(), cut(len(shard) // 3), redirect(f"{web.url}/a/shard-07.tar")]
    source, here = open_source(f"{web.url}/a/shard-07.tar"), open_source(local(shard, tmp_path / "here"))
    table = source.list().table
    assert table.equals(here.list().table)
    assert [source.read(uri) for uri in table["uri"].to_pylist()] == [
        here.read(uri) for uri in table["uri"].to_pylist()
    ]
    assert any(line.endswith("bytes=1000-") for line in web.seen)
    assert not web.faults


def test_a_signed_url_is_stored_and_shown_nowhere(
    web: Store, shard: bytes, tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    web.app.query = "X-Signature=hush%2Fhush&user=me"
    url = f"{web.url}/a/shard-{{07..07}}.tar?{web.app.query}"
    source = open_source(url)
    assert "hush" not in repr(source) + str(source.root) + str(source.settings)
    tiny.extract(url, tmp_path / "there")
    tiny.extract(local(shard, tmp_path / "here").parent, tmp_path / "cache")
    assert parts_of(tmp_path / "there") == parts_of(tmp_path / "cache")
    for path in (tmp_path / "there").rglob("*"):
        assert path.is_dir() or b"hush" not in path.read_bytes()
    web.app.query = "other"
    web.app.files["a/shard-07.tar"] += b"\0" * 512
    address._SECRETS.clear()
    again = reopen_source({"root": str(source.root), **source.settings})
    with pytest.raises(Img2PromptError, match=r"shard-07.tar may not be read: .* 403 .* name the whole URL"):
        again.list()
    assert "hush" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (redirect("file:///etc/passwd"), "answers 302 .Found.: it redirects to where it is not followed"),
        (redirect("ftp://127.0.0.1/x.tar"), "redirects to ftp://, which is not followed"),
        (redirect("http://user:word@127.0.0.1/x.tar"), "which is not followed"),
        (answer("200 OK", b"short", ETag='"x"'), "has changed since it was listed"),
        (answer("206 Partial Content", b"x", Content_Range="bytes 5-5/6"), "has changed since it was listed"),
        (answer("401 Unauthorized", b""), "may not be read: the server answers 401"),
        (answer("404 Not Found", b""), "has changed since it was listed"),
    ],
)
def test_hostile_answers(web: Store, shard: bytes, fault: Fault, told: str, tmp_path: Path) -> None:
    web.faults = [fault]
    with pytest.raises(Img2PromptError, match=told):
        open_source(f"{web.url}/a/shard-07.tar").list()
    assert not list((tmp_path / "spool").glob("*/*"))


def test_an_encrypted_connection_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.request import Request

    from img2prompt_cache.sources.remote.transport import Refused
    from img2prompt_cache.sources.remote.web import _Redirects

    for start, to, follows in (("https", "http", False), ("https", "https", True), ("http", "https", True)):
        request = Request(f"{start}://a/x.tar", headers={"Range": "bytes=5-"})
        if follows:
            made = _Redirects().redirect_request(request, None, 302, "", None, f"{to}://b/x.tar")
            assert made.headers == {"Range": "bytes=5-"}
        else:
            with pytest.raises(Refused):
                _Redirects().redirect_request(request, None, 302, "", None, f"{to}://b/x.tar")


def test_a_server_that_stays_busy_or_silent(
    web: Store, shard: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr(PATIENCE, "attempts", 3)
    web.faults = [busy("429 Too Many Requests")] * 3
    source = open_source(f"{web.url}/a/shard-07.tar")
    with pytest.raises(Img2PromptError, match=r"could not be read in 3 attempts: the server answers 429"):
        source.list()
    monkeypatch.setattr(PATIENCE, "timeout", 0.2)
    done = threading.Event()
    web.faults = [meanwhile(lambda: done.wait(5))] * 3
    with pytest.raises(Img2PromptError, match=r"in 3 attempts: .*timed out"):
        source.list()
    done.set()


def test_the_wait_that_a_server_asks_for_is_kept_within_bounds(
    web: Store, shard: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("img2prompt_cache.sources.remote.transport.time.sleep", waits.append)
    asked = ("7", "86400", "Fri, 31 Dec 9999 23:59:59 GMT", "?")
    web.faults = [busy(wait=wait) for wait in asked]
    open_source(f"{web.url}/a/shard-07.tar").list()
    assert waits[:3] == [7.0, 60.0, 60.0]
    assert 0 < waits[3] < 1


def test_a_report_does_without_the_images_of_a_server_that_is_gone(
    web: Store, shard: bytes, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PATIENCE, "attempts", 2)
    tiny.extract(f"{web.url}/a/shard-07.tar", tmp_path / "cache")
    cache = Cache(tmp_path / "cache")
    read = cached_images(cache, cache.text("uri")["uri"])
    assert read(1)[:4] == b"\x89PNG"
    read = cached_images(cache, cache.text("uri")["uri"])
    web.app.files.clear()
    asked = len(web.seen)
    for row in range(3):
        with pytest.raises(ImageError, match=r"its source cannot be opened: there is no http://"):
            read(row)
    assert len(web.seen) == asked + 1


def test_what_a_web_server_cannot_do(web: Store, shard: bytes) -> None:
    with pytest.raises(UsageError, match=r"a web server does not list .*/a; name a .tar"):
        open_source(f"{web.url}/a")
    with pytest.raises(UsageError, match=r"there is no .*/a/no.tar"):
        open_source(f"{web.url}/a/no.tar")
    with pytest.raises(UsageError, match="Copy a folder of images to this machine"):
        open_source(f"{web.url}/a/x.csv")
    with pytest.raises(UsageError, match="`prompts` means nothing"):
        open_source(f"{web.url}/a/shard-07.tar", SourceOptions(prompts=Path("x.csv")))


def test_parquet_with_images_inside(web: Store, tmp_path: Path) -> None:
    image = paint(tmp_path / "a.png", 1).read_bytes()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [{"bytes": image, "path": "a.png"}, {"bytes": None, "path": str(tmp_path / "a.png")}]
    table = pa.table({"image": pa.array(values, kind), "text": ["one", "two"]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    web.app.files["x.parquet"] = buffer.getvalue()
    source = open_source(f"{web.url}/x.parquet")
    listing = source.list()
    assert listing.table["imgId"].to_pylist() == ["0", "1"]
    assert source.read("x.parquet#0") == image
    with pytest.raises(ImageError, match="holds no single files"):
        source.read("x.parquet#1")
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": ["file:///etc/passwd"], "text": ["one"]}), buffer)
    web.app.files["paths.parquet"] = buffer.getvalue()
    with pytest.raises(UsageError, match=r"^http://.*/paths.parquet has no column of image bytes"):
        open_source(f"{web.url}/paths.parquet").list()
    web.app.files["broken.parquet"] = b"PAR1" + b"\xff" * 100
    with pytest.raises(UsageError, match=r"^http://.*/broken.parquet cannot be read as parquet"):
        open_source(f"{web.url}/broken.parquet").list()


def test_a_table_of_prompts_goes_with_local_images(web: Store, tmp_path: Path) -> None:
    folder = make_source(tmp_path / "images", 3)
    web.app.files["prompts.csv"] = (folder / "prompts.csv").read_bytes()
    (folder / "prompts.csv").unlink()
    named = f"{web.url}/prompts.csv"
    web.app.query = "key=hush"
    found = look(folder, tmp_path / "cache", prompts=f"{named}?key=hush", preset="packaged")
    assert (found.pairs, found.format) == (3, "table")
    assert "hush" not in str(found)
    web.app.query = ""
    address._SECRETS.clear()
    options = SourceOptions(prompts=table_of_prompts(named))
    assert open_source(folder, options).settings["prompts"] == named
    web.app.files["prompts.csv"] = b"imgId,prompt\n../../x,secret\n"
    with pytest.raises(UsageError, match=r"^http://[^ ]*/prompts.csv"):
        open_source(folder, options).list()
    with pytest.raises(UsageError, match="must be one table"):
        table_of_prompts(web.url + "/{a,b}.csv")
