"""Repair: damaged parts are computed anew from the source, and taken only if they come out as they were."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from img2prompt_cache.cache.manifest import Column, Manifest, Part
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.parts import read_text
from img2prompt_cache.cache.reader import OK, ROW_COLUMNS, Cache, Damage, extra_dataset
from img2prompt_cache.cache.virtual import build_view, view_is_current
from img2prompt_cache.cache.writer import REDO, writing
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.clock import Clock
from img2prompt_cache.extraction.plan import Job, first_occurrences, slice_of
from img2prompt_cache.extraction.redo import Redo, only, patch_part, read_rows
from img2prompt_cache.extraction.request import ExtractConfig
from img2prompt_cache.extraction.targets import Earlier, compute_targets
from img2prompt_cache.files import hash_file, sync_folder
from img2prompt_cache.progress import Progress, unseen


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


def repair(folder: Path, config: ExtractConfig, progress: Progress = unseen) -> Repaired:
    """Re-hash every part of a cache and compute anew, from the source, those that are damaged.

    The manifest stays as it is: a part is put in place only if its hash is the one recorded.

    Parameters
    ----------
    folder : pathlib.Path
        The cache.
    config : ExtractConfig
        Says which device computes.
    progress : Progress
        Shows how many of the damaged parts are done.

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
    load_manifest(folder)  # `writing` would make the folder
    with writing(folder):
        manifest = load_manifest(folder)
        damaged = {damage.file: damage.reason for damage in Cache(folder).verify()}
        left: dict[str, str] = {}
        if damaged:
            redo = Redo(folder, config.make_models())
            with progress("repair", len(damaged)) as advance:
                _Repair(redo, manifest, damaged, advance, left).run()
        if not view_is_current(folder):
            build_view(folder, manifest)
    return Repaired(
        tuple(file for file in damaged if file not in left),
        tuple(Damage(file, reason) for file, reason in left.items()),
    )


