"""Repair: damaged parts are computed again from the source, and kept only if they have their old bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from img2prompt_cache.cache.damage import Damage
from img2prompt_cache.cache.manifest import Column, Manifest, Part, revision_of
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.opening import folder_of
from img2prompt_cache.cache.part_text import read_text
from img2prompt_cache.cache.reader import OK, REMOVED, Cache
from img2prompt_cache.cache.rewriting import Patch, patch_part
from img2prompt_cache.cache.virtual import build_view, view_is_current
from img2prompt_cache.cache.writer import RECOMPUTED, writing
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.lost_rows import LostRows, find_neighbours, salvage
from img2prompt_cache.extraction.recompute import Recompute, keep_only, read_rows, texts_of
from img2prompt_cache.extraction.targets import CachedTargets, TargetWorker, first_occurrences
from img2prompt_cache.extraction.work import Job, OpenSources, Slice, slice_of
from img2prompt_cache.files import hash_file, sync_folder
from img2prompt_cache.models.loader import Models
from img2prompt_cache.progress import Callback, ignore, task
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did.

    Attributes
    ----------
    parts : tuple of str
        Files that are whole again, byte for byte what the manifest recorded.
    left : tuple of Damage
        Files that could not be computed to the recorded bytes; they were left as they are.
    """

    parts: tuple[str, ...]
    left: tuple[Damage, ...]


def repair(cache: str | Path | Cache, *, device: str = "auto", tell: Callback = ignore) -> Repaired:
    """Re-hash every part of a cache and compute those that are damaged again from the source.

    The manifest stays as it is: a part is put in place only if its hash is the one recorded.

    Parameters
    ----------
    cache : str, pathlib.Path or Cache
        The cache, or its folder.
    device : str
        Which device computes: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    tell : callable
        Takes the steps of the task ``"repair"``: damaged parts that were tried.

    Returns
    -------
    Repaired

    Raises
    ------
    UsageError
        If there is no cache.
    Img2PromptError
        If it is being written, or its manifest is damaged.
    """
    folder = folder_of(cache)
    load_manifest(folder)  # `writing` would make the folder
    with writing(folder):
        manifest = load_manifest(folder)
        damaged = [damage.file for damage in Cache(folder).verify()]
        left: dict[str, str] = {}
        if damaged:
            recompute = Recompute(folder, Models(device=device), OpenSources(manifest.sources))
            with task(tell, "repair", len(damaged)) as advance:
                left = _Repair(recompute, manifest, {*damaged}, advance).run()
        if not view_is_current(folder):
            build_view(folder, manifest)
    return Repaired(
        tuple(file for file in damaged if file not in left),
        tuple(Damage(file, reason) for file, reason in left.items()),
    )


