"""Sources with a name, so that several of them can be in one cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import Listing, Source
from img2prompt_cache.sources.remote import RemoteRoot, is_url
from img2prompt_cache.sources.stamps import UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCE = "source"
"""The column that names the source of each row."""


@dataclass(frozen=True)
class NamedSource:
    """A source whose rows say its name in the column `SOURCE`.

    Parameters
    ----------
    source : Source
    name : str
    prefix : str
        Put before every imgId, so that no other source has the same: ``name/``; empty for the first source of
        a cache.
    """

    source: Source
    name: str
    prefix: str = ""

    @property
    def root(self) -> Path | RemoteRoot:
        """The folder or file of the source, or what a URL stands for."""
        return self.source.root

    @property
    def settings(self) -> dict[str, str]:
        """Those of the source, its name, and the prefix if there is one."""
        return {**self.source.settings, "name": self.name, "prefix": self.prefix}

    @property
    def packed(self) -> bool:
        """Whether one file holds many images; see `FileSource.packed`."""
        return bool(getattr(self.source, "packed", False))

    @property
    def detected(self) -> bool:
        """Whether the format was detected; see `FileSource.detected`."""
        return bool(getattr(self.source, "detected", False))

    @property
    def why(self) -> str:
        """Why it has this format; see `FileSource.why`."""
        return str(getattr(self.source, "why", ""))

    def list(self) -> Listing:
        """List every row of the source, under the name."""
        return self.rename(self.source.list())

    def rename(self, listing: Listing) -> Listing:
        """Put the prefix before the ids of a listing of the source, and the column with the name behind."""
        table, notes = listing.table, listing.summary.notes
        if SOURCE in table.column_names:
            table = table.drop_columns(SOURCE)
            notes = (
                *notes,
                f"the table's own column {SOURCE} is left out, because {SOURCE} names where rows come from",
            )
        if self.prefix:
            ids = pc.binary_join_element_wise(self.prefix, table["imgId"], "")
            table = table.set_column(0, "imgId", ids)
        table = table.append_column(SOURCE, pa.chunked_array([pa.array([self.name] * len(table))]))
        return Listing(table, replace(listing.summary, notes=notes))

    def read(self, uri: str) -> bytes:
        """Read the bytes of one image."""
        return self.source.read(uri)

    def stamps(self, uris: pa.ChunkedArray) -> NDArray[np.int64]:
        """Look up sizes and times; see `FileSource.stamps`."""
        look_up = getattr(self.source, "stamps", None)
        found: NDArray[np.int64] = (
            np.full((len(uris), 2), UNKNOWN, np.int64) if look_up is None else look_up(uris)
        )
        return found


def split_name(text: str) -> tuple[str, str]:
    """Divide ``NAME=PATH``; the name is empty where there is none, or a file or folder is called so.

    Raises
    ------
    UsageError
        If the name cannot be one.
    """
    name, equals, path = text.partition("=")
    if not equals or "/" in name or not _is_gone(text):
        return "", text
    if not (name.strip() == name and name.isprintable() and name and path):
        raise UsageError(f"{text!r} must be a path, or NAME=PATH", parameter="source")
    return name, path


def name_of(path: Path | RemoteRoot) -> str:
    """Name a source after its folder or file: ``x/images`` is ``x``, ``x/train.tar`` is ``train``."""
    if isinstance(path, RemoteRoot):
        return path.name.partition(".")[0] or path.name
    whole = path.resolve()
    if whole.is_file():
        return whole.name.partition(".")[0] or whole.name
    return whole.parent.name if whole.name == "images" and whole.parent.name else whole.name


def find_recorded(entries: tuple[dict[str, str], ...], root: Path | RemoteRoot, name: str = "") -> int | None:
    """Find which of the sources of a cache has a root.

    Parameters
    ----------
    entries : tuple of dict of str to str
        `Manifest.sources`.
    root : pathlib.Path or RemoteRoot
    name : str
        The name that was given to the source, if one was.

    Returns
    -------
    int or None
        Its number. Or that of a source which is gone, so that it has moved: the one with the name, or else
        the only one whose root was called alike.
    """
    roots = [known["root"] for known in entries]
    if str(root.resolve()) in roots:
        return roots.index(str(root.resolve()))
    gone = [i for i, known in enumerate(roots) if _is_gone(known)]
    named = [i for i in gone if name and entries[i].get("name") == name]
    alike = [i for i in gone if Path(roots[i]).name == root.name]
    found = named or [i for i in alike if not name or "name" not in entries[i]]
    return found[0] if len(found) == 1 else None


def _is_gone(path: str) -> bool:
    """Whether nothing is there any more; what cannot be looked at, or lies elsewhere, may still be there."""
    if is_url(path):
        return False
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def as_recorded(source: Source, entry: Mapping[str, str]) -> Source:
    """Give a source the name that it has in a cache, if it has one."""
    if "name" not in entry or isinstance(source, NamedSource):
        return source
    return NamedSource(source, entry["name"], entry.get("prefix", ""))
