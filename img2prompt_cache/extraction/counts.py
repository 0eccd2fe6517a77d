"""Counts: what the rows of a cache say, taken together."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np

from img2prompt_cache.cache.manifest import Manifest
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.parts import read_text
from img2prompt_cache.cache.reader import FAILED
from img2prompt_cache.cache.virtual import build_view, recall
from img2prompt_cache.extraction.passes import Pass


@dataclass(slots=True)
class Counts:
    """What a cache's rows say, counted part by part so that they are never all in memory."""

    failed: int = 0
    identical: int = 0
    without_prompt: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def count(work: Pass) -> Counts:
    """Bring `cache.h5` up to date and give the counts of the cache, as `cache.h5` knows them if it was."""
    listed = [work.source, work.listed]
    known = recall(work.folder) or {}
    if known.get("listed") == listed:
        with suppress(KeyError, TypeError):
            return Counts(**known["counts"])
    manifest = load_manifest(work.folder)
    counts = _count(work.folder, manifest)
    build_view(work.folder, manifest, {"listed": listed, "counts": asdict(counts)})
    return counts


def _count(folder: Path, manifest: Manifest) -> Counts:
    failed = without_prompt = 0
    reasons: Counter[str] = Counter()
    images = [np.empty(0, np.uint64)]
    for part in manifest.columns[0].parts:
        names = ["prompt", "sha256", "status", "reason"]
        text = read_text(folder / part.file, names, part.stop - part.start)
        good = [status != FAILED for status in text["status"]]
        failed += good.count(False)
        without_prompt += text["prompt"].count("")
        reasons.update(filter(None, text["reason"]))
        # 64 bits tell a billion images apart well enough to count them.
        images.append(np.array([int(sha[:16], 16) for sha in compress(text["sha256"], good)], np.uint64))
    hashes = np.concatenate(images)
    identical = len(hashes) - len(np.unique(hashes))
    return Counts(failed, identical, without_prompt, dict(reasons.most_common()))
