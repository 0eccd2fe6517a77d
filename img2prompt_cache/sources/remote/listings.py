"""Listings of remote files, kept on this disk, so that no file is copied again only to be listed.

What a file lists depends on its contents, its name, the options and this package's code; a listing is kept
under a digest of all of these. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from img2prompt_cache.files import Replacement
from img2prompt_cache.locks import remove_leftovers
from img2prompt_cache.sources.remote.spool import LISTINGS, spool_folder

MOST_BYTES = 4 << 30
"""Bytes that kept listings may take when a process begins to keep some."""
_ABOUT = b"about"


class Listed(NamedTuple):
    """What a file lists.

    Attributes
    ----------
    table : pyarrow.Table
        Of string columns.
    about : dict
        JSON values: what else the source wants to know of the file.
    """

    table: pa.Table
    about: dict[str, Any]


def keep_listing(depends_on: Iterable[object], make: Callable[[], Listed]) -> Listed:
    """Give the listing of a file, made by `make` if none is kept.

    Parameters
    ----------
    depends_on : iterable
        Texts and numbers that tell this listing from any other.
    make : callable
    """
    key = json.dumps([_code(), *map(str, depends_on)]).encode()
    path = spool_folder() / LISTINGS / f"{hashlib.sha256(key).hexdigest()[:32]}.arrow"
    with suppress(OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        table.validate(full=True)
        about = json.loads((table.schema.metadata or {})[_ABOUT])
        os.utime(path)
        return Listed(table.replace_schema_metadata(None), about)
    made = make()
    with suppress(OSError):  # it is only worth time
        path.parent.mkdir(parents=True, exist_ok=True)
        _tidy(path.parent)
        with Replacement(path, tidy=False) as new:
            table = made.table.replace_schema_metadata({_ABOUT: json.dumps(made.about).encode()})
            with pa.OSFile(str(new.temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
                file.write_table(table)
            new.commit()
    return made


@cache
def _tidy(folder: Path) -> None:
    """Remove the listings that were not used for longest, once in a process."""
    remove_leftovers(folder)
    found = []
    for path in folder.glob("*.arrow"):
        with suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= MOST_BYTES:
            break
        path.unlink(missing_ok=True)
        total -= size


@cache
def _code() -> str:
    """Digest the code that reads sources: with other code a file may list other prompts."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
