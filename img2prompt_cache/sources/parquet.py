"""Parquet files with images: structs ``{bytes, path}`` as Hugging Face writes them, or plain bytes.

The images may also be a column of paths, relative to the source. The id is the column `imgId`, `image_id`,
`id` or `key`, or the one named with `id_column`; without such a column it is ``<file>/<row>``. A uri is
``file.parquet#row``.
"""

from __future__ import annotations

import bisect
import re
import threading
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.columns import (
    IMG2DATASET,
    PROMPT_COLUMNS,
    bytes_column,
    pick_column,
    short_columns,
)
from img2prompt_cache.sources.listing import make_listing
from img2prompt_cache.sources.packed import PackedSource
from img2prompt_cache.sources.pages import Unpacked, unpacked_groups
from img2prompt_cache.sources.parquetfile import rows_at_once, strings_of
from img2prompt_cache.sources.reading import MAX_IMAGE_BYTES, UNSAFE_PATH, read_below
from img2prompt_cache.sources.remote import Listed, RemoteRoot
from img2prompt_cache.sources.scan import Walk, shards
from img2prompt_cache.sources.several import MORE_PROMPTS
from img2prompt_cache.sources.tablefile import read_table, split_prompts

ID_COLUMNS = ("imgId", "image_id", "id", "key", "__key__")
PATH_COLUMNS = ("image", "file_name", "filename", "image_path", "path", "file")
LARGEST_GROUP = 2 << 30
"""Largest size of the images in a row group, in bytes; a row group is read as a whole."""

_URI = re.compile(r"(.+)#(\d{1,18})", re.DOTALL)
_lock = threading.Lock()


class ParquetSource(PackedSource):
    """One parquet file, or a folder of them."""

    takes: ClassVar[frozenset[str]] = frozenset({"id_column", "prompt_column"})
    suffix: ClassVar[str] = ".parquet"

    @classmethod
    def recognise(cls, walk: Walk) -> str:
        """Look for a column of image bytes in the first parquet file."""
        root = walk.root
        names = shards(root, cls.suffix)
        folder = root.parent if root.is_file() else root
        try:
            column = bytes_column(pq.read_schema(folder / names[0])) if names else None
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            return ""
        return f"{names[0]} has images in its column {column!r}" if column is not None else ""

    def list(self) -> Listing:
        """List every row of every file, in order; the images are not read."""
        names = self.file_names()
        if not names:
            raise UsageError(f"{self.root} holds no .parquet file")
        parts = [self.listed(name) for name in names]
        without_image = sum(part.about["without_image"] for part in parts)
        table = pa.concat_tables((part.table for part in parts), promote_options="default")
        notes = dict.fromkeys(note for part in parts for note in part.about["notes"])
        extras = {name: table[name].fill_null("") for name in table.column_names[3:]}
        return make_listing(
            table["imgId"],
            table["uri"],
            table["prompt"],
            self.root,
            extras=extras,
            without_image=without_image,
            notes=(*self.notes, *notes),
        )

    def _split(self, uri: str) -> tuple[str, str]:
        match = _URI.fullmatch(uri)
        if match is None or re.search(UNSAFE_PATH, match[1]):
            raise ImageError("cannot be read: not a row of a parquet file")
        return match[1], match[2]

    def _read(self, path: Path, place: str) -> bytes:
        """Read the bytes in a row, or those of the file that it names."""
        try:
            value = _value(str(path), int(place))
        except (pa.ArrowException, OSError, IndexError, UnicodeDecodeError, UsageError) as error:
            raise ImageError(f"cannot be read: {str(error).splitlines()[0][:200]}") from error
        found = value.get("bytes") or value.get("path") if isinstance(value, dict) else value
        if not found:
            raise ImageError("cannot be read: the row holds no image")
        if isinstance(found, str):
            return read_below(self.folder, found)
        if len(found) > MAX_IMAGE_BYTES:
            raise ImageError(
                f"cannot be read: {len(found)} bytes are more than the {MAX_IMAGE_BYTES} allowed"
            )
        return found

    def _list_file(self, path: Path, name: str, prefix: str) -> Listed:
        image = _image_column(path)
        if isinstance(self.root, RemoteRoot) and bytes_column(pq.read_schema(path)) is None:
            raise UsageError(
                f"{path} has no column of image bytes, and images that lie beside a remote file are not "
                "read; pack them into it, or copy all of them to this machine"
            )
        table = read_table(path, self.options.prompt_column)
        names = [column for column in table.column_names if column != image]
        prompt = pick_column(names, self.options.prompt_column, PROMPT_COLUMNS, "prompt_column", path)
        known = {column.lower() for column in ID_COLUMNS}
        has_id = self.options.id_column is not None or any(
            column.strip().lower() in known for column in names
        )
        if has_id:
            column = pick_column(names, self.options.id_column, ID_COLUMNS, "id_column", path)
            ids = table[column].fill_null("")
            if "" in pc.unique(ids).to_pylist():
                raise UsageError(
                    f"{path} has a row without {column!r}; fill it, or name another `id_column`",
                    parameter="id_column",
                )
        else:
            column = ""
            ids = [f"{prefix}{row}" for row in range(table.num_rows)]
        extras, notes = short_columns(table, {image, prompt, column})
        first, more = split_prompts(table[prompt])
        columns = {
            "imgId": ids,
            "uri": [f"{name}#{row}" for row in range(table.num_rows)],
            "prompt": first,
            **extras,
            **({} if more is None else {MORE_PROMPTS: more}),
        }
        listed = pa.table(columns)
        if IMG2DATASET.issubset(table.column_names):
            fetched = pc.equal(table["status"].fill_null(""), "success")
            lost = listed.filter(pc.invert(fetched))["prompt"]
            without_image = len(lost) - lost.null_count
            return Listed(listed.filter(fetched), {"without_image": without_image, "notes": notes})
        return Listed(listed, {"without_image": 0, "notes": notes})


