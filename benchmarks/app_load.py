"""The app under load, as a process of its own on a loopback port.

    python benchmarks/app_load.py CACHE IMAGES [--clients 200] [--seconds 60] [--uploads 1000] [--out FILE]

1. `predict` on some of the images with the models loaded: images per second.
2. So many clients send one image after the other for so long: statuses, time to answer, images per second,
   memory.
3. So many hostile uploads: statuses, and memory before and after.
4. SIGTERM while all clients have a request under way: every request that was sent is to be answered.

It ends with exit code 1 where something other than 503 went wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PER_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
RETRY = re.compile(rb"retry-after: (\d+)", re.IGNORECASE)


class Answer(tuple[int, bytes, bytes]):
    """Status, head and body."""


class Connection:
    """A connection that is kept alive, opened again where it was closed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, path: str, body: bytes, kind: str = "image/png", sent: Any = None) -> Answer:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost:{self.port}\r\nContent-Type: {kind}\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await self._writer.drain()
        if sent is not None:
            sent()
        answer = await self._read()
        if b"connection: close" in answer[1].lower():
            self.close()
        return answer

    async def raw(self, data: bytes) -> int:
        """Send anything; give the status, or 0 where the connection was closed without one."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            writer.write_eof()
            found = PER_STATUS.match(await asyncio.wait_for(reader.read(4096), 30))
            return int(found[1]) if found else 0
        except (ConnectionError, TimeoutError):
            return 0
        finally:
            writer.close()

    async def _read(self) -> Answer:
        assert self._reader is not None
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, length = PER_STATUS.match(head), LENGTH.search(head)
        assert status is not None
        return Answer((int(status[1]), head, await self._reader.readexactly(int(length[1]) if length else 0)))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def memory(process: subprocess.Popen[str]) -> float:
    """Resident memory of the app, in MB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1000  # type: ignore[index]


