"""The interface of sources: a listing of the pairs, and the bytes of their images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from img2prompt_cache.sources.remote import RemoteRoot

COLUMNS = ("imgId", "uri", "prompt")
"""The first columns of every listing; columns of the user's own table follow."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts and notes of a listing, to be shown to the user.

    Attributes
    ----------
    pairs : int
        Images with a prompt.
    without_prompt : int
        Images listed without a prompt.
    without_image : int
        Prompts without an image; they are not listed.
    notes : tuple of str
        Further remarks, one line each: a column left out, a file skipped.
    """

    pairs: int
    without_prompt: int = 0
    without_image: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """The rows of a source, in its order, and a summary.

    Attributes
    ----------
    table : pyarrow.Table
        String columns `imgId` (unique, never empty), `uri` (the argument of `Source.read`, relative to the
        root) and `prompt` (null if there is none), then the short text columns of the user's table, if any.
    summary : Summary
    """

    table: pa.Table
    summary: Summary


class Source(Protocol):
    """A source of pairs. It is cheap to create and to pickle; `list` does the work.

    A source may also have a method `stamps`, see `FileSource.stamps`. Without it, an image that is replaced
    under its name is noticed only where the bytes of all images are compared.
    """

    @property
    def root(self) -> Path | RemoteRoot:
        """The folder or file of the source, or what a URL stands for."""

    @property
    def settings(self) -> dict[str, str]:
        """`format` and the options that were set, from which `reopen_source` makes this source again."""

    def list(self) -> Listing:
        """List every row, in an order that depends only on the contents.

        Raises
        ------
        UsageError
            If the source does not exist, is empty, lacks a column, or has an imgId twice.
        """

    def read(self, uri: str) -> bytes:
        """Read the bytes of one image; safe to call from several threads.

        Raises
        ------
        ImageError
            If they cannot be read; the message is stored as the reason in the row.
        """


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The options of a source; all are optional.

    Attributes
    ----------
    format : str
        ``"auto"`` or a name in `formats.FORMATS`.
    prompts : pathlib.Path, RemoteRoot or None
        The table of prompts, if it is not in the folder under a known name.
    id_column, prompt_column : str or None
        Names of its columns, if they are not among the known ones.
    """

    format: str = "auto"
    prompts: Path | RemoteRoot | None = None
    id_column: str | None = None
    prompt_column: str | None = None
