"""The verb `dedup`: near-identical prompts and images marked in a table; images moved apart, or linked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.cache.opening import open_cache
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dedup import (
    NAME,
    Duplicates,
    check_free,
    find_duplicates,
    keep_first,
    save_duplicates,
)
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.relocation import check_folder, plan_relocations
from img2prompt_cache.extraction.relocation import link as make_links
from img2prompt_cache.extraction.relocation import move as move_files
from img2prompt_cache.progress import Callback, listening, task
from img2prompt_cache.tables import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True, eq=False)
class Deduplicated:
    """What `dedup` found and did.

    Attributes
    ----------
    found : Duplicates
    features : str
        The column that compared the images.
    out : pathlib.Path or None
        The table that was written.
    files : Records
        `imgId`, `from` and `to` of every image that was moved or linked, or would be.
    done : bool
        Whether they were: images are moved only if `yes` is set.
    left : dict of str to str
        imgId of each image that stayed where it is though it should have been moved or linked, and why.
    """

    found: Duplicates
    features: str
    out: Path | None = None
    files: Records = field(default_factory=Records)
    done: bool = False
    left: dict[str, str] = field(default_factory=dict)


def dedup(
    cache: str | Path | Cache = DEFAULT_CACHE,
    threshold: float = 0.9,
    *,
    features: str | None = None,
    out: str | Path | None = None,
    move: str | Path | None = None,
    link: str | Path | None = None,
    yes: bool = False,
    overwrite: bool = False,
    progress: bool | Callback = False,
) -> Deduplicated:
    """Find near-identical prompts and images of a cache: mark them in a table, move them, link to the rest.

    Of rows that are alike the first good one is kept. The table goes by prompts and images; what is moved or
    linked, by images alone: pictures of one prompt that look different all stay.

    Parameters
    ----------
    cache : str, pathlib.Path or Cache
    threshold : float
        Smallest cosine of near-identical prompts, or images.
    features : str, optional
        The column by which images are compared; the first if None.
    out : str or pathlib.Path, optional
        The table, a CSV file; ``dedup.csv`` in the cache if None, and none where images are moved or linked.
    move : str or pathlib.Path, optional
        A folder to move images to that are near-identical to one that stays, with the texts beside them. They
        keep their paths in it. Nothing is written over, and files that changed since they were cached stay.
    link : str or pathlib.Path, optional
        A folder for links to all other images, and to the texts beside them: a set without near-identical
        images.
    yes : bool
        Move the images; otherwise it is only found out which ones would be moved.
    overwrite : bool
        Replace the table.
    progress : bool or callable
        True shows notes and progress bars; a callable is called with every `Event`.

    Returns
    -------
    Deduplicated

    Raises
    ------
    UsageError
        If the threshold is out of range, no row is usable, or a file is in the way; nothing was moved then.
    Img2PromptError
        If a part is damaged, or a file cannot be moved: those before it were.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> ipc.dedup(move="duplicates").files.to_pandas()  # doctest: +SKIP
    >>> ipc.dedup(move="duplicates", yes=True).left  # doctest: +SKIP
    """
    if move is not None and link is not None:
        raise UsageError("`move` and `link`: give one of them", parameter="move")
    opened = open_cache(cache)
    relocate, parameter = (link, "link") if move is None else (move, "move")
    if relocate is not None:
        check_folder(Path(relocate), parameter)
    table = opened.folder / NAME if out is None and relocate is None else out
    if table is not None:
        check_free(Path(table), overwrite=overwrite)
    column = choose_features(opened, (features,) if features else ())[0]
    target = choose_target(opened, None) if opened.manifest.of_kind("targets") else None
    found = find_duplicates(opened, threshold, column, target)
    if table is not None:
        save_duplicates(Path(table), found, overwrite=overwrite)
    if relocate is None:
        return Deduplicated(found, column.spec, None if table is None else Path(table))
    rows = _rows(opened, found, kept=move is None)
    relocations, left = plan_relocations(opened, rows, Path(relocate), parameter)
    done = yes or move is None
    if done:
        with listening(progress) as tell, task(tell, "files", len(relocations)) as advance:
            act: Callable[[Sequence[tuple[Path, Path]]], None] = make_links if move is None else move_files
            for count, each in enumerate(relocations):
                try:
                    act(each.pairs)
                except Img2PromptError as error:
                    raise Img2PromptError(f"{error}. {count} of {len(relocations)} were done") from None
                advance(1)
    return Deduplicated(
        found,
        column.spec,
        None if table is None else Path(table),
        Records(
            {"imgId": found.ids[each.row], "from": str(each.pairs[0][0]), "to": str(each.pairs[0][1])}
            for each in relocations
        ),
        done,
        {found.ids[row]: why for row, why in left.items()},
    )


def _rows(cache: Cache, found: Duplicates, *, kept: bool) -> list[int]:
    """List the usable rows whose image is kept, by images alone, or the others."""
    good = np.flatnonzero(found.image_group >= 0)
    prompts = cache.text("prompt")["prompt"]
    with_prompt = np.array([bool(prompts[row].strip()) for row in good.tolist()], bool)
    groups = found.image_group[good]
    keep = keep_first(np.full(len(good), -1), groups, with_prompt)
    rows: list[int] = good[keep if kept else ~keep].tolist()
    return rows
