"""Cached rows computed once more: which of them are read, and parts in which some rows are replaced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from img2prompt_cache.cache.manifest import Column, Manifest, Part
from img2prompt_cache.cache.parts import PartFile, read_text
from img2prompt_cache.cache.reader import FAILED, OK
from img2prompt_cache.extraction.compute import Worker
from img2prompt_cache.extraction.work import OpenSources, Slice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.loader import Models

_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Recompute:
    """Computes rows of parts that are cached already once more.

    Attributes
    ----------
    folder : pathlib.Path
        The cache's folder.
    models : Models
    sources : OpenSources
        Those of the manifest.
    """

    folder: Path
    models: Models
    sources: OpenSources

    def compute(self, manifest: Manifest, rows: Slice, columns: list[Column], into: Path) -> dict[str, Part]:
        """Compute columns of the part that `rows` belong to, below `into`.

        Returns
        -------
        dict of str to Part
            What was written, by the column's folder.
        """
        source = self.sources[manifest.columns[0].parts[rows.number].source]
        done = Worker(self.models.backbone, manifest.batch_size).compute(rows, columns, source, into)
        return {column.folder: part for column, part in done}


def read_rows(folder: Path, manifest: Manifest, number: int) -> dict[str, list[str]]:
    """Read everything a part of `rows` says, by the names of `ROW_COLUMNS` and of the user's own columns."""
    part = manifest.columns[0].parts[number]
    found = read_text(folder / part.file, list(manifest.row_datasets.values()), part.stop - part.start)
    return {name: found[dataset] for name, dataset in manifest.row_datasets.items()}


def keep_only(
    manifest: Manifest, number: int, text: dict[str, list[str]], rows: Iterable[int], *, changed: bool = False
) -> Slice:
    """Take a part's rows, of which only `rows` are read and encoded; the others count as failed.

    All rows of the part are in the slice, so batches begin and end where they always do.

    Parameters
    ----------
    manifest : Manifest
    number : int
        The part.
    text : dict of str to list of str
        From `read_rows`.
    rows : iterable of int
        Row numbers in the cache.
    changed : bool
        Take whatever bytes these images have now, not only those that were cached.
    """
    start = manifest.columns[0].parts[number].start
    wanted = {row - start for row in rows}
    status = [OK if i in wanted else FAILED for i in range(len(text["imgId"]))]
    sha256 = ["" if changed and i in wanted else known for i, known in enumerate(text["sha256"])]
    return Slice(number, start, {**text, "status": status, "sha256": sha256})


def patch_part(old: Path, patches: Sequence[tuple[Path, Sequence[int]]], new: Path) -> tuple[int, str]:
    """Write a part that is `old` but for some rows, bit for bit.

    Parameters
    ----------
    old : pathlib.Path
        A whole part, or one just computed.
    patches : sequence of (pathlib.Path, sequence of int)
        Parts of the same rows, and which rows within the part are taken from each.
    new : pathlib.Path
        The file to write. Its bytes depend on the values alone, not on how many patches they came in.

    Returns
    -------
    size : int
    sha256 : str
        As `PartFile.commit` gives them.
    """
    with h5py.File(old, "r") as file, PartFile(new) as out:
        for name in sorted(file):
            dataset = file[name]
            if h5py.check_string_dtype(dataset.dtype):
                out.write_text(name, _patched(dataset, name, patches).tolist())
                continue
            out.create(name, dataset.shape, dataset.dtype.name)
            for start in range(0, len(dataset), _BLOCK):
                out.write(name, start, _patched(dataset, name, patches, start, start + _BLOCK))
        return out.commit()


def _patched(
    dataset: h5py.Dataset,
    name: str,
    patches: Sequence[tuple[Path, Sequence[int]]],
    start: int = 0,
    stop: int | None = None,
) -> NDArray[Any]:
    is_text = h5py.check_string_dtype(dataset.dtype)
    values: NDArray[Any] = np.asarray((dataset.asstr() if is_text else dataset)[start:stop])
    for path, rows in patches:
        inside = [row for row in rows if start <= row < start + len(values)]
        if inside:
            with h5py.File(path, "r") as file:
                patch = file[name].asstr() if is_text else file[name]
                for row in inside:
                    values[row - start] = patch[row]
    return values
