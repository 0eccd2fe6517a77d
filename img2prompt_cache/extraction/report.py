"""What a pass reports: its plan, where its time goes, and what the cache holds at its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.manifest import Manifest
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.part_text import read_rows_part
from img2prompt_cache.cache.reader import FAILED, OK, REMOVED
from img2prompt_cache.cache.virtual import build_view, read_notes
from img2prompt_cache.extraction.changes import Changes
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from img2prompt_cache.sources.base import Summary


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pass is going to do, reported before the first batch.

    Attributes
    ----------
    rows : int
        Rows the cache will have.
    fresh : int
        Rows that are new.
    work : int
        Rows to go through, in all parts that lack a column. Rows of `changes` are not among them.
    columns : tuple of str
        Folders of the columns to be written.
    bytes : int
        Estimated size of the new parts.
    summary : Summary
        Of the source.
    changes : Changes
        In what the source differs from the rows that are cached.
    """

    rows: int
    fresh: int
    work: int
    columns: tuple[str, ...]
    bytes: int
    summary: Summary
    changes: Changes = field(default_factory=Changes, compare=False)

    def __str__(self) -> str:
        found = self.summary
        lines = [
            f"source: {counted(found.pairs, 'pair', 'pairs')}, "
            f"{counted(found.without_prompt, 'image', 'images')} without prompt, "
            f"{counted(found.without_image, 'prompt', 'prompts')} without image",
            *(f"  {line}" for line in found.notes),
        ]
        changed = self.changes.counts()
        if changed:
            lines.append(f"cached rows: {changed}")
        if self.work:
            lines.append(
                f"plan: {self.work} of {counted(self.rows, 'row', 'rows')} ({self.fresh} new), "
                f"{self.bytes / 1e6:,.1f} MB, "
                f"columns {', '.join(self.columns)}"
            )
        else:
            nothing = "nothing else" if changed else "nothing"
            lines.append(f"{nothing} to do: {counted(self.rows, 'row is', 'rows are')} cached")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Report:
    """What a cache holds after a pass, and what the pass did.

    Attributes
    ----------
    rows, ok, failed : int
        Of the whole cache.
    fresh : int
        Rows this pass added.
    identical : int
        Rows whose image is byte for byte that of an earlier row.
    without_prompt : int
        Rows that have no prompt, removed ones aside.
    reasons : dict of str to int
        Why images failed, most frequent first.
    missing : dict of str to int
        How many good images could not be read again, for each column that lacks any; removed ones aside.
    seconds : float
        Wall time of the pass.
    stages : dict of str to float
        Seconds of work in each stage, summed over threads.
    removed : int
        Rows that are left out, because their image is gone from the source.
    changes : Changes
        In what the source differed from the rows that were cached.
    """

    rows: int
    ok: int
    failed: int
    fresh: int
    identical: int
    without_prompt: int
    reasons: dict[str, int]
    missing: dict[str, int]
    seconds: float
    stages: dict[str, float]
    removed: int = 0
    changes: Changes = field(default_factory=Changes, compare=False)


@dataclass(slots=True)
class Clock:
    """Seconds of work in each stage of a pass, summed over threads."""

    seconds: dict[str, float] = field(default_factory=dict)

    def charge(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def add(self, other: Clock) -> None:
        """Add the seconds of another clock."""
        for stage, seconds in other.seconds.items():
            self.charge(stage, seconds)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Charge a stage with the time its block takes."""
        started = time.perf_counter()
        yield
        self.charge(stage, time.perf_counter() - started)


@dataclass(slots=True)
class Counts:
    """Counts over the rows of a cache, made part by part so that they are never all in memory.

    `unprompted` was called `without_prompt` while it counted removed rows, too: those of earlier versions are
    counted again.
    """

    failed: int = 0
    removed: int = 0
    identical: int = 0
    unprompted: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def count_rows(folder: Path, listed: tuple[int, str]) -> Counts:
    """Bring `cache.h5` up to date and count the rows of a cache.

    Rows are read only if `cache.h5` does not hold the counts of the manifest as it is now.

    Parameters
    ----------
    folder : pathlib.Path
        The cache, locked.
    listed : tuple of int and str
        Number and digest of the listing that the cache holds every row of, to be kept in `cache.h5`.
    """
    known = read_notes(folder) or {}
    counts = _recorded(known.get("counts"))
    if counts is None or known.get("listed") != list(listed):
        manifest = load_manifest(folder)
        counts = counts or _count(folder, manifest)
        build_view(folder, manifest, {"listed": listed, "counts": asdict(counts)})
    return counts


def _recorded(counts: Any) -> Counts | None:
    with suppress(TypeError):
        return Counts(**counts)
    return None


def _count(folder: Path, manifest: Manifest) -> Counts:
    failed = removed = unprompted = 0
    reasons: Counter[str] = Counter()
    images = [np.empty(0, np.uint64)]
    for part in manifest.columns[0].parts:
        names = ["prompt", "sha256", "status", "reason"]
        text = read_rows_part(folder, manifest.columns[0], part, names)
        good = [status == OK for status in text["status"]]
        failed += text["status"].count(FAILED)
        removed += text["status"].count(REMOVED)
        unprompted += sum(
            not prompt and status != REMOVED
            for prompt, status in zip(text["prompt"], text["status"], strict=True)
        )
        reasons.update(
            reason for status, reason in zip(text["status"], text["reason"], strict=True) if status == FAILED
        )
        # 64 bits tell a billion images apart well enough to count them.
        images.append(np.array([int(sha[:16], 16) for sha in compress(text["sha256"], good)], np.uint64))
    hashes = np.concatenate(images)
    identical = len(hashes) - len(np.unique(hashes))
    return Counts(failed, removed, identical, unprompted, dict(reasons.most_common()))
