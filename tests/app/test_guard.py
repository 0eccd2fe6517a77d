"""Who may ask the app, and what every answer says to a browser."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("fastapi")

from anyio.from_thread import start_blocking_portal
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from img2prompt_cache.app.guard import HEADERS, Guard, session_of
from img2prompt_cache.app.settings import Limits, Settings
from img2prompt_cache.errors import UsageError

TOKEN = "a-token-that-nobody-guesses"


async def answer(request):
    body = await request.body()
    return PlainTextResponse(f"{len(body)} bytes")


def client_of(tmp_path, base="http://localhost:8765", **settings):
    routes = [Route(path, answer, methods=["GET", "POST"]) for path in ("/", "/runs", "/predict", "/health")]
    return TestClient(Guard(Starlette(routes=routes), Settings(tmp_path, **settings)), base_url=base)


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1", "[::1]:8765", "LOCALHOST", "localhost."])
def test_this_machine_is_known_by_its_loopback_names(tmp_path, host):
    assert client_of(tmp_path).get("/runs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "10.0.0.1", "localhost.evil"]
)
def test_other_names_are_refused_so_that_no_name_can_be_rebound(tmp_path, host):
    refused = client_of(tmp_path).get("/runs", headers={"Host": host})
    assert refused.status_code == 421
    assert refused.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({b"origin": b"http://["}, 403),
        ({b"host": b"["}, 421),
        ({b"host": b"\xff"}, 421),
        ({b"content-length": b"\xb2"}, 401),  # a superscript: a digit, and no number
        ({b"cookie": b"img2prompt_session=\xff; ]=["}, 401),
        ({b"authorization": b"Bearer \xff"}, 401),
    ],
)
def test_headers_that_are_none_are_refused_like_others(tmp_path, headers, status):
    client = client_of(tmp_path, token=TOKEN)
    refused = client.get("/runs", headers=list({b"host": b"localhost", **headers}.items()))
    assert refused.status_code == status
    assert refused.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


def test_further_names_can_be_allowed(tmp_path):
    client = client_of(tmp_path, allow_hosts=("Box.lan",))
    assert client.get("/runs", headers={"Host": "box.lan:80"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8765"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "localhost:8765"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://[::1]x:8765"}, 403),
        ({"Origin": "http://localhost:8765@evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_pages_of_other_sites_can_link_to_ours_and_nothing_else(tmp_path, headers, status):
    client = client_of(tmp_path)
    assert client.post("/predict", headers=headers).status_code == status
    followed = {**headers, "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers={k: v for k, v in followed.items() if k != "Origin"}).status_code == 200
    if "Sec-Fetch-Site" in headers:
        assert client.get("/runs", headers=followed).status_code == status
        assert client.post("/", headers=followed).status_code == status


def test_a_token_guards_everything_but_the_pages(tmp_path):
    client = client_of(tmp_path, host="0.0.0.0", token=TOKEN)
    assert client.get("/").status_code == 200
    assert client.get("/health").status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"img2prompt_session={TOKEN}"}):
        refused = client.get("/runs", headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
    for headers in (
        {"Authorization": f"Bearer {TOKEN}"},
        {"Cookie": f"img2prompt_session={session_of(TOKEN)}"},
    ):
        assert client.get("/runs", headers=headers).status_code == 200
    assert client.get("/runs", headers={"Cookie": '"; a=\x01'}).status_code == 401


def test_with_a_token_addresses_name_this_machine_and_names_do_not(tmp_path):
    client = client_of(tmp_path, host="0.0.0.0", token=TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/runs", headers={**headers, "Host": "10.0.0.1:8765"}).status_code == 200
    assert client.get("/runs", headers={**headers, "Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "box.lan"])
def test_what_others_can_reach_takes_a_token(tmp_path, host):
    with pytest.raises(UsageError, match="`token`"):
        Settings(tmp_path, host=host)
    with pytest.raises(UsageError, match="16 ASCII"):
        Settings(tmp_path, host=host, token="short")
    assert TOKEN not in repr(Settings(tmp_path, host=host, token=TOKEN))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_what_only_this_machine_can_reach_takes_none(tmp_path, host):
    assert Settings(tmp_path, host=host).token == ""


def test_every_answer_has_the_headers(tmp_path):
    client = client_of(tmp_path)
    for answer in (client.get("/"), client.get("/none"), client.get("/", headers={"Host": "x"})):
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_bodies_of_all_requests_together_are_bounded(tmp_path):
    limits = Limits(request_bytes=1000, total_bytes=500)
    client = client_of(tmp_path, limits=limits)
    assert client.post("/predict", content=b"x" * 400).text == "400 bytes"
    refused = client.post("/predict", content=b"x" * 600)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert client.post("/predict", content=b"x" * 1001).status_code == 413
    assert client.post("/predict", content=b"x" * 400).text == "400 bytes"


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path):
    async def ask():
        sent = []

        async def receive():
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        routes = [Route("/predict", answer, methods=["POST"])]
        guard = Guard(Starlette(routes=routes), Settings(tmp_path, limits=Limits(body_seconds=0.05)))
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-length", b"10")],
        }
        await guard(scope, receive, send)
        return sent[0]["status"]

    # In a thread of its own: a browser that Playwright drives leaves an event loop running in this one.
    with start_blocking_portal() as portal:
        assert portal.call(ask) == 408
