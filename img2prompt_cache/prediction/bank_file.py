"""Reading the prompts of a bank: a text file with a prompt a line, compressed or not, or a table."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.encoders.base import MOST_CHARACTERS
from img2prompt_cache.sources.captions import prompts_of_value
from img2prompt_cache.sources.columns import PROMPT_COLUMNS
from img2prompt_cache.sources.tablefile import TABLE_SUFFIXES, read_table

MOST_BYTES = 512 << 20
"""Bytes of text that are unpacked; a small compressed file can hold any number."""


def read_bank(path: Path, parameter: str) -> list[str]:
    """Give the distinct prompts of a file, in its order.

    Parameters
    ----------
    path : pathlib.Path
        CSV, TSV, JSON lines or parquet with a column of prompts; any other extension is read as UTF-8 lines,
        ``.gz`` as such lines compressed with gzip.
    parameter : str
        What errors call the file.

    Raises
    ------
    UsageError
        If the file is not there, cannot be read, holds no prompt, or one that is too long.
    """
    if not path.is_file():
        raise UsageError(f"`{parameter}` {path}: there is no such file", parameter=parameter)
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes[-1:] == [".gz"] and suffixes[0] in TABLE_SUFFIXES:
        raise UsageError(
            f"`{parameter}` {path}: of compressed files only lists of prompts are read; unpack the table",
            parameter=parameter,
        )
    table = path.suffix.lower() in TABLE_SUFFIXES
    found = _column(path, parameter) if table else _lines(path, parameter)
    prompts = list(dict.fromkeys(prompt for prompt in found if prompt and prompt.strip()))
    if not prompts:
        raise UsageError(f"`{parameter}` {path} holds no prompt", parameter=parameter)
    longest = max(map(len, prompts))
    if longest > MOST_CHARACTERS:
        raise UsageError(
            f"`{parameter}` {path} has a prompt of {longest} characters, more than the {MOST_CHARACTERS} "
            "allowed; write one prompt a line",
            parameter=parameter,
        )
    return prompts


def _column(path: Path, parameter: str) -> list[str]:
    """Read the column of prompts of a table."""
    table = read_table(path)
    columns = {name.strip().lower(): name for name in table.column_names}
    known = next((columns[name] for name in PROMPT_COLUMNS if name in columns), None)
    if known is None:
        raise UsageError(
            f"`{parameter}` {path} has no column {' or '.join(PROMPT_COLUMNS[:3])}; "
            f"its columns are {', '.join(table.column_names[:20])}",
            parameter=parameter,
        )
    return [prompt for text in table[known].to_pylist() for prompt in prompts_of_value(text)]


def _lines(path: Path, parameter: str) -> list[str]:
    """Read the lines of a text file."""
    packed = path.suffix.lower() == ".gz"
    try:
        if packed:
            with gzip.open(path) as file:
                data = file.read(MOST_BYTES + 1)
        else:
            data = path.read_bytes()
        if packed and len(data) > MOST_BYTES:
            raise UsageError(
                f"`{parameter}` {path} unpacks to more than {MOST_BYTES >> 20} MiB; unpack it yourself, or "
                "take "
                "fewer prompts",
                parameter=parameter,
            )
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(
            f"`{parameter}` {path} cannot be read as UTF-8 text{', compressed with gzip' * packed}: {error}",
            parameter=parameter,
        ) from error
    return [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
