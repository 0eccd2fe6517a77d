"""The manifest's file: `cache.json`, written as a whole, and checked when it is read."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, fields
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, cast

from img2prompt_cache.cache.manifest import (
    EXTRA_NAME,
    KINDS,
    MOST_PART_ROWS,
    PART_SCHEMA,
    SCHEMA,
    Block,
    Column,
    Kind,
    Manifest,
    Part,
    column_folder,
    folder_name,
    part_file,
    revision_of,
)
from img2prompt_cache.errors import Img2PromptError, UsageError, check
from img2prompt_cache.files import write_atomically

NAME = "cache.json"
DEFAULT_CACHE = Path("cache/default")
"""The cache that is meant where none is named."""

_ITEM_BYTES = {"float16": 2, "float32": 4, "int8": 1}
_MOST = 1 << 40

_Json: TypeAlias = dict[str, Any]
"""An object of a file that anybody may have written: whatever is taken from it is checked."""


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `cache.json` atomically.

    Raises
    ------
    Img2PromptError
        If the folder of a column is a link.
    """
    _require_own_folders(folder, manifest)
    head = {"schema": manifest.schema, "rows": manifest.rows, **_fields(manifest, "schema", "columns")}
    lists = ",\n".join(_column_text(column) for column in manifest.columns)
    write_atomically(folder / NAME, _ending(_dumps(head), "columns", lists).encode() + b"\n")


def _column_text(column: Column) -> str:
    unused = [name for name in ("current", "for_grouping") if not getattr(column, name)]
    head = _fields(column, "parts", "blocks", *unused)
    if column.blocks:
        head["blocks"] = [asdict(block) for block in column.blocks]
    return _ending(_dumps(head), "parts", ",\n".join(map(_part_text, column.parts)))


@lru_cache(maxsize=1 << 17)
def _part_text(part: Part) -> str:
    # Cached, because every commit writes all parts again.
    return _dumps(asdict(part))


def _ending(text: str, name: str, items: str) -> str:
    """Put a list, one item a line, at the end of a JSON object."""
    return f'{text[:-1]}, "{name}": [\n{items}\n]}}'


def _dumps(data: dict[str, object]) -> str:
    return json.dumps(data, ensure_ascii=False)


def _fields(item: Manifest | Column, *left_out: str) -> dict[str, object]:
    return {field.name: getattr(item, field.name) for field in fields(item) if field.name not in left_out}


