"""The HTTP interface, asked as a program asks it."""

from __future__ import annotations

import base64
import io
import json
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from img2prompt_cache.app import schemas
from img2prompt_cache.app.server import STATIC, create_app
from img2prompt_cache.app.settings import LONGEST_QUERY, MOST_RESULTS, Limits, Settings
from img2prompt_cache.runs.names import open_run
from kit import paint, prompt_of

SMALL = Limits(file_bytes=1 << 20, request_bytes=4 << 20, total_bytes=8 << 20, images=8, pixels=1 << 16)


@pytest.fixture(scope="module")
def client(served):
    app = create_app(Settings(served, device="cpu", limits=SMALL))
    with TestClient(app, base_url="http://localhost:8765") as client:
        wait_for_gallery(client)
        yield client


def wait_for_gallery(client):
    """Until the runs that are loaded have predicted for the pictures; the worker does that by itself."""
    for _ in range(1000):
        answer = client.get("/search", params={"q": "a calm sea", "by": "predicted"})
        if answer.status_code != 503:
            return
    pytest.fail("the gallery was never finished")


def files(*paths):
    return [("images", (path.name, path.read_bytes(), "image/png")) for path in paths]


def test_predictions_are_those_of_the_library(client, served, pairs):
    run = open_run(None, served)
    paths = [pairs / f"img{number:03d}.png" for number in (1, 5, 7)]
    answer = client.post("/predict", files=files(*paths), params={"top_k": 2, "embeddings": True})
    assert answer.status_code == 200, answer.text
    given = schemas.Predicted.model_validate_json(answer.content)
    assert given.run == run.name
    expected = run.predict(paths, top_k=2)
    assert [each.name for each in given.results] == [path.name for path in paths]
    np.testing.assert_allclose([each.embedding for each in given.results], expected.vectors, atol=1e-5)
    np.testing.assert_allclose([each.expected for each in given.results], expected.expected, atol=1e-4)
    assert [each.own_prompt for each in given.results] == expected.own_prompts
    assert expected.own_prompts[0] == prompt_of(1)
    for result, nearest in zip(given.results, expected.nearest, strict=True):
        # Prompts are compared by their cosines: to this encoder many are as good as equal.
        assert len(result.prompts) == 2
        np.testing.assert_allclose(
            [each.cosine for each in result.prompts], [cosine for _, cosine in nearest], atol=1e-5
        )


def test_json_takes_base64_and_data_uris(client, pairs):
    data = base64.b64encode((pairs / "img003.png").read_bytes()).decode()
    images = [data, f"data:image/png;base64,{data}", {"name": "third", "data": data}]
    answer = client.post("/predict", json={"images": images}, params={"embeddings": True})
    results = answer.json()["results"]
    assert [each["name"] for each in results] == ["image 1", "image 2", "third"]
    assert results[0]["embedding"] == results[1]["embedding"] == results[2]["embedding"]
    alone = client.post("/predict", json={"images": data}, params={"embeddings": True}).json()["results"]
    np.testing.assert_allclose(alone[0]["embedding"], results[0]["embedding"], atol=1e-5)


