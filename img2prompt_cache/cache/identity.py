"""What a part says it is: its column, rows and cache, in front of its HDF5 data.

Parts of schema 2 begin with a user block, which HDF5 leaves to its users: 512 bytes with one line of JSON,
``{"img2prompt-cache": 2, "cache": …, "column": "features/…", "rows": [0, 1024], "fingerprint": …}``. So two
parts that were swapped are told apart, even where the manifest was edited with them. Parts of schema 1 have
none.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from img2prompt_cache.cache.manifest import PART_SCHEMA, Column, Part
from img2prompt_cache.errors import Img2PromptError

BYTES = 512
"""Length of the user block."""
_HDF5 = b"\x89HDF\r\n\x1a\n"
_KEY = "img2prompt-cache"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a part must be.

    Attributes
    ----------
    cache : str
        Identifier of the cache.
    column : str
        Folder of the column: ``features/timm-resnet50.a1_in1k``.
    start, stop : int
        Its rows.
    fingerprint : str
        SHA-256 of what its values depend on, 64 hex digits.
    schema : int
        1 if it need not say so.
    """

    cache: str
    column: str
    start: int
    stop: int
    fingerprint: str
    schema: int = PART_SCHEMA

    def block(self) -> bytes:
        """Give the user block of a part: `BYTES` bytes; none for a part of schema 1."""
        if self.schema < PART_SCHEMA:
            return b""
        said = {
            _KEY: self.schema,
            "cache": self.cache,
            "column": self.column,
            "rows": [self.start, self.stop],
            "fingerprint": self.fingerprint,
        }
        return json.dumps(said).encode("ascii").ljust(BYTES - 1) + b"\n"

    def differs(self, begin: bytes) -> str:
        """Say what the first `BYTES` bytes of a part tell that is not so; empty text if nothing is."""
        if begin.startswith(_HDF5):
            return "it does not say which part it is" if self.schema >= PART_SCHEMA else ""
        try:
            said = json.loads(begin)
            start, stop = said["rows"]
            schema, column, cache, fingerprint = (
                said[key] for key in (_KEY, "column", "cache", "fingerprint")
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            return "it does not begin as a part does"
        if schema != PART_SCHEMA:
            return f"it is a part of schema {schema!r}"
        if (column, start, stop) != (self.column, self.start, self.stop):
            return f"it is rows {start!r} to {stop!r} of {column!r}, moved or renamed"
        if fingerprint != self.fingerprint:
            return "its values were made with other weights or settings (its fingerprint differs)"
        return "" if cache == self.cache else "it belongs to another cache"

    def require(self, path: Path) -> None:
        """Refuse a file that is another part.

        Raises
        ------
        Img2PromptError
            Saying which.
        OSError
            If it cannot be read.
        """
        with path.open("rb") as file:
            self.require_block(path, file.read(BYTES))

    def require_block(self, path: Path, begin: bytes) -> None:
        """Refuse a file that is another part, where its first `BYTES` bytes were read already."""
        why = self.differs(begin)
        if why:
            raise Img2PromptError(
                f"{path} is not the part that the manifest records: {why}. "
                "`cache.verify()` names what is damaged."
            )


def identity_of(column: Column, start: int, stop: int, schema: int = PART_SCHEMA) -> Identity:
    """Say what a part with these rows of a column must be."""
    fingerprint = hashlib.sha256(json.dumps(column.fingerprint, sort_keys=True).encode()).hexdigest()
    return Identity(column.cache, column.folder, start, stop, fingerprint, schema)


def recorded_identity(column: Column, part: Part) -> Identity:
    """Say what a part of a column must be, as the manifest records it."""
    return identity_of(column, part.start, part.stop, part.schema)
