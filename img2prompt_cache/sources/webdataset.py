"""Tar shards as webdataset and img2dataset write them: ``<key>.jpg`` with ``<key>.txt`` or ``<key>.json``.

The files of one key follow each other; the key is the path up to the first dot of the file name. The prompt
is read from the text file, or from the JSON (see `captions`), or is the class, unless that is a number. An id
is ``<shard>/<key>``, or the key if there is a single shard. Nothing is unpacked: a uri is the position of the
bytes, ``shard.tar#offset+size``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.captions import prompt_of_text
from img2prompt_cache.sources.embedded.prompts import Found
from img2prompt_cache.sources.listing import make_listing
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, is_utf8
from img2prompt_cache.sources.packed import PackedSource
from img2prompt_cache.sources.reading import MAX_TEXT_BYTES, UNSAFE_PATH, read_slice
from img2prompt_cache.sources.remote import Listed, RemoteRoot
from img2prompt_cache.sources.scan import Walk, count_note, shards
from img2prompt_cache.sources.several import MORE_PROMPTS, pack
from img2prompt_cache.sources.tarindex import Member, TarDamage, members

_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)
_URI = re.compile(r"(.+)#(\d{1,18}\+\d{1,18})", re.DOTALL)
_UNSAFE = re.compile(UNSAFE_PATH)
_TEXTS = ("txt", "caption", "prompt", "text", "json", "cls")
"""Endings of the files that may contain the prompt, the preferred one first."""


@dataclass(slots=True)
class _Rows:
    ids: list[str] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    prompts: list[str | None] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    without_image: int = 0
    damaged: list[str] = field(default_factory=list)
    unsafe: list[str] = field(default_factory=list)


class WebDatasetSource(PackedSource):
    """One uncompressed tar file, or a folder of them."""

    suffix: ClassVar[str] = ".tar"

    @classmethod
    def recognise(cls, walk: Walk) -> str:
        """Look for tar files."""
        names = shards(walk.root, cls.suffix)
        return f"{names[0]} is a tar file" if names else ""

    def list(self) -> Listing:
        """List every key that has an image, shard by shard, in the order of each shard."""
        names = self.file_names()
        if not names:
            raise UsageError(f"{self.root} holds no .tar file")
        parts = [self.listed(name) for name in names]
        table = pa.concat_tables(part.table for part in parts)
        damaged, unsafe = (
            [line for part in parts for line in part.about[key]] for key in ("damaged", "unsafe")
        )
        notes = (
            *self.notes,
            *count_note(
                damaged,
                "damaged shard, listed as far as it can be read",
                "damaged shards, listed as far as they can be read",
            ),
            *count_note(unsafe, "member with an unsafe name, skipped", "members with unsafe names, skipped"),
        )
        further = {name: table[name] for name in ("found_in", MORE_PROMPTS)}
        return make_listing(
            table["imgId"],
            table["uri"],
            table["prompt"],
            self.root,
            extras={
                name: texts for name, texts in further.items() if pc.any(pc.not_equal(texts, "")).as_py()
            },
            without_image=sum(part.about["without_image"] for part in parts),
            notes=notes,
        )

    def _split(self, uri: str) -> tuple[str, str]:
        match = _URI.fullmatch(uri)
        if match is None or _UNSAFE.search(match[1]):
            raise ImageError("cannot be read: not a place in a shard")
        return match[1], match[2]

    def _read(self, path: Path, place: str) -> bytes:
        offset, _, size = place.partition("+")
        return read_slice(path, int(offset), int(size))

    def _peek(self, name: str, place: str) -> bytes | None:
        offset, _, size = place.partition("+")
        return self.root.peek(name, int(offset), int(size)) if isinstance(self.root, RemoteRoot) else None

    def _list_file(self, path: Path, name: str, prefix: str) -> Listed:
        rows = _read_shard(path, name, prefix)
        columns = {
            "imgId": rows.ids,
            "uri": rows.uris,
            "prompt": rows.prompts,
            "found_in": rows.readers,
            MORE_PROMPTS: rows.more,
        }
        table = pa.table({key: pa.array(values, pa.string()) for key, values in columns.items()})
        about = {"without_image": rows.without_image, "damaged": rows.damaged, "unsafe": rows.unsafe}
        return Listed(table, about)


def _read_shard(path: Path, name: str, prefix: str) -> _Rows:
    rows = _Rows()
    try:
        with path.open("rb") as file:
            try:
                for key, sample in _samples(members(file), rows):
                    _add(file, name, prefix + key, sample, rows)
            except TarDamage as damage:
                if not rows.ids:
                    raise UsageError(
                        f"{path} is not an uncompressed tar file: {damage}. Unpack .tar.gz first; fetch a "
                        "damaged file again"
                    ) from damage
                rows.damaged.append(f"{name}: {damage}")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return rows


def _samples(found: Iterator[Member], rows: _Rows) -> Iterator[tuple[str, dict[str, Member]]]:
    """Group consecutive members by key, each by its ending; damage is raised after the last key."""
    key, sample = "", dict[str, Member]()
    damage: TarDamage | None = None
    while True:
        try:
            member = next(found, None)
        except TarDamage as error:
            member, damage = None, error
        if member is None:
            break
        match = _NAME.fullmatch(member.name.removeprefix("./"))
        if _UNSAFE.search(member.name) or not is_utf8(member.name):
            rows.unsafe.append(member.name.encode(errors="surrogateescape").decode(errors="replace"))
            continue
        if match is None or match[1].rpartition("/")[2].startswith("."):
            continue
        if match[1] != key and sample:
            yield key, sample
            sample = {}
        key = match[1]
        sample.setdefault(match[2].lower(), member)
    if sample:
        yield key, sample
    if damage is not None:
        raise damage


def _add(file: BinaryIO, shard: str, img_id: str, sample: dict[str, Member], rows: _Rows) -> None:
    image = next((m for ending, m in sample.items() if f".{ending}".endswith(IMAGE_SUFFIXES)), None)
    found = _prompt(file, sample)
    if image is None:
        rows.without_image += found is not None
        return
    rows.ids.append(img_id)
    rows.uris.append(f"{shard}#{image.offset}+{image.size}")
    rows.prompts.append(found.prompt if found else None)
    rows.readers.append(found.reader if found else "")
    rows.more.append(pack(found.more) if found else "")


def _prompt(file: BinaryIO, sample: dict[str, Member]) -> Found | None:
    for ending in _TEXTS:
        text = _text(file, sample.get(ending))
        if text is None or (ending == "cls" and text.strip().lstrip("-").isdigit()):
            continue
        found = prompt_of_text(text) if ending != "json" or text.lstrip().startswith("{") else None
        if found:
            return replace(found, prompt=found.prompt.encode(errors="replace").decode())
    return None


def _text(file: BinaryIO, member: Member | None) -> str | None:
    if member is None or member.size > MAX_TEXT_BYTES:
        return None
    file.seek(member.offset)
    text = file.read(member.size).decode("utf-8-sig", errors="replace")
    return text if text.strip() else None