def test_an_image_may_be_the_body(client, pairs):
    data = (pairs / "img003.png").read_bytes()
    answer = client.post("/embed", content=data, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 1


def test_embeddings_as_an_array(client, served, pairs):
    paths = [pairs / "img001.png", pairs / "img002.png"]
    answer = client.post("/embed", files=files(*paths), params={"format": "npy"})
    assert answer.headers["content-type"] == "application/x-npy"
    vectors = np.load(io.BytesIO(answer.content), allow_pickle=False)
    np.testing.assert_allclose(vectors, open_run(None, served).predict(paths).vectors, atol=1e-5)
    mixed = client.post("/embed", files=files(paths[0], pairs / "words.png"), params={"format": "npy"})
    assert mixed.status_code == 415
    assert [each["status"] for each in mixed.json()["results"]] == [200, 415]


def test_an_image_that_cannot_be_used_does_not_fail_its_neighbours(client, pairs, tmp_path):
    large = paint(tmp_path / "large.png", 1, (400, 400))
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes((pairs / "img001.png").read_bytes() + b"\0" * SMALL.file_bytes)
    broken = bytearray((pairs / "img002.png").read_bytes())
    broken[-20] ^= 1
    (tmp_path / "broken.png").write_bytes(broken)
    tiff = tmp_path / "x.tif"
    tiff.write_bytes(b"II*\0" + b"\0" * 50)
    names = [pairs / "img001.png", pairs / "words.png", pairs / "cut.png", pairs / "empty.png"]
    sent = [*names, large, heavy, tmp_path / "broken.png", tiff]
    answer = client.post("/predict", files=files(*sent))
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [each["status"] for each in results] == [200, 415, 422, 422, 413, 413, 422, 415]
    assert all(each["error"] for each in results[1:])
    assert results[0]["prompts"]
    for path, status in ((pairs / "words.png", 415), (pairs / "cut.png", 422), (large, 413)):
        assert client.post("/predict", files=files(path)).status_code == status
    assert client.post("/predict", files=files(pairs / "words.png", large)).status_code == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[" * 100, 422),
        (b"[" * 100_000, 413),
        (b'{"images":' * 100_000, 413),
        (b"[]", 422),
        (b'{"images": []}', 422),
        (b'{"images": 5}', 422),
        (b'{"images": [5]}', 422),
        (b'{"images": [{"data": 5}]}', 422),
        (b'{"images": ["http://localhost/a.png"]}', 422),
        (b'{"images": ["data:text/html,hello"]}', 422),
        (b'{"images": [{"name": "\\ud800<script>", "data": "AAAA"}]}', 415),
        (b'{"images": ["' + b'","' * 8 + b'"]}', 413),
    ],
)
def test_json_that_is_none_of_ours_is_refused(client, body, status):
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert "detail" in answer.json() or answer.json()["results"][0]["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"images": [' + b"{}," * 400_000 + b"{}]}", 413),
        (b'{"images": [], "x": {"a": ' + b"[0]," * 300_000 + b"0}}", 413),
        (b'{"images": ["' + b"AAA " * 300_000 + b'"]}', 415),
        (('{"images": [' + "{}," * 200_000 + "{}]}").encode("utf-16"), 413),
    ],
)
def test_json_takes_a_few_times_its_length_of_memory(client, body, status):
    sent = {"content": body, "headers": {"Content-Type": "application/json"}}
    client.post("/predict", **sent)
    tracemalloc.start()
    try:
        answer = client.post("/predict", **sent)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.status_code == status, answer.text
    assert peak < 8 * len(body)


def test_as_many_images_as_are_allowed_can_be_sent_as_json(client, pairs):
    image = "data:image/png;base64," + base64.b64encode((pairs / "img001.png").read_bytes()).decode()
    items = [{"name": "a, b, c [1] {2}", "data": image}] * SMALL.images
    answer = client.post("/predict", json={"images": items})
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == SMALL.images
    wrapped = base64.encodebytes((pairs / "img001.png").read_bytes()).decode()
    assert client.post("/predict", json={"images": [wrapped]}).status_code == 200


def test_other_bodies_are_refused(client, pairs):
    assert client.post("/predict", content=b"hello").status_code == 415
    assert client.post("/predict", files=[("other", ("x.png", b"x"))]).status_code == 422
    assert client.post("/predict", data={"images": "text"}, files=[("a", ("b", b"c"))]).status_code == 422
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/predict", content=b"nonsense", headers=headers).status_code in (400, 422)
    many = [("images", ("x.png", b"x"))] * (SMALL.images + 1)
    assert client.post("/predict", files=many).status_code == 413
    assert client.post("/predict", files=files(pairs / "img001.png"), params={"top_k": -1}).status_code == 422


