"""The manifest: `cache.json`, the one truth about what a cache holds."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.parts import write_atomically
from img2prompt_cache.specs import folder_name

SCHEMA = 1
NAME = "cache.json"

Kind = Literal["rows", "features", "trunk", "targets"]
KINDS: tuple[Kind, ...] = ("rows", "features", "trunk", "targets")
EXTRA_NAME = re.compile(r"\w[\w .-]{0,63}")
"""What a column of the user's own table may be called to be kept."""

_ITEM_BYTES = {"float16": 2, "float32": 4, "int8": 1}
_MOST = 1 << 40


@dataclass(frozen=True, slots=True)
class Part:
    """One part as the manifest records it.

    Attributes
    ----------
    file : str
        Path inside the cache folder.
    start, stop : int
        Its rows.
    bytes : int
        Size of the file.
    sha256 : str
        Of the file's bytes, 64 hex digits.
    missing : tuple of int
        Rows whose image was good when it was first cached but could not be read again for this column.
    source : int
        For parts of `rows`: which of the manifest's sources they came from.
    """

    file: str
    start: int
    stop: int
    bytes: int
    sha256: str
    missing: tuple[int, ...] = ()
    source: int = 0


@dataclass(frozen=True, slots=True)
class Column:
    """One column as the manifest records it.

    Attributes
    ----------
    kind : str
        ``"rows"``, ``"features"``, ``"trunk"`` or ``"targets"``.
    spec : str
        The backbone or encoder; empty for `rows`.
    folder : str
        Where its parts lie, inside the cache folder.
    shape : tuple of int
        Of one row's value; empty for `rows`.
    dtype : str
        ``"float16"`` and the like; ``"text"`` for `rows`.
    fingerprint : dict of str to str
        What the values depend on.
    revision : str
        The commit that weights from a hub were resolved to; they are asked for at it ever after.
    parts : tuple of Part
        Without gaps, in order.
    """

    kind: Kind
    spec: str
    folder: str
    shape: tuple[int, ...]
    dtype: str
    fingerprint: dict[str, str]
    revision: str = ""
    parts: tuple[Part, ...] = ()

    @property
    def rows(self) -> int:
        """Rows cached so far."""
        return self.parts[-1].stop if self.parts else 0

    @property
    def bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything `cache.json` says. Immutable: a change is a new manifest, saved as a whole.

    Attributes
    ----------
    part_rows : int
        Rows of a full part.
    batch_size : int
        Rows encoded together. Kept, because a resumed pass equals an uninterrupted one only with the same.
    columns : tuple of Column
        `rows` first.
    sources : tuple of dict
        ``{"root": path, **settings}`` of every source rows came from.
    preset : dict or None
        ``{"name", "reason"}`` as decided when the cache was made.
    extra : tuple of str
        Columns of the user's own table that the rows keep.
    """

    part_rows: int
    batch_size: int
    columns: tuple[Column, ...]
    sources: tuple[dict[str, str], ...] = ()
    preset: dict[str, str] | None = None
    extra: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def rows(self) -> int:
        """Rows of the cache."""
        return self.columns[0].rows

    def column(self, kind: Kind, spec: str = "") -> Column | None:
        """Find a column."""
        return next((c for c in self.columns if c.kind == kind and c.spec == spec), None)

    def of_kind(self, kind: Kind) -> tuple[Column, ...]:
        """All columns of a kind, in the order they were added."""
        return tuple(c for c in self.columns if c.kind == kind)

    def with_column(self, column: Column) -> Manifest:
        """Add a column, or put it in the place of the one of its kind and spec."""
        if self.column(column.kind, column.spec) is None:
            if any(c.folder == column.folder for c in self.columns):
                raise UsageError(f"{column.spec} would share the folder {column.folder} with another spec")
            return replace(self, columns=(*self.columns, column))
        same = (column.kind, column.spec)
        return replace(self, columns=tuple(column if (c.kind, c.spec) == same else c for c in self.columns))


def column_folder(kind: Kind, spec: str) -> str:
    """Say where the parts of a column lie inside the cache folder: ``features/timm-resnet50.a1_in1k``."""
    return f"{kind}/{folder_name(spec)}" if spec else kind


def part_file(folder: str, number: int) -> str:
    """Name a part's file inside the cache folder: ``rows/00007.h5``."""
    return f"{folder}/{number:05d}.h5"


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `cache.json` atomically."""
    data = {"schema": manifest.schema, "rows": manifest.rows, **_without(asdict(manifest), "schema")}
    write_atomically(folder / NAME, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())


def load_manifest(folder: Path) -> Manifest:
    """Read and check `cache.json`.

    Raises
    ------
    UsageError
        If there is no cache here.
    Img2PromptError
        If it is of a newer schema or does not describe a cache: a path outside the folder, rows that overlap,
        absurd shapes.
    """
    path = folder / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"no cache in {folder}; make one with `img2prompt-cache extract SOURCE --cache {folder}`"
        ) from None
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
        return _manifest(data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Img2PromptError(f"{path} is damaged: {error}") from None


def _manifest(data: dict[str, Any]) -> Manifest:
    columns = tuple(_column(item) for item in data["columns"])
    _check(bool(columns) and columns[0].kind == "rows", "the first column is not rows")
    _check(all(c.kind != "rows" for c in columns[1:]), "rows twice")
    _check(len({c.folder for c in columns}) == len(columns), "two columns share a folder")
    edges = [(part.start, part.stop) for part in columns[0].parts]
    for column in columns[1:]:
        _check(
            [(part.start, part.stop) for part in column.parts] == edges[: len(column.parts)],
            f"{column.folder} does not follow the parts of rows",
        )
    preset = data.get("preset")
    extra = data.get("extra", [])
    _check(all(EXTRA_NAME.fullmatch(name) for name in extra), f"{extra!r} are not names of columns")
    manifest = Manifest(
        part_rows=_integer(data["part_rows"], 1, 1 << 24),
        batch_size=_integer(data["batch_size"], 1, 1 << 20),
        columns=columns,
        sources=tuple(_texts(item) for item in data.get("sources", ())),
        preset=None if preset is None else _texts(preset),
        extra=tuple(extra),
    )
    _check(data["rows"] == manifest.rows, "the number of rows does not match its parts")
    for part in columns[0].parts:
        _check(part.source < len(manifest.sources), f"{part.file} names a source that is not there")
        _check(part.stop - part.start <= manifest.part_rows, f"{part.file} has too many rows")
    return manifest


def _column(data: dict[str, Any]) -> Column:
    kind = data["kind"]
    _check(kind in KINDS, f"unknown kind of column {kind!r}")
    shape = tuple(_integer(size, 1, 1 << 24) for size in data["shape"])
    dtype = data["dtype"]
    _check(dtype in ("text", "float16", "float32", "int8"), f"unknown dtype {dtype!r}")
    _check((kind == "rows") == (dtype == "text"), f"a {kind} column cannot be {dtype}")
    spec = data["spec"]
    _check(spec == "" if kind == "rows" else folder_name(spec) != "", f"{spec!r} is no spec for {kind}")
    _check((kind == "rows") == (shape == ()), f"a {kind} column cannot have shape {shape}")
    folder = column_folder(kind, spec)
    _check(data["folder"] == folder, f"{spec!r} does not lie in {data['folder']!r}")
    parts = tuple(_part(item, part_file(folder, number)) for number, item in enumerate(data["parts"]))
    row_bytes = math.prod(shape) * _ITEM_BYTES.get(dtype, 0)
    edge = 0
    for part in parts:
        _check(part.start == edge < part.stop, f"{part.file} does not begin at row {edge}")
        _check(part.bytes >= (part.stop - part.start) * row_bytes, f"{part.file} is too small for its rows")
        edge = part.stop
    return Column(
        kind=cast(Kind, kind),
        spec=spec,
        folder=folder,
        shape=shape,
        dtype=dtype,
        fingerprint=_texts(data["fingerprint"]),
        revision=str(data.get("revision", "")),
        parts=parts,
    )


def _part(data: dict[str, Any], file: str) -> Part:
    _check(data["file"] == file, f"{data['file']!r} should be {file!r}")
    sha256 = data["sha256"]
    _check(re.fullmatch("[0-9a-f]{64}", sha256) is not None, f"{file} has no sha256")
    start, stop = _integer(data["start"], 0, _MOST), _integer(data["stop"], 0, _MOST)
    return Part(
        file=file,
        start=start,
        stop=stop,
        bytes=_integer(data["bytes"], 0, _MOST << 20),
        sha256=sha256,
        missing=tuple(_integer(row, start, stop - 1) for row in data.get("missing", ())),
        source=_integer(data.get("source", 0), 0, 1 << 20),
    )


def _integer(value: object, low: int, high: int) -> int:
    _check(type(value) is int and low <= value <= high, f"{value!r} is not between {low} and {high}")
    return cast(int, value)


def _texts(value: object) -> dict[str, str]:
    _check(
        isinstance(value, dict) and all(isinstance(v, str) for v in value.values()), f"{value!r} is not text"
    )
    return dict(cast(dict[str, str], value))


def _check(condition: bool, why: str) -> None:
    if not condition:
        raise ValueError(why)


def _without(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != key}
