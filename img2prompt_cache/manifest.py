"""The manifest: `cache.json`, the one truth about what a cache holds."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.parts import write_atomically
from img2prompt_cache.specs import folder_name

SCHEMA = 1
NAME = "cache.json"

Kind = Literal["rows", "features", "trunk", "views", "targets"]
KINDS: tuple[Kind, ...] = get_args(Kind)
EXTRA_NAME = re.compile(r"\w[\w .-]{0,63}")
"""What a column of the user's own table may be called to be kept."""

_REVISION = re.compile(r"-r([1-9][0-9]{0,8})\.h5$", re.ASCII)
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
    retried : tuple of tuple of int
        Rows that failed at first and were filled in later, one group for each time: what is encoded together
        decides the last bit of a value, so computing the part anew goes through the same groups.
    """

    file: str
    start: int
    stop: int
    bytes: int
    sha256: str
    missing: tuple[int, ...] = ()
    source: int = 0
    retried: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """One column as the manifest records it.

    Attributes
    ----------
    kind : str
        ``"rows"``, ``"features"``, ``"trunk"``, ``"views"`` or ``"targets"``.
    spec : str
        The backbone, with a suffix where not its pooled feature is kept (see `backbones.taps`), or the
        encoder; empty for `rows`.
    folder : str
        Where its parts lie, inside the cache folder.
    shape : tuple of int
        Of one row's value; empty for `rows`. The views of a row are its first axis, channels the last.
    dtype : str
        ``"float16"`` and the like; ``"text"`` for `rows`. Beside int8 values lies their scale.
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
    def datasets(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Numeric datasets of its parts: name to shape of one row and dtype."""
        if self.dtype == "text":
            return {}
        found = {"values": (self.shape, self.dtype)}
        if self.dtype == "int8":
            views = self.shape[:1] if self.kind == "views" else ()
            found["scale"] = ((*views, self.shape[-1]), "float16")
        return found

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

    @property
    def missing(self) -> dict[str, int]:
        """How many good images could not be read again, for each column that lacks any."""
        counts = {c.folder: sum(len(part.missing) for part in c.parts) for c in self.columns}
        return {folder: count for folder, count in counts.items() if count}

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


def part_file(folder: str, number: int, revision: int = 0) -> str:
    """Name a part's file inside the cache folder: ``rows/00007.h5``; ``rows/00007-r1.h5`` once revised."""
    return f"{folder}/{number:05d}{f'-r{revision}' if revision else ''}.h5"


def revision_of(file: str) -> int:
    """Tell from a part's name how many times it was revised."""
    found = _REVISION.search(file)
    return int(found[1]) if found else 0


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
    return _ending(_dumps(_fields(column, "parts")), "parts", ",\n".join(map(_part_text, column.parts)))


@lru_cache(maxsize=1 << 17)
def _part_text(part: Part) -> str:
    # Kept, because every commit writes all parts again.
    return _dumps(asdict(part))


def _ending(text: str, name: str, items: str) -> str:
    """Put a list, one item a line, at the end of a JSON object."""
    return f'{text[:-1]}, "{name}": [\n{items}\n]}}'


def _dumps(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)


def _fields(item: Manifest | Column, *left_out: str) -> dict[str, Any]:
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
    _check(dtype != "int8" or len(shape) > 1, f"an int8 column cannot have shape {shape}")
    folder = column_folder(kind, spec)
    _check(data["folder"] == folder, f"{spec!r} does not lie in {data['folder']!r}")
    parts = tuple(_part(item, folder, number) for number, item in enumerate(data["parts"]))
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


def _part(data: dict[str, Any], folder: str, number: int) -> Part:
    file = part_file(folder, number, revision_of(data["file"]))
    _check(data["file"] == file, f"{data['file']!r} should be {part_file(folder, number)!r}")
    sha256 = data["sha256"]
    _check(re.fullmatch("[0-9a-f]{64}", sha256) is not None, f"{file} has no sha256")
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
    )


def _rows(values: list[object], start: int, stop: int) -> tuple[int, ...]:
    return tuple(_integer(row, start, stop - 1) for row in values)


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
