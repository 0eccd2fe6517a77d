"""What a source holds, and what a pass over it would do, without loading a model."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.cache.opening import folder_of
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import ImageError
from img2prompt_cache.extraction.listing import list_pairs
from img2prompt_cache.extraction.named import open_sources
from img2prompt_cache.extraction.plan import bytes_needed, plan_of, prepare
from img2prompt_cache.extraction.report import Plan
from img2prompt_cache.extraction.request import ExtractConfig, check_config, require_within
from img2prompt_cache.extraction.threads import map_in_order
from img2prompt_cache.images.decode import check_header
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.progress import Callback, Event, listening, task
from img2prompt_cache.sources import SourceOptions, table_of_prompts
from img2prompt_cache.sources.several import MORE_PROMPTS, unpack
from img2prompt_cache.tables import counted, printable, shorten

if TYPE_CHECKING:
    from img2prompt_cache.sources.base import Source

FIRST = 10
"""Number of pairs that are shown."""
_THREADS = 4


@dataclass(frozen=True, slots=True, repr=False)
class Look:
    """What a source holds, and what a pass over it would do; print it to read it.

    Attributes
    ----------
    source : str
        Its path.
    format, why : str
        The format, and why it is read as that.
    pairs, without_prompt, without_image : int
        Images with a prompt, images without one, and prompts without an image.
    same_prompt : int
        Pairs that have the prompt of an earlier pair.
    same_image : int
        Images that are byte for byte an earlier one.
    unreadable : dict of str to int
        Why images cannot be used, most frequent first. Every file is read and its header checked, but no
        pixels are decoded: damage inside them is found by the pass.
    readers : dict of str to int
        What the prompts were found by (``"a1111"``, ``"text"``, ``"table"``, …), most frequent first.
    first : tuple of dict of str to str
        The first ten pairs as they would be stored: `imgId`, `uri`, `prompt`, `found_in` and the kept columns
        of the user's own table.
    notes : tuple of str
        What was left out or assumed, and what differs from the cached rows.
    plan : Plan
        What the pass would do: `rows` that the cache would have, `fresh` of them new, `columns` and `bytes`
        to be written, and `changes` of the source since its rows were cached.
    unmeasured : tuple of str
        Columns whose size is not known before their model is loaded; `bytes` does not count them.
    """

    source: str
    format: str
    why: str
    pairs: int
    without_prompt: int
    without_image: int
    same_prompt: int
    same_image: int
    unreadable: dict[str, int]
    readers: dict[str, int]
    first: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    plan: Plan
    unmeasured: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Look({self.source!r}: {self.format}, {self.pairs} pairs, {self.plan.fresh} new)"

    def __str__(self) -> str:
        lines = [
            f"{self.source}: read as {self.format} ({self.why})",
            f"{counted(self.pairs, 'pair', 'pairs')}, "
            f"{counted(self.without_prompt, 'image', 'images')} without prompt, "
            f"{counted(self.without_image, 'prompt', 'prompts')} without image; "
            f"{counted(self.same_prompt, 'pair repeats', 'pairs repeat')} a prompt, "
            f"{counted(self.same_image, 'image repeats', 'images repeat')} an earlier one",
            f"unreadable: {counted(sum(self.unreadable.values()), 'image', 'images')}, by their headers; "
            "pixels are not decoded",
            *(f"  {count} × {reason}" for reason, count in self.unreadable.items()),
            f"prompts found by: {', '.join(f'{name} {n}' for name, n in self.readers.items()) or 'none'}",
            *(f"  {one['imgId']} [{one['found_in']}] {one['prompt']}{_more(one)}" for one in self.first),
            *(f"note: {line}" for line in self.notes),
            *self._cost(),
        ]
        return "\n".join(shorten(printable(line)) for line in lines)

    def _cost(self) -> Iterator[str]:
        plan = self.plan
        changed = plan.changes.counts()
        if changed:
            yield f"a pass would change cached rows: {changed}"
        if not plan.work:
            if not changed:
                yield f"nothing to do: {counted(plan.rows, 'row is', 'rows are')} cached"
            return
        more = " and columns of models that are yet to be found and loaded (*)" if self.unmeasured else ""
        yield (
            f"a pass would compute {counted(plan.work, 'row', 'rows')} ({plan.fresh} new, "
            f"{plan.rows - plan.fresh} cached already), {plan.bytes / 1e6:,.1f} MB{more}:"
        )
        for column in plan.columns:
            yield f"  {column}{' *' if column in self.unmeasured else ''}"


def look(
    source: str | Path | Source | None = None,
    cache: str | Path | Cache = "cache/default",
    *,
    prompts: str | Path | None = None,
    preset: str = "auto",
    backbones: str | Sequence[str] = (),
    encoder: str | None = None,
    format: str = "auto",
    id_column: str | None = None,
    prompt_column: str | None = None,
    clean: str | None = None,
    precision: str = "auto",
    runtime: str = "auto",
    device: str = "auto",
    batch_size: int | None = None,
    part_rows: int | None = None,
    trunk: int | None = None,
    trunk_dtype: str = "float16",
    levels: str | None = None,
    names: bool = False,
    second_view: str = "none",
    views: int | None = None,
    flip: bool = False,
    update: bool = False,
    check: bool = False,
    progress: bool | Callback = False,
) -> Look:
    """Look at a source as `extract` would read it, and at what that would do. No model is loaded.

    Nothing is written. Every image file is read once, to check its header and to find identical files.

    Parameters
    ----------
    source, cache, prompts, preset, backbones, encoder, format, id_column, prompt_column
        As for `extract`.
    clean, precision, runtime, device, batch_size, part_rows
        As for `extract`. They are compared with how a cache that is there was made.
    trunk, trunk_dtype, levels, names, second_view, views, flip, update, check
        As for `extract`.
    progress : bool or callable
        As for `extract`; the steps are of the task ``"look"``.

    Returns
    -------
    Look

    Raises
    ------
    UsageError, Img2PromptError
        As `extract` before it computes anything: also if no image has a prompt (unless ``format="folder"``).
        Whether a model that is not packaged exists is found only when it is loaded.

    Examples
    --------
    >>> from img2prompt_cache import look
    >>> found = look("images", preset="packaged")
    >>> found.format, found.pairs, found.readers
    ('table', 6, {'table': 6})
    """
    folder = folder_of(cache)
    for name, value in (("trunk", trunk), ("views", views)):
        require_within(name, value)
    options = SourceOptions(format, table_of_prompts(prompts), id_column, prompt_column)
    taps = choose_taps(
        trunk=trunk or 0,
        trunk_dtype=trunk_dtype,
        levels=levels or "top",
        names=names,
        second_view=second_view,
        views=views or 0,
        flip=flip,
    )
    config = ExtractConfig(
        preset=preset,
        backbones=(backbones,) if isinstance(backbones, str) else tuple(backbones),
        encoder=encoder,
        clean=clean,
        precision=precision,
        runtime=runtime,
        device=device,
        batch_size=batch_size,
        part_rows=part_rows,
        taps=taps,
        plain=levels == "top",
        update=update,
        check=check,
    )
    check_config(config, folder)
    with listening(progress) as tell:
        (opened,) = open_sources(source, options, folder, most=1)
        return look_at(opened, folder, config, tell)


def look_at(source: Source, folder: Path, config: ExtractConfig, tell: Callback) -> Look:
    """Look at a source that is open; see `look`."""
    source, listing = list_pairs(source)
    notes = list(listing.summary.notes)

    def listen(event: Event) -> None:
        if event.kind == "note":
            notes.append(event.message)
        else:
            tell(event)

    work, _ = prepare(folder, source, listing, config, listen, load=False)
    table, format = listing.table, source.settings.get("format", "")
    unreadable, same_image = _check_images(source, table["uri"], tell)
    unmeasured = [c for c in work.manifest.columns if c.shape == (0,)]
    known = [replace(job, columns=tuple(c for c in job.columns if c not in unmeasured)) for job in work.jobs]
    paired = table.filter(pc.is_valid(table["prompt"]))
    if "found_in" not in table.column_names:
        paired = paired.append_column("found_in", [[format] * len(paired)])
    found = pc.value_counts(paired["found_in"]).to_pylist() if len(paired) else []
    readers = Counter({entry["values"]: entry["counts"] for entry in found})
    kept = [name for name in paired.column_names if name in ("imgId", "uri", "prompt", "found_in")]
    extra = (*work.manifest.extra, *work.changes.added)
    kept += [name for name in extra if name in paired.column_names and name not in kept]
    return Look(
        source=str(source.root),
        format=format,
        why=getattr(source, "why", "") or "asked for",
        pairs=listing.summary.pairs,
        without_prompt=listing.summary.without_prompt,
        without_image=listing.summary.without_image,
        same_prompt=len(paired) - pc.count_distinct(paired["prompt"]).as_py(),
        same_image=same_image,
        unreadable=dict(unreadable.most_common()),
        readers=dict(readers.most_common()),
        first=tuple(paired.select(kept).slice(0, FIRST).to_pylist()),
        notes=tuple(notes),
        plan=replace(plan_of(work), bytes=bytes_needed(known)),
        unmeasured=tuple(column.folder for column in unmeasured),
    )


def _more(pair: dict[str, str]) -> str:
    """Say how many further prompts a pair has, if any."""
    further = len(unpack(pair.get(MORE_PROMPTS) or ""))
    return f" (and {further} more)" if further else ""


def _check_images(source: Source, uris: pa.ChunkedArray, tell: Callback) -> tuple[Counter[str], int]:
    """Read every image once; count the reasons for which some cannot be used, and identical files."""

    def check(uri: str) -> tuple[str, bytes]:
        try:
            data = source.read(uri)
            check_header(data)
        except ImageError as error:
            return str(error), b""
        return "", hashlib.sha256(data).digest()[:16]

    reasons: Counter[str] = Counter()
    seen: set[bytes] = set()
    good = 0
    with task(tell, "look", len(uris)) as advance:
        for reason, digest in map_in_order(check, (uri.as_py() for uri in uris), _THREADS):
            advance(1)
            if reason:
                reasons[reason] += 1
            else:
                good += 1
                seen.add(digest)
    return reasons, good - len(seen)
