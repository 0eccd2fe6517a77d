"""Reading tables of prompts in JSON: one object per line, or one document for many images.

A document is a list of objects; or an object with a prompt, or an object with a prompt, for each image, as
DiffusionDB and kohya's scripts write it; or an object that contains such a list; or an object with the lists
`images` and `annotations` of COCO, which are joined.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources.captions import NAMES, prompt_of_record, prompts_of_value
from img2prompt_cache.sources.names import IMAGE_SUFFIXES
from img2prompt_cache.sources.reading import read_regular
from img2prompt_cache.sources.several import pack

MAX_DOCUMENT_BYTES = 96 << 20
"""Largest document, which is read at once; the captions of COCO have 88 MiB. JSON Lines have no limit."""
MOST_COLUMNS = 1000

Row = Mapping[str, object]


def read_lines(path: Path) -> Iterator[Row]:
    """Read JSON Lines, one object at a time.

    Raises
    ------
    UsageError
        If a line is not a JSON object.
    """
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                value = _parse(line, f"{path}, line {number},")
                if not isinstance(value, dict):
                    raise UsageError(f"{path}, line {number}, is not a JSON object")
                yield value


def read_document(path: Path) -> list[Row]:
    """Read the rows of a JSON document; if images are the keys of an object, they become ``file_name``.

    Raises
    ------
    UsageError
        If the document is too large, not JSON, or of an unknown form.
    """
    try:
        text = read_regular(path, MAX_DOCUMENT_BYTES).decode("utf-8-sig")
    except ImageError as error:
        raise UsageError(f"{path} {error}; write it as JSON Lines, one object a line") from error
    value = _parse(text, str(path))
    rows = _coco(value) or _rows(value, loose="prompt" in path.stem.lower() or "caption" in path.stem.lower())
    if rows is None:
        raise UsageError(
            f"{path} is no table of prompts: give a list of objects, or an object with a prompt for each "
            "image"
        )
    return rows


def table_of(rows: Iterable[Row], path: Path, prompt_column: str | None = None) -> pa.Table:
    """Make a table with every column as strings, without nested values other than prompts.

    Where there are several prompts, the value is a JSON list of them.

    Parameters
    ----------
    rows : iterable of mappings
    path : pathlib.Path
        The file, for messages.
    prompt_column : str, optional
        A further name of a column of prompts.

    Raises
    ------
    UsageError
        If a value is not valid text, or there are too many columns.
    """
    # pyarrow.json is not used, because it converts text that looks like a date.
    columns: dict[str, list[str | None]] = {}
    nested: set[str] = set()
    count = 0
    for row in map(_with_sentences, rows):
        stated = any(name.lower() in NAMES or name == prompt_column for name in row)
        if not stated and any(isinstance(v, dict) or name == "full_command" for name, v in row.items()):
            found = prompt_of_record(row)
            row = {**row, "prompt": [found.prompt, *found.more]} if found else row
        for name, value in row.items():
            if isinstance(value, dict | list) and (name.lower() in NAMES or name == prompt_column):
                value = text_of(prompts_of_value(value))
            if isinstance(value, dict | list):
                nested.add(name)
                continue
            column = columns.setdefault(name, [])
            if len(columns) > MOST_COLUMNS:
                raise UsageError(f"{path} has more than the {MOST_COLUMNS} columns allowed")
            column.extend([None] * (count - len(column)))
            column.append(value if isinstance(value, str | None) else json.dumps(value))
        count += 1
    arrays = {
        name: _strings([*values, *[None] * (count - len(values))], path)
        for name, values in columns.items()
        if name not in nested
    }
    return pa.table(arrays)


def text_of(prompts: list[str]) -> str | None:
    """Write the prompts of one row as the value of a table: as they are, or as a JSON list of several."""
    return pack(prompts) if len(prompts) > 1 else next(iter(prompts), None)


def _with_sentences(row: Row) -> Row:
    """Read a row of Karpathy's splits of COCO and Flickr; others are given back as they are.

    See https://cs.stanford.edu/people/karpathy/deepimagesent: a ``filename``, perhaps its folder as
    ``filepath``, and ``sentences`` whose texts are ``raw``. Their `imgid` counts images, and names none.
    """
    name, folder, sentences = row.get("filename"), row.get("filepath"), row.get("sentences")
    if not isinstance(name, str) or not isinstance(sentences, list):
        return row
    texts = [one["raw"] for one in sentences if isinstance(one, dict) and isinstance(one.get("raw"), str)]
    file = f"{folder}/{name}" if isinstance(folder, str) and folder else name
    split = {"split": row["split"]} if isinstance(row.get("split"), str) else {}
    return {"file_name": file, "prompt": texts, **split} if texts else row


def _rows(value: object, *, loose: bool) -> list[Row] | None:
    """Find the rows of a document; if `loose`, any key may be an image, not only one with a suffix."""
    if isinstance(value, list):
        return value if value and all(isinstance(row, dict) for row in value) else None
    if not isinstance(value, dict):
        return None
    by_image = [_row(name, stated, loose=loose) for name, stated in value.items()]
    rows = [row for row in by_image if row is not None]
    if rows and len(rows) == len(by_image):
        return rows
    lists = [
        found for inner in value.values() if isinstance(inner, list) and (found := _rows(inner, loose=False))
    ]
    return lists[0] if len(lists) == 1 else None


def _coco(value: object) -> list[Row] | None:
    """Join the images and captions of COCO's format; None for anything else.

    See https://cocodataset.org/#format-data, 4: annotations have an `image_id` and a `caption`.
    """
    if not isinstance(value, dict):
        return None
    images, annotations = value.get("images"), value.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        return None
    captions: dict[object, list[str]] = {}
    for one in annotations:
        text = one.get("caption") if isinstance(one, dict) else None
        if isinstance(text, str) and isinstance(one.get("image_id"), int | str):
            captions.setdefault(one["image_id"], []).append(text.strip())
    named = (one for one in images if isinstance(one, dict) and isinstance(one.get("id"), int | str))
    return [
        {"file_name": one["file_name"], "prompt": captions[one["id"]]}
        for one in named
        if one["id"] in captions and isinstance(one.get("file_name"), str)
    ] or None


def _row(name: str, stated: object, *, loose: bool) -> Row | None:
    """Read the entry of one image in a document; None if the key is not an image, or has no prompt."""
    image = name.lower().endswith(IMAGE_SUFFIXES)
    if name.lower() in NAMES or not (image or loose or (isinstance(stated, dict) and "caption" in stated)):
        return None
    texts = image and isinstance(stated, list) and stated and all(isinstance(one, str) for one in stated)
    if isinstance(stated, str) or texts:
        return {"file_name": name, "prompt": stated}
    if not isinstance(stated, dict):
        return None
    named = {str(key).lower() for key in stated}
    if "p" in named and named.isdisjoint(NAMES):  # DiffusionDB: {p, se, c, st, sa}
        stated = {"prompt" if key == "p" else key: value for key, value in stated.items()}
    elif named.isdisjoint(NAMES) and not image:
        return None
    return {"file_name": name, **{key: value for key, value in stated.items() if key != "file_name"}}


def _parse(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {str(error)[:120]}") from error


def _strings(values: list[str | None], path: Path) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError as error:
        raise UsageError(f"{path} holds half of a surrogate pair, which is not text") from error