def start(cache: Path, *options: str) -> tuple[subprocess.Popen[str], int]:
    command = [
        sys.executable,
        "-m",
        "img2prompt_cache.cli",
        "app",
        "--cache",
        str(cache),
        "--port",
        "0",
        *options,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://[^:]+:(\d+)/", line):
            return process, int(found[1])
    raise SystemExit(f"the app did not start: {process.wait()}")


def baseline(cache: Path, paths: list[Path]) -> float:
    """Images per second of `predict`, with the models loaded."""
    code = (
        "import json, sys, time\n"
        "from pathlib import Path\n"
        "from img2prompt_cache.app.engine import Engine\n"
        "from img2prompt_cache.prediction.stream import predict_images\n"
        "from img2prompt_cache.app.settings import Settings\n"
        "from img2prompt_cache.sources import list_images\n"
        "paths = [Path(each) for each in json.load(sys.stdin)]\n"
        "engine = Engine(Settings(Path(sys.argv[1])))\n"
        "served = engine.load(engine.default)\n"
        "source, listing = list_images(paths)\n"
        "def once():\n"
        "    for batch in predict_images(served.head, served.backbones, source, listing.table,\n"
        "                                expectation=served.run.expectation):\n"
        "        served.bank.nearest(batch.vectors, 5)\n"
        "engine.predict(engine.default, [paths[0].read_bytes()])\n"
        "started = time.perf_counter()\n"
        "once()\n"
        "print(len(paths) / (time.perf_counter() - started))\n"
    )
    named = json.dumps([str(path) for path in paths])
    done = subprocess.run(
        [sys.executable, "-c", code, str(cache)], input=named, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


async def load(port: int, images: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """Let clients send one image after the other."""
    statuses: Counter[int] = Counter()
    taken: list[float] = []
    errors: Counter[str] = Counter()
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        rng, connection = random.Random(number), Connection(port)
        while time.perf_counter() < until:
            started = time.perf_counter()
            try:
                status, head, _ = await connection.ask("/predict?top_k=5", rng.choice(images))
            except (ConnectionError, EOFError, asyncio.IncompleteReadError) as error:
                errors[type(error).__name__] += 1
                connection.close()
                continue
            statuses[status] += 1
            if status == 200:
                taken.append(time.perf_counter() - started)
            elif status == 503:
                found = RETRY.search(head)
                await asyncio.sleep(float(found[1] if found else 1) * rng.random())
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*map(client, range(clients)))
    passed = time.perf_counter() - started
    hundredths = statistics.quantiles(taken, n=100) if len(taken) > 1 else [0.0] * 99
    return {
        "clients": clients,
        "seconds": round(passed, 1),
        "statuses": dict(statuses),
        "errors": dict(errors),
        "images_per_second": round(statuses[200] / passed, 2),
        "p50_seconds": round(hundredths[49], 3),
        "p95_seconds": round(hundredths[94], 3),
        "p99_seconds": round(hundredths[98], 3),
    }


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that declares this size, with whatever pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def hostile(images: list[bytes], port: int) -> list[Callable[[random.Random, Connection], Awaitable[int]]]:
    """Kinds of uploads that nobody should send."""

    async def body(
        connection: Connection, data: bytes, kind: str = "image/png", path: str = "/predict"
    ) -> int:
        try:
            return (await connection.ask(path, data, kind))[0]
        except (ConnectionError, EOFError, asyncio.IncompleteReadError):
            return 0
        finally:
            connection.close()

    def damaged(rng: random.Random) -> bytes:
        data = bytearray(rng.choice(images))
        for _ in range(rng.randint(1, 30)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data[: rng.randint(1, len(data))])

    form = 'multipart/form-data; boundary="b"'

    def part(name: str, data: bytes) -> bytes:
        head = f'--b\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'
        return head.encode("utf-8", "surrogatepass") + data + b"\r\n--b--\r\n"

    head = f"POST /predict HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: image/png\r\n".encode()
    return [
        lambda rng, c: body(c, damaged(rng)),
        lambda rng, c: body(c, rng.randbytes(rng.randint(0, 100_000))),
        lambda rng, c: body(c, png(60_000, 60_000)),
        lambda rng, c: body(c, png(5000, 5000, b"\0" * 75_005_000)),
        lambda rng, c: body(c, png(2, 2, b"\0" * 100_000_000)),
        lambda rng, c: body(c, b"GIF89a" + struct.pack("<HH", 65535, 65535) + rng.randbytes(50)),
        lambda rng, c: body(c, part("<script>alert(1)</script>\ud800" * 200, damaged(rng)), form),
        lambda rng, c: body(c, part("x", b"")[:-20] * 300, form),
        lambda rng, c: body(c, rng.randbytes(5000), form),
        lambda rng, c: body(c, b"[" * 1_000_000, "application/json"),
        lambda rng, c: body(c, b'{"images": ["' + b"A" * 4_000_000 + b'"]}', "application/json"),
        lambda rng, c: body(
            c, json.dumps({"images": ["http://localhost/x"] * 64}).encode(), "application/json"
        ),
        lambda rng, c: body(c, rng.choice(images), path=f"/predict?run={'..%2f' * 50}&top_k=9"),
        lambda rng, c: c.raw(head + b"Content-Length: 99999999999\r\n\r\n" + b"x" * 1000),
        lambda rng, c: c.raw(head + b"Content-Length: 5000\r\n\r\n" + b"x" * 100),
        lambda rng, c: c.raw(head + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFF\r\nx"),
        lambda rng, c: c.raw(rng.randbytes(2000)),
        lambda rng, c: c.raw(b"POST /predict HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n"),
    ]


async def attack(port: int, images: list[bytes], uploads: int, at_once: int = 16) -> dict[str, int]:
    """Send hostile uploads; give how many had which status, 0 for a connection that was closed."""
    kinds, statuses, slots = hostile(images, port), Counter[int](), asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with slots:
            statuses[await kinds[number % len(kinds)](random.Random(number), Connection(port))] += 1

    await asyncio.gather(*map(one, range(uploads)))
    return {str(status): count for status, count in sorted(statuses.items())}


async def stop_under_load(
    process: subprocess.Popen[str], port: int, images: list[bytes], clients: int
) -> dict[str, int]:
    """Ask the app to stop while every client has a request under way; count the answers."""
    sent, asked, answers = 0, asyncio.Event(), Counter[str]()

    def one_sent() -> None:
        nonlocal sent
        sent += 1
        if sent == clients:
            asked.set()

    async def client(number: int) -> None:
        connection = Connection(port)
        try:
            status, _, _ = await connection.ask("/predict", images[number % len(images)], sent=one_sent)
            answers[str(status)] += 1
        except (ConnectionError, EOFError, asyncio.IncompleteReadError) as error:
            answers[type(error).__name__] += 1
        connection.close()

    async def stop() -> None:
        await asked.wait()
        await asyncio.sleep(0.2)  # what was sent is now in the app's hands
        process.send_signal(signal.SIGTERM)

    await asyncio.gather(stop(), *map(client, range(clients)))
    return {**answers, "exit_code": process.wait(120)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("images", type=Path, help="a folder")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--uploads", type=int, default=1000)
    parser.add_argument("--count", type=int, default=500, help="images that are sent")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    kinds = (".png", ".jpg", ".jpeg", ".webp")
    paths = sorted(path for path in given.images.iterdir() if path.suffix.lower() in kinds)
    paths = random.Random(0).sample(paths, min(given.count, len(paths)))
    images = [path.read_bytes() for path in paths]

    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "images": len(images)}
    found["predict_images_per_second"] = round(baseline(given.cache, paths), 2)
    process, port = start(given.cache)
    try:
        asyncio.run(load(port, images, given.clients, min(10.0, given.seconds)))  # warm
        before = memory(process)
        found["load"] = asyncio.run(load(port, images, given.clients, given.seconds))
        found["memory_mb"] = {"before": round(before), "after_load": round(memory(process))}
        found["load"]["share_of_predict"] = round(
            found["load"]["images_per_second"] / found["predict_images_per_second"], 3
        )
        if given.uploads:
            asyncio.run(attack(port, images, min(given.uploads, 100)))  # warm
            calm = memory(process)
            found["hostile"] = asyncio.run(attack(port, images, given.uploads))
            found["memory_mb"] |= {"before_hostile": round(calm), "after_hostile": round(memory(process))}
        found["stopped"] = asyncio.run(stop_under_load(process, port, images, min(given.clients, 128)))
    finally:
        process.kill()
        process.wait()
    text = json.dumps(found, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")
    unanswered = {*found["stopped"]} - {"200", "503", "exit_code"}
    bad = {*found["load"]["statuses"]} - {200, 503} or found["load"]["errors"]
    bad = bad or "500" in found.get("hostile", {}) or unanswered or found["stopped"]["exit_code"]
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