def _image_column(path: Path) -> str:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            image = bytes_column(schema)
            if image is None:
                texts = [str(f.name) for f in schema if pa.types.is_string(f.type)]
                remedy = '`format="table"` and `id_column`'
                return pick_column(texts, None, PATH_COLUMNS, "format", path, remedy)
        largest = max((group.size for group in unpacked_groups(path, [image])), default=0)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as parquet: {str(error).splitlines()[0][:200]}") from error
    if largest > LARGEST_GROUP:
        raise UsageError(
            f"{path} has a row group of {largest} bytes of images, more than the {LARGEST_GROUP} that are "
            "read at once; write it again with smaller row groups (row_group_size=1000)"
        )
    return image


def _value(path: str, row: int) -> dict[str, bytes | str | None] | bytes | str | None:
    # The lock keeps several threads from reading the same row group.
    with _lock:
        column, ends, _ = _layout(path)
        group = bisect.bisect_right(ends, row)
        if group == len(ends):
            raise IndexError(f"{Path(path).name} has no row {row}")
        first = ends[group - 1] if group else 0
        value: dict[str, bytes | str | None] | bytes | str | None
        value = _group(path, group, column)[row - first].as_py()
        return value


@lru_cache(maxsize=64)
def _layout(path: str) -> tuple[str, list[int], list[Unpacked]]:
    column = _image_column(Path(path))
    with pq.ParquetFile(path) as file:
        counts = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    return column, list(accumulate(counts)), unpacked_groups(Path(path), [column])


@lru_cache(maxsize=2)
def _group(path: str, group: int, column: str) -> pa.ChunkedArray:
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
    need = _layout(path)[2][group]
    if need.values * 8 + need.size > LARGEST_GROUP:
        raise ImageError(f"cannot be read: a row group of more than {LARGEST_GROUP} bytes")
    # References to a dictionary are not followed until one image is taken.
    leaves = strings_of(metadata, [column]) if need.expanded > LARGEST_GROUP else []
    chunks, total = [], 0
    with pq.ParquetFile(path, read_dictionary=leaves) as file:
        if not need.shares_prefixes:
            return file.read_row_group(group, columns=[column])[column]
        for batch in file.iter_batches(rows_at_once(need, LARGEST_GROUP), [group], [column]):
            total += batch.nbytes
            if total > LARGEST_GROUP:
                raise ImageError(f"cannot be read: a row group of more than {LARGEST_GROUP} bytes")
            chunks.append(batch.column(0))
    return pa.chunked_array(chunks)
