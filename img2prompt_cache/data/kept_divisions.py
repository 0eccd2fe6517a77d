"""How the rows of a cache are divided, kept with it: groups and purged rows that take long to find."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.manifest import column_folder
from img2prompt_cache.files import write_atomically
from img2prompt_cache.numerics import clusters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.dataset import Dataset
    from img2prompt_cache.data.grouping import Grouping

FOLDER = "splits"
FEWEST = 20_000
"""Up to so many rows nothing is kept: finding it takes no longer than a few seconds."""
MOST = 64
"""Files kept; the oldest is removed when there is one more."""
_VERSION = 1
_NAME = re.compile(r"[0-9a-f]{64}")
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class KeptDivisions:
    """Files in the folder `splits` of a cache; each is named by a digest of what it was computed from.

    A file is the SHA-256 of its name and its bytes, and the bytes of one array, whose size is known before
    it is read. What is in one that is anything else is computed again, and the file replaced. Where nothing
    can be written, nothing is kept.

    Attributes
    ----------
    folder : pathlib.Path or None
        None where nothing is kept.
    rows : str
        Digest of the rows, their prompts, images and embeddings, and how near-identical prompts are told.
    """

    folder: Path | None
    rows: str

    @classmethod
    def of(cls, cache: Cache, data: Dataset, grouping: Grouping) -> KeptDivisions:
        """Find what is kept for the rows of a dataset, grouped by a grouping."""
        if len(data.rows) <= FEWEST:
            return cls(None, "")
        more = cache.manifest.column("more_targets", grouping.column.spec)
        columns = (cache.manifest.columns[0], grouping.column, *([more] if more else []))
        told = [
            _VERSION,
            [clusters.PER_CLUSTER, clusters.MOST, clusters.SAMPLE, clusters.ITERATIONS],
            grouping.threshold,
            [[column_folder(each.kind, each.spec), [part.sha256 for part in each.parts]] for each in columns],
        ]
        digest = hashlib.sha256(json.dumps(told).encode())
        digest.update(np.ascontiguousarray(data.rows, np.int64).data)
        return cls(cache.folder / FOLDER, digest.hexdigest())

    def select(self, rows: NDArray[np.int64]) -> KeptDivisions:
        """Give what is kept for some of the rows."""
        digest = hashlib.sha256(self.rows.encode())
        digest.update(np.ascontiguousarray(rows, np.int64).data)
        return replace(self, rows=digest.hexdigest())

    def labels(
        self, what: Sequence[str | bytes], n: int, compute: Callable[[], NDArray[np.int64]]
    ) -> NDArray[np.int64]:
        """Give numbers 0…n−1 that were kept, or compute them and keep them.

        Parameters
        ----------
        what : sequence of str or bytes
            All that they depend on beside the rows.
        n : int
            How many there are.
        compute : callable

        Returns
        -------
        numpy.ndarray, int64, shape (n,)
        """
        found = self._recall(("labels", *what), 4 * n, lambda: compute().astype("<i4").tobytes())
        label = np.frombuffer(found, "<i4").astype(np.int64)
        return label if not n or 0 <= label.min() <= label.max() < n else compute()

    def masks(
        self, what: Sequence[str | bytes], shape: tuple[int, int], compute: Callable[[], NDArray[np.bool_]]
    ) -> NDArray[np.bool_]:
        """Give masks, shape (k, n), like `labels`."""
        width = -(-shape[1] // 8)
        found = self._recall(
            ("masks", *what), shape[0] * width, lambda: np.packbits(compute(), axis=1).tobytes()
        )
        bits = np.frombuffer(found, np.uint8).reshape(shape[0], width)
        return np.unpackbits(bits, axis=1, count=shape[1]).astype(bool)

    def _recall(self, what: Sequence[str | bytes], size: int, compute: Callable[[], bytes]) -> bytes:
        if self.folder is None:
            return compute()
        parts = [each.encode() if isinstance(each, str) else each for each in (self.rows, *what)]
        hashes = b"".join(hashlib.sha256(each).digest() for each in parts)
        file = self.folder / hashlib.sha256(hashes).hexdigest()
        found = _read(file, size)
        if found is None:
            found = compute()
            _write(file, found)
        return found


NOTHING_KEPT = KeptDivisions(None, "")


def _read(file: Path, size: int) -> bytes | None:
    """Read what is kept; None if it is not there, or not whole."""
    try:
        if not file.is_file() or file.stat().st_size != _DIGEST + size:
            return None
        with file.open("rb") as opened:
            seal, data = opened.read(_DIGEST), opened.read(size + 1)
    except OSError:
        return None
    return data if len(data) == size and seal == _seal(file, data) else None


def _write(file: Path, data: bytes) -> None:
    """Keep bytes; where that cannot be done, they are computed again next time."""
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, _seal(file, data) + data)
        kept = [each for each in file.parent.iterdir() if _NAME.fullmatch(each.name) and each.is_file()]
        for old in sorted(kept, key=lambda each: each.stat().st_mtime_ns)[:-MOST]:
            old.unlink(missing_ok=True)


def _seal(file: Path, data: bytes) -> bytes:
    return hashlib.sha256(file.name.encode() + data).digest()