@dataclass(slots=True)
class _Repair:
    """The damaged parts of a cache: rows first, since all else is computed from them."""

    recompute: Recompute
    manifest: Manifest
    damaged: set[str]
    advance: Callable[[int], None]
    left: dict[str, str] = field(default_factory=dict)

    def run(self) -> dict[str, str]:
        """Repair what can be repaired; give the files that are left, and why."""
        rows = self.manifest.columns[0]
        self._restore_rows()
        for number in range(len(rows.parts)):
            for group in self._groups(number):
                with self._attempt([column.parts[number] for column in group]):
                    self._images(number, group)
        targets = [column for column in self.manifest.columns if column.from_prompts]
        if any(part.file in self.damaged for column in targets for part in column.parts):
            # Targets depend on the prompts of all parts before, so they end where rows are lost.
            readable = next(
                (n for n, part in enumerate(rows.parts) if part.file in self.left), len(rows.parts)
            )
            worker = TargetWorker(CachedTargets(self.recompute.folder), self._same_prompts(readable))
            for column in targets:
                for number, part in enumerate(column.parts):
                    if part.file in self.damaged:
                        with self._attempt([part]):
                            self._require_rows(min(number, readable))
                            self._targets(number, column, worker)
        return self.left

    @contextmanager
    def _attempt(self, parts: list[Part]) -> Iterator[None]:
        """Take an error for the reason why these parts are left, and go on with the others."""
        try:
            yield
        except Img2PromptError as error:
            self.left.update((part.file, str(error)) for part in parts if part.file not in self.left)
        finally:
            shutil.rmtree(self.recompute.folder / RECOMPUTED, ignore_errors=True)
            self.advance(len(parts))

    def _restore_rows(self) -> None:
        """Derive the damaged parts of `rows` from the listings of their sources."""
        parts = self.manifest.columns[0].parts
        whole = (number for number, part in enumerate(parts) if part.file not in self.damaged)
        known = {name for number in whole for name in self._text(number)["imgId"]}
        lost: dict[int, LostRows] = {}
        for number, part in enumerate(parts):
            if part.file in self.damaged:
                with self._attempt([part]):
                    if part.source not in lost:
                        lost[part.source] = LostRows(self.recompute.sources[part.source].list().table, known)
                    known.update(self._rows(number, part, lost[part.source]))

    def _rows(self, number: int, part: Part, lost: LostRows) -> list[str]:
        """Restore one part of `rows`; give its ids."""
        damaged, size = self.recompute.folder / part.file, part.stop - part.start
        salvaged = salvage(damaged, ["imgId"], size).get("imgId", [])
        neighbours = find_neighbours(self.recompute.folder, self.manifest.columns[0].parts, number)
        why = ""
        for ids, listed in lost.candidates(size, *neighbours, salvaged):
            job = Job(number, part.start, part.stop, part.source, ())
            rows = slice_of(job, listed, part.start, self.manifest.extra)
            place = self._place("rows")
            made = self.recompute.compute(self.manifest, rows, [self.manifest.columns[0]], place)
            path = place / made["rows"].file
            if self._put(self.manifest.columns[0], part, path, []):
                return ids
            names = list(self.manifest.row_datasets.values())
            was, now = salvage(damaged, names, size), read_text(path, names, size)
            changed = [name for name in names if was and was[name] != now[name]]
            why = f"the source has changed since{', in ' if changed else ''}{', '.join(changed)}"
        why = (
            why
            or f"the source has {counted(len(lost), 'row that is', 'rows that are')} not in other parts, and "
            f"this one had {size}"
        )
        raise Img2PromptError(f"{why}; bring it back from a copy, or make a new cache")

    def _groups(self, number: int) -> list[list[Column]]:
        """Find the damaged parts of one number that come from images; those of equal history go together."""
        groups: dict[object, list[Column]] = {}
        for column in self.manifest.columns:
            if column.kind == "rows" or column.from_prompts or number >= len(column.parts):
                continue
            part = column.parts[number]
            if part.file in self.damaged:
                try:
                    self._require_rows(number)
                    self.recompute.models.backbone(column)
                except Img2PromptError as error:
                    self.left[part.file] = str(error)
                    self.advance(1)
                else:
                    groups.setdefault((part.missing, part.retried, part.replaced), []).append(column)
        return list(groups.values())

    def _images(self, number: int, columns: list[Column]) -> None:
        """Repeat the computations these parts were made by: that of the first pass, then those of retries."""
        first = columns[0].parts[number]
        text = self._text(number)
        late = {row for rows in first.retried for row in rows} - {*first.replaced}
        good = {first.start + i for i, status in enumerate(text["status"]) if status == OK}
        turns = [tuple(sorted(good - late - {*first.missing})), *first.retried]
        made = []
        for turn, rows in enumerate(turns):
            wanted = keep_only(self.manifest, number, text, rows)
            made.append(self.recompute.compute(self.manifest, wanted, columns, self._place(str(turn))))
        gone = sorted({row for parts in made for part in parts.values() for row in part.missing})
        for column in columns:
            part = column.parts[number]
            base, *retried = [
                (self._place(str(turn)) / parts[column.folder].file, [row - part.start for row in rows])
                for turn, (parts, rows) in enumerate(zip(made, turns, strict=True))
            ]
            if self._put(column, part, base[0], retried):
                continue
            if gone:
                name = text["imgId"][gone[0] - part.start]
                why = f"{len(gone)} of its images have changed or are gone, first {name!r}"
            elif first.replaced or REMOVED in text["status"]:
                why = "images that were encoded together with others have been replaced or removed since"
            else:
                why = "this machine computes other values than the one it was made on"
            self.left[part.file] = f"{why}; {_ANEW}"

    def _same_prompts(self, readable: int) -> NDArray[np.int64]:
        """For every row of the first `readable` parts, the first row with the same prompt."""
        texts = [pa.array(self._text(number)["prompt"], pa.large_string()) for number in range(readable)]
        return first_occurrences(pa.chunked_array(texts, pa.large_string()))

    def _targets(self, number: int, column: Column, worker: TargetWorker) -> None:
        part = column.parts[number]
        rows = Slice(number, part.start, self._text(number))
        encoder = self.recompute.models.encoder(column)
        place = self._place("targets")
        for one in (encoder, encoder.earlier()):
            made = worker.compute(rows, column, one, place, part.schema, part.joins)
            if self._put(column, part, place / made.file, []):
                return
        raise Img2PromptError(f"this machine computes other values than the one it was made on; {_ANEW}")

    def _require_rows(self, number: int) -> None:
        file = self.manifest.columns[0].parts[number].file
        if file in self.left:
            raise Img2PromptError(f"it is computed from {file}, which is damaged")

    def _put(self, column: Column, part: Part, made: Path, patches: Sequence[Patch]) -> bool:
        """Put a part in place if it is, byte for byte, the one that the manifest records."""
        if patches or hash_file(made) != part.sha256:
            if not revision_of(part.file):
                return False
            whole = self._place("whole") / made.name
            patch_part(
                column,
                texts_of(self.manifest, column),
                made,
                patches,
                whole,
                rows=(part.start, part.stop),
                schema=part.schema,
            )
            made = whole
        if hash_file(made) != part.sha256:
            return False
        target = self.recompute.folder / part.file
        if target.is_dir() and not target.is_symlink():
            raise Img2PromptError("a folder lies in its place; move it away and repair again")
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)
        sync_folder(target.parent)
        return True

    def _text(self, number: int) -> dict[str, list[str]]:
        return read_rows(self.recompute.folder, self.manifest, number)

    def _place(self, name: str) -> Path:
        return self.recompute.folder / RECOMPUTED / name


_ANEW = "to keep the values as they come out now, delete the file and run `extract()`"