def load_manifest(folder: Path) -> Manifest:
    """Read and check `cache.json`.

    Raises
    ------
    UsageError
        If there is no cache here.
    Img2PromptError
        If it is of a newer schema or does not describe a cache: a path outside the folder, rows that overlap,
        absurd shapes. If the folder of a column is a link.
    """
    path = folder / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"no cache in {folder}; make one with `extract()`", parameter="cache") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Img2PromptError(f"{path} cannot be read: {error}") from None
    try:
        data = json.loads(text)
        schema = data["schema"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Img2PromptError(f"{path} is not a manifest of img2prompt-cache") from None
    if not isinstance(schema, int) or schema < 1:
        raise Img2PromptError(f"{path} is not a manifest of img2prompt-cache")
    if schema > SCHEMA:
        raise Img2PromptError(
            f"{path} has schema {schema}; this version reads up to {SCHEMA}. Upgrade img2prompt-cache."
        )
    try:
        manifest = _manifest(data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Img2PromptError(f"{path} is damaged: {error}") from None
    _require_own_folders(folder, manifest)
    return manifest


def _require_own_folders(folder: Path, manifest: Manifest) -> None:
    """Refuse columns whose folder is a link: their parts would be read, or written, somewhere else."""
    for column in manifest.columns:
        home = Path(column.folder)
        for inner in (home, *home.parents[:-1]):
            if (folder / inner).is_symlink():
                raise Img2PromptError(
                    f"{folder / inner} is a link, and columns must lie in the cache's own folder; put the "
                    "folder itself in its place"
                )


def _manifest(data: _Json) -> Manifest:
    columns = tuple(_column(item) for item in data["columns"])
    check(bool(columns) and columns[0].kind == "rows", "the first column is not rows")
    check(all(c.kind != "rows" for c in columns[1:]), "rows twice")
    check(len({c.folder for c in columns}) == len(columns), "two columns share a folder")
    edges = [(part.start, part.stop) for part in columns[0].parts]
    for column in columns[1:]:
        check(
            [(part.start, part.stop) for part in column.parts] == edges[: len(column.parts)],
            f"{column.folder} does not follow the parts of rows",
        )
    check(len({c.cache for c in columns}) == 1, "columns of different caches")
    preset = data.get("preset")
    extra = data.get("extra", [])
    check(all(EXTRA_NAME.fullmatch(name) for name in extra), f"{extra!r} are not names of columns")
    manifest = Manifest(
        part_rows=_integer(data["part_rows"], 1, MOST_PART_ROWS),
        batch_size=_integer(data["batch_size"], 1, 1 << 20),
        columns=columns,
        sources=tuple(_texts(item) for item in data.get("sources", ())),
        preset=None if preset is None else _texts(preset),
        extra=tuple(extra),
        updates=tuple(_texts(item) for item in data.get("updates", ())),
    )
    check(data["rows"] == manifest.rows, "the number of rows does not match its parts")
    for part in columns[0].parts:
        check(part.source < len(manifest.sources), f"{part.file} names a source that is not there")
        check(part.stop - part.start <= MOST_PART_ROWS, f"{part.file} has too many rows")
    return manifest


def _column(data: _Json) -> Column:
    kind = data["kind"]
    check(kind in KINDS, f"unknown kind of column {kind!r}")
    shape = tuple(_integer(size, 1, 1 << 24) for size in data["shape"])
    dtype = data["dtype"]
    check(dtype in ("text", "float16", "float32", "int8"), f"unknown dtype {dtype!r}")
    check((kind == "rows") == (dtype == "text"), f"a {kind} column cannot be {dtype}")
    spec = data["spec"]
    check(spec == "" if kind == "rows" else folder_name(spec) != "", f"{spec!r} is no spec for {kind}")
    check((kind == "rows") == (shape == ()), f"a {kind} column cannot have shape {shape}")
    check(dtype != "int8" or len(shape) > 1, f"an int8 column cannot have shape {shape}")
    check(kind != "more_targets" or len(shape) == 2, f"a {kind} column cannot have shape {shape}")
    folder = column_folder(kind, spec)
    check(data["folder"] == folder, f"{spec!r} does not lie in {data['folder']!r}")
    parts = tuple(_part(item, folder, number) for number, item in enumerate(data["parts"]))
    row_bytes = math.prod(shape) * _ITEM_BYTES.get(dtype, 0)
    edge = 0
    for part in parts:
        check(part.start == edge < part.stop, f"{part.file} does not begin at row {edge}")
        check(part.bytes >= (part.stop - part.start) * row_bytes, f"{part.file} is too small for its rows")
        edge = part.stop
    blocks = tuple(_block(item) for item in data.get("blocks", ()))
    if blocks:
        whole = kind == "features" and sum(block.width for block in blocks) == shape[0]
        check(whole, f"the blocks of {folder} do not fit its shape")
    for_grouping = data.get("for_grouping", False)
    check(
        type(for_grouping) is bool and (kind == "targets" or not for_grouping),
        f"a {kind} column cannot have for_grouping = {for_grouping!r}",
    )
    return Column(
        kind=cast(Kind, kind),
        spec=spec,
        folder=folder,
        shape=shape,
        dtype=dtype,
        fingerprint=_texts(data["fingerprint"]),
        revision=str(data.get("revision", "")),
        parts=parts,
        cache=_identifier(data.get("cache", "")),
        blocks=blocks,
        current=_text(data.get("current", "")),
        for_grouping=for_grouping,
    )


def _block(data: _Json) -> Block:
    name, standardise = data["name"], data.get("standardise", True)
    check(isinstance(name, str) and type(standardise) is bool, f"{data!r} is no block")
    return Block(name, _integer(data["width"], 1, 1 << 24), standardise)


def _part(data: _Json, folder: str, number: int) -> Part:
    file = part_file(folder, number, revision_of(data["file"]))
    check(data["file"] == file, f"{data['file']!r} should be {part_file(folder, number)!r}")
    sha256 = data["sha256"]
    check(re.fullmatch("[0-9a-f]{64}", sha256) is not None, f"{file} has no sha256")
    start, stop = _integer(data["start"], 0, _MOST), _integer(data["stop"], 0, _MOST)
    return Part(
        file=file,
        start=start,
        stop=stop,
        bytes=_integer(data["bytes"], 0, _MOST << 20),
        sha256=sha256,
        missing=_rows(data.get("missing", ()), start, stop),
        source=_integer(data.get("source", 0), 0, 1 << 20),
        retried=tuple(_rows(group, start, stop) for group in data.get("retried", ())),
        schema=_integer(data.get("schema", 1), 1, PART_SCHEMA),
        joins=_joins(data.get("joins", ()), start, stop),
        replaced=_rows(data.get("replaced", ()), start, stop),
    )


def _joins(values: list[object], start: int, stop: int) -> tuple[int, ...]:
    rows = _rows(values, start + 1, stop)
    check(all(a < b for a, b in pairwise(rows)), f"{rows!r} are not in order")
    return rows


def _identifier(value: object) -> str:
    check(isinstance(value, str) and re.fullmatch("[0-9a-f]{0,64}", value) is not None, f"{value!r} is no id")
    return cast(str, value)


def _rows(values: list[object], start: int, stop: int) -> tuple[int, ...]:
    return tuple(_integer(row, start, stop - 1) for row in values)


def _integer(value: object, low: int, high: int) -> int:
    check(type(value) is int and low <= value <= high, f"{value!r} is not between {low} and {high}")
    return cast(int, value)


def _text(value: object) -> str:
    check(isinstance(value, str), f"{value!r} is not text")
    return cast(str, value)


def _texts(value: object) -> dict[str, str]:
    check(
        isinstance(value, dict) and all(isinstance(v, str) for v in value.values()), f"{value!r} is not text"
    )
    return dict(cast(dict[str, str], value))
