"""How many images a second the lanes decode, against what the device takes."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from setting import Notes, Setting, device

from img2prompt_cache.extraction.encode import encode_batches
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.images.decode import decode
from img2prompt_cache.images.geometry import Geometry
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.devices import choose_precision, cores
from img2prompt_cache.sources import open_source

BATCH = 32


def inputs(geometries: list[Geometry], paths: tuple[Path, ...]) -> int:
    """Read, hash, decode and resize some images, as a lane does."""
    for path in paths:
        data = path.read_bytes()
        hashlib.sha256(data).hexdigest()
        picture = decode(data)
        for geometry in geometries:
            geometry.apply(picture)
    return len(paths)


def batched(paths: list[Path], size: int) -> list[tuple[Path, ...]]:
    return [tuple(paths[i : i + size]) for i in range(0, len(paths), size)]


def rate(pool: Executor, geometries: list[Geometry], paths: list[Path]) -> float:
    """Images a second, after a first round."""
    work = partial(inputs, geometries)
    list(pool.map(work, batched(paths[: 4 * BATCH], 4)))
    started = time.perf_counter()
    done = sum(pool.map(work, batched(paths, BATCH // 2)))
    return done / (time.perf_counter() - started)


def measure(setting: Setting, notes: Notes) -> None:
    """Decode in threads and in processes; then whole lanes, with the device."""
    where = device()
    precision = choose_precision("auto", where)
    backbones = {
        spec: load_backbone(spec, precision=precision, device=where)
        for spec in (setting.backbones[name] for name in setting.joined)
    }
    geometries = list(dict.fromkeys(backbone.geometry for backbone in backbones.values()))
    files = sorted((setting.source / "images").iterdir())
    counts = [count for count in (1, 2, 4, 8, 16, 32) if count <= 2 * cores()]
    for kind in (".png", ".jpg"):
        paths = [path for path in files if path.suffix == kind]
        for count in counts:
            some = paths[: max(64 * count, 256)]
            with ThreadPoolExecutor(count) as pool:
                notes.add(f"{kind} {count} threads", rate(pool, geometries, some))
        with ProcessPoolExecutor(cores()) as pool:
            notes.add(f"{kind} {cores()} processes", rate(pool, geometries, paths))
    source = open_source(setting.source)
    table = source.list().table
    uris = table["uri"].to_pylist()
    rows = Slice(0, 0, {"imgId": table["imgId"].to_pylist(), "uri": uris})
    for batch in (4,) if setting.small else (BATCH, 4 * BATCH):
        for count in counts[-3:]:
            first = last = 0.0
            seen = behind = 0
            for done in encode_batches(rows, source, backbones, batch, count):
                last = time.perf_counter()
                first, behind = first or last, behind or len(done.images)
                seen += len(done.images)
            if last > first:
                notes.add(f"joined, {count} lanes, batches of {batch}", (seen - behind) / (last - first))
