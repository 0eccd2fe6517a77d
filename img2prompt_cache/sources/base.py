"""What every source gives: a listing of pairs and the bytes of their images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

COLUMNS = ("imgId", "uri", "prompt")
"""The first columns of every listing; what follows are columns of the user's own table."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a listing found, for the person who asked.

    Attributes
    ----------
    pairs : int
        Images with a prompt.
    without_prompt : int
        Images listed without a prompt.
    without_image : int
        Prompts whose image is not there; they are not listed.
    notes : tuple of str
        Anything else worth a line: a column left out, a file passed over.
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
        String columns `imgId` (unique, never empty), `uri` (what `Source.read` takes; relative to the root),
        `prompt` (null where there is none), then the short text columns of the user's table, if any.
    summary : Summary
    """

    table: pa.Table
    summary: Summary


class Source(Protocol):
    """Where pairs come from. Cheap to make and to pickle; `list` does the work."""

    @property
    def root(self) -> Path:
        """The folder or file that was named."""

    @property
    def settings(self) -> dict[str, str]:
        """What `open_source` takes to make this source again: `format` and the options that were set."""

    def list(self) -> Listing:
        """List every row, in an order that depends on the content alone.

        Raises
        ------
        UsageError
            If the source is not there, is empty, lacks a column, or names an imgId twice.
        """

    def read(self, uri: str) -> bytes:
        """Give the raw bytes of one image; safe to call from several threads.

        Raises
        ------
        ImageError
            If they cannot be read; the message is the reason stored with the row.
        """


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The options of `extract SOURCE`; every one is optional.

    Attributes
    ----------
    format : str
        ``"auto"`` or a name of the registry.
    prompts : pathlib.Path or None
        The table, where it does not lie in the folder under a known name.
    id_column, prompt_column : str or None
        Its columns, where they have other names than the known ones.
    """

    format: str = "auto"
    prompts: Path | None = None
    id_column: str | None = None
    prompt_column: str | None = None