def test_large_bodies_are_refused_whether_or_not_they_say_so(client):
    body = b"\0" * (SMALL.request_bytes + 1)
    assert client.post("/predict", content=body, headers={"Content-Type": "image/png"}).status_code == 413

    def pieces():
        for _ in range(5):
            yield b"\0" * (1 << 20)

    assert client.post("/predict", content=pieces(), headers={"Content-Type": "image/png"}).status_code == 413


def test_runs_are_listed_best_first_and_can_be_chosen(client, served, pairs):
    listed = schemas.Runs.model_validate_json(client.get("/runs").content)
    assert [run.cosine for run in listed.runs] == sorted((run.cosine for run in listed.runs), reverse=True)
    assert {run.head for run in listed.runs} == {"mean", "ridge"}
    assert listed.default == open_run(None, served).name
    assert listed.limits["images"] == SMALL.images
    (mean,) = (run.name for run in listed.runs if run.head == "mean")
    answer = client.post(
        "/predict",
        files=files(pairs / "img001.png", pairs / "img002.png"),
        params={"run": mean, "embeddings": True},
    ).json()
    assert answer["run"] == mean
    np.testing.assert_allclose(answer["results"][0]["embedding"], answer["results"][1]["embedding"])
    refused = client.post("/predict", files=files(pairs / "img001.png"), params={"run": "../secret"})
    assert refused.status_code == 404
    assert "../secret" in refused.json()["detail"]


def test_pictures_of_the_cache_that_look_alike(client, pairs):
    answer = client.post("/predict", files=files(pairs / "img006.png"), params={"pictures": 3})
    found = answer.json()["results"][0]["pictures"]
    assert len(found) == 3
    assert found[0]["id"] == "img006"
    assert found[0]["cosine"] == pytest.approx(1, abs=1e-3)
    shown = client.get(f"/pictures/{found[0]['row']}")
    assert shown.headers["content-type"] == "image/webp"
    assert shown.content[8:12] == b"WEBP"
    assert client.get("/pictures/999").status_code == 404
    assert client.get("/pictures/0", params={"side": 5000}).status_code == 404


def test_the_gallery_holds_the_usable_rows_page_by_page(client):
    first = schemas.GalleryPage.model_validate_json(client.get("/gallery", params={"limit": 8}).content)
    rest = client.get("/gallery", params={"offset": 8, "limit": 100}).json()
    assert first.total == 20
    assert [each.id for each in first.pictures] == [f"img{number:03d}" for number in range(8)]
    assert len(rest["pictures"]) == 12


def test_text_finds_pictures_by_their_prompts_and_by_predictions(client):
    text = client.get("/gallery").json()["pictures"][4]["prompt"]
    true = client.get("/search", params={"q": text, "by": "true"}).json()["pictures"]
    assert text in [each["prompt"] for each in true if each["true"] > true[0]["true"] - 1e-3]
    assert true[0]["true"] == pytest.approx(1, abs=1e-4)
    predicted = client.get("/search", params={"q": text}).json()["pictures"]
    cosines = [each["predicted"] for each in predicted]
    assert cosines == sorted(cosines, reverse=True)
    assert len(predicted) == 20
    assert [each["true"] for each in predicted if each["id"] == "img019"] == [None]
    assert client.get("/search", params={"q": "x" * 2001}).status_code == 422
    assert client.get("/search", params={"q": ""}).status_code == 422


def test_a_prompt_is_composed_for_each_image(client, served, pairs):
    paths = [pairs / "img001.png", pairs / "words.png", pairs / "img006.png"]
    results = client.post("/predict", files=files(*paths), params={"compose": True}).json()["results"]
    assert "composed" not in results[1]
    expected = open_run(None, served).predict([paths[0], paths[2]], compose=True)
    for result, cosine in zip((results[0], results[2]), expected.composed_cosines, strict=True):
        assert result["composed"]["prompt"]
        assert result["composed"]["cosine"] == pytest.approx(float(cosine), abs=1e-3)