@dataclass(slots=True)
class _Repair:
    """The damaged parts of a cache: rows first, since all else is computed from them."""

    redo: Redo
    manifest: Manifest
    damaged: dict[str, str]
    advance: Callable[[int], None]
    left: dict[str, str]

    def run(self) -> None:
        rows = self.manifest.columns[0]
        known = {
            name
            for number, part in enumerate(rows.parts)
            if part.file not in self.damaged
            for name in read_rows(self.redo.folder, self.manifest, number)["imgId"]
        }
        for number, part in enumerate(rows.parts):
            if part.file in self.damaged:
                with self._attempt([part]):
                    known.update(self._rows(number, part, known))
        for number in range(len(rows.parts)):
            for group in self._groups(number):
                with self._attempt([column.parts[number] for column in group]):
                    self._images(number, group)
        for column in self.manifest.of_kind("targets"):
            for number, part in enumerate(column.parts):
                if part.file in self.damaged:
                    with self._attempt([part]):
                        self._targets(number, column, part)

    @contextmanager
    def _attempt(self, parts: list[Part]) -> Iterator[None]:
        """Take an error for the reason why these parts are left, and go on with the others."""
        try:
            yield
        except Img2PromptError as error:
            self.left.update((part.file, str(error)) for part in parts if part.file not in self.left)
        finally:
            shutil.rmtree(self.redo.folder / REDO, ignore_errors=True)
            self.advance(len(parts))

    def _rows(self, number: int, part: Part, known: set[str]) -> list[str]:
        """Derive the rows of a part from the listing of its source; give their ids."""
        listed = self.redo.source(self.manifest, part.source).list().table
        order = {name: row for row, name in enumerate(listed["imgId"].to_pylist())}
        free = [name for name in order if name not in known]
        low, high = (
            order.get(name, end) for name, end in zip(self._beside(number), (-1, len(order)), strict=True)
        )
        between = [name for name in free if low < order[name] < high]
        damaged, size = self.redo.folder / part.file, part.stop - part.start
        salvaged = _salvage(damaged, ["imgId"], size)
        why = f"the source has {len(free)} rows that are not in other parts, and this one had {size}"
        for ids in _candidates([between, free], salvaged.get("imgId", []), size):
            job = Job(number, part.start, part.stop, part.source, ())
            rows = slice_of(job, listed.take([order[name] for name in ids]), part.start, self.manifest.extra)
            made = self.redo.compute(
                self.manifest, number, [self.manifest.columns[0]], rows, self._place("rows")
            )
            path = self._place("rows") / made["rows"].file
            if self._take(part, path, []):
                return ids
            names = [*ROW_COLUMNS, *map(extra_dataset, self.manifest.extra)]
            was, now = _salvage(damaged, names, size), read_text(path, names, size)
            changed = [name for name in names if was and was[name] != now[name]]
            why = f"the source has changed since{', in ' if changed else ''}{', '.join(changed)}"
        raise Img2PromptError(f"{why}; bring it back from a copy, or make a new cache")

    def _beside(self, number: int) -> tuple[str, str]:
        """Name the last row of the part before and the first of the part behind; empty if there is none."""
        parts = self.manifest.columns[0].parts
        names = ["", ""]
        for side, (other, row) in enumerate(((number - 1, -1), (number + 1, 0))):
            if 0 <= other < len(parts) and parts[other].source == parts[number].source:
                size = parts[other].stop - parts[other].start
                found = _salvage(self.redo.folder / parts[other].file, ["imgId"], size)
                names[side] = found["imgId"][row] if found else ""
        return names[0], names[1]

    def _groups(self, number: int) -> list[list[Column]]:
        """Find the damaged parts of one number that come from images; those of equal history go together."""
        groups: dict[object, list[Column]] = {}
        for column in self.manifest.columns:
            if column.kind in ("rows", "targets") or number >= len(column.parts):
                continue
            part = column.parts[number]
            if part.file in self.damaged:
                try:
                    self._require_rows(number)
                    self.redo.models.backbone(column)
                except Img2PromptError as error:
                    self.left[part.file] = str(error)
                    self.advance(1)
                else:
                    groups.setdefault((part.missing, part.retried), []).append(column)
        return list(groups.values())

    def _images(self, number: int, columns: list[Column]) -> None:
        """Go through the batches these parts were made in: those of the first pass, then those of retries."""
        first = columns[0].parts[number]
        text = read_rows(self.redo.folder, self.manifest, number)
        late = {row for rows in first.retried for row in rows}
        good = {first.start + i for i, status in enumerate(text["status"]) if status == OK}
        turns = [tuple(sorted(good - late - {*first.missing})), *first.retried]
        made = []
        for turn, rows in enumerate(turns):
            wanted = only(self.manifest, number, text, rows)
            made.append(self.redo.compute(self.manifest, number, columns, wanted, self._place(str(turn))))
        gone = sorted({row for parts in made for part in parts.values() for row in part.missing})
        for column in columns:
            part = column.parts[number]
            base, *retried = [
                (self._place(str(turn)) / parts[column.folder].file, [row - part.start for row in rows])
                for turn, (parts, rows) in enumerate(zip(made, turns, strict=True))
            ]
            if self._take(part, base[0], retried):
                continue
            if gone:
                name = text["imgId"][gone[0] - part.start]
                why = f"{len(gone)} of its images have changed or are gone, first {name!r}"
            else:
                why = "this machine computes other values than the one it was made on"
            self.left[part.file] = f"{why}; {_ANEW}"

    def _targets(self, number: int, column: Column, part: Part) -> None:
        prompts: list[str] = []
        for earlier in range(number + 1):
            self._require_rows(earlier)
            prompts += read_rows(self.redo.folder, self.manifest, earlier)["prompt"]
        made = compute_targets(
            number,
            part.start,
            prompts[part.start :],
            first_occurrences(pa.chunked_array([pa.array(prompts, pa.large_string())])),
            column,
            self.redo.models.encoder(column),
            Earlier(self.redo.folder),
            self._place("targets"),
            Clock(),
        )
        if not self._take(part, self._place("targets") / made.file, []):
            raise Img2PromptError(f"this machine computes other values than the one it was made on; {_ANEW}")

    def _require_rows(self, number: int) -> None:
        file = self.manifest.columns[0].parts[number].file
        if file in self.left:
            raise Img2PromptError(f"it is computed from {file}, which is damaged")

    def _take(self, part: Part, made: Path, patches: list[tuple[Path, list[int]]]) -> bool:
        """Put a part in place if it is, byte for byte, the one that the manifest records."""
        if part.retried:
            whole = self._place("whole") / made.name
            patch_part(made, patches, whole)
            made = whole
        if hash_file(made) != part.sha256:
            return False
        target = self.redo.folder / part.file
        if target.is_dir() and not target.is_symlink():
            raise Img2PromptError("a folder lies in its place; move it away and repair again")
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)
        sync_folder(target.parent)
        return True

    def _place(self, name: str) -> Path:
        return self.redo.folder / REDO / name


def _candidates(free: list[list[str]], salvaged: list[str], size: int) -> Iterator[list[str]]:
    """Guess which ids a part had: the first or last of those that are free, or those its file tells."""
    tried: list[list[str]] = []
    ends = [ids for names in free for ids in (names[:size], names[-size:])]
    for ids in (*ends, salvaged):
        if len(ids) == size and ids not in tried and {*ids} <= {*free[-1]}:
            tried.append(ids)
            yield ids


def _salvage(path: Path, names: list[str], size: int) -> Mapping[str, list[str]]:
    """Read what a damaged part of `rows` still tells; nothing if it tells nothing."""
    try:
        return read_text(path, names, size)
    except Img2PromptError:
        return {}


_ANEW = "to have it as it comes out now, delete the file and run extract"