def test_the_interface_describes_itself(client):
    described = client.get("/openapi.json").json()
    assert {"/predict", "/embed", "/runs", "/health", "/metrics"} <= described["paths"].keys()
    body = described["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/json"} <= body.keys()
    for page in ("/", "/docs"):
        text = client.get(page).text
        assert "<html" in text
        assert "//" not in text.replace("http://www.w3.org/", "").replace("<!--", "")


def test_health_and_metrics(client, pairs):
    assert client.get("/health").json() == {"status": "ok", "waiting": 0}
    client.post("/predict", files=files(pairs / "img001.png", pairs / "words.png"))
    client.get("/no/such/page")
    text = client.get("/metrics").text
    assert 'img2prompt_images_total{status="415"}' in text
    assert 'img2prompt_requests_total{path="/predict",status="200"}' in text
    assert 'path="other",status="404"' in text
    assert "/no/such/page" not in text
    assert "img2prompt_batch_images_bucket" in text


@pytest.mark.parametrize("path", ["/", "/docs", "/health"])
def test_monitors_can_ask_for_the_head_alone(client, path):
    head, whole = client.head(path), client.get(path)
    assert head.status_code == whole.status_code == 200
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_what_may_be_asked_for_at_a_time_is_bounded_as_the_settings_say(client, pairs):
    image = files(pairs / "img001.png")
    for most, status in ((MOST_RESULTS, 200), (MOST_RESULTS + 1, 422)):
        assert client.get("/gallery", params={"limit": most}).status_code == status
        assert client.get("/search", params={"q": "sea", "by": "true", "limit": most}).status_code == status
        for name in ("top_k", "pictures"):
            assert client.post("/predict", files=image, params={name: most}).status_code == status
    for length, status in ((LONGEST_QUERY, 200), (LONGEST_QUERY + 1, 422)):
        assert client.get("/search", params={"q": "x" * length, "by": "true"}).status_code == status
    assert f'maxlength="{LONGEST_QUERY}"' in (STATIC / "index.html").read_text()


def test_hostile_names_come_back_as_text(client, pairs):
    name = '<img src=x onerror=alert(1)>\u202e"\n.png'
    data = base64.b64encode((pairs / "img001.png").read_bytes()).decode()
    answer = client.post("/predict", json={"images": [{"name": name, "data": data}]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    shown = answer.json()["results"][0]["name"]
    assert "\u202e" not in shown
    assert "\n" not in shown
    assert json.dumps(name).isascii()


def test_a_report_is_shown_in_a_sandbox(client, served):
    assert client.get("/runs").json()["report"] is False
    missing = client.get("/report")
    assert missing.status_code == 404
    assert f"there is no report of {served.name}; " in missing.json()["detail"]
    assert "given as its cache" in missing.json()["detail"]
    path = served / "report.html"
    try:
        path.write_text("<p>not ours</p>")
        assert client.get("/report").status_code == 404
        path.write_text('<!doctype html>\n<html lang="en" data-made-by="img2prompt-cache report">')
        answer = client.get("/report")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts;")
        assert client.get("/runs").json()["report"] is True
    finally:
        path.unlink()


def test_who_goes_away_while_sending_is_no_error_of_the_app(served):
    told = []
    app = create_app(Settings(served, device="cpu"), told.append)
    answered = []

    async def ask():
        messages = iter([{"type": "http.request", "body": b"half", "more_body": True}])

        async def receive():
            return next(messages, {"type": "http.disconnect"})

        async def send(message):
            answered.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"image/png"), (b"content-length", b"10")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "root_path": "",
            "query_string": b"",
            "headers": headers,
        }
        await app(scope, receive, send)

    with TestClient(app, base_url="http://localhost") as client:
        client.portal.call(ask)
        assert client.get("/health").json()["waiting"] == 0
    assert answered[0]["status"] == 400
    assert told == []
