"""Bundles: a run with its weights and prompts, in one folder or zip file that anybody may have written.

A bundle holds what its `bundle.json` lists, file by file with size and SHA-256: ``run/``, ``bank/`` and
``weights/``. Nothing else in these folders is read, no link is followed, and nothing is unpickled. A zip file
is unpacked into a temporary folder first, which goes when the process ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from img2prompt_cache.errors import Img2PromptError, check
from img2prompt_cache.runs.typed_json import parse_json, read_as

INFO, SCHEMA = "bundle.json", 1
FOLDERS = ("run", "bank", "weights")
KINDS = ("", ".csv", ".json", ".md", ".model", ".npy", ".safetensors", ".txt")
"""Extensions of what a bundle may hold: data that is read without running code."""

MOST_FILES, MOST_INFO = 2000, 1 << 22
"""Files of a bundle, and bytes of its `bundle.json`."""
MOST_BYTES = 1 << 38
UNPACKED, RATIO = 1 << 29, 32
"""A zip file that unpacks to more than these bytes, and to more than so many times its size, is refused."""

_CHUNK = 1 << 22
_NAME = re.compile(r"(?:run|bank|weights)(?:/[A-Za-z0-9_][A-Za-z0-9._+-]{0,120}){1,6}", re.ASCII)


@dataclass(frozen=True)
class Listed:
    """A file of a bundle: its size, and the SHA-256 of its bytes."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """What `bundle.json` says."""

    schema: int
    name: str
    files: dict[str, Listed]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that was opened.

    Attributes
    ----------
    path : pathlib.Path or str
        As it was named; of a run on the Hub, its address with the commit.
    folder : pathlib.Path
        Where its files lie now.
    name : str
        Of the run.
    """

    path: Path | str
    folder: Path
    name: str


def is_bundle(path: Path) -> bool:
    """Whether a path is that of a bundle, or of a zip file that may be one."""
    try:
        return (path.suffix.lower() == ".zip" and path.is_file()) or (path / INFO).is_file()
    except OSError:
        return False


def open_bundle(path: Path) -> Bundle:
    """Check a bundle, and unpack it where it is a zip file.

    Raises
    ------
    Img2PromptError
        If it is none, of a newer version, incomplete or damaged, or holds what a bundle never holds; the
        message names the file.
    """
    try:
        if path.is_file():
            return _unpacked(path)
        contents = read_contents((path / INFO).open("rb"))
        check_folder(path, contents.files)
        return Bundle(path, path, contents.name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise Img2PromptError(f"{path} is not a bundle, or is damaged: {error}") from None
    except ValueError as error:
        raise Img2PromptError(f"{path} is not a bundle that can be used: {error}") from None
    except OSError as error:
        raise Img2PromptError(f"{path} cannot be read: {error.strerror or error}") from None


def read_contents(file: BinaryIO) -> Contents:
    """Read and check `bundle.json`, and close it.

    Raises
    ------
    ValueError
        If it does not describe a bundle.
    Img2PromptError
        If it is of a newer version.
    """
    with file:
        text = file.read(MOST_INFO + 1)
    check(len(text) <= MOST_INFO, f"{INFO} has more than {MOST_INFO:,} bytes")
    data = parse_json(text.decode("utf-8"))
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is int and schema > SCHEMA:
        raise Img2PromptError(
            f"{INFO} has schema {schema}; this version reads up to {SCHEMA}. Upgrade img2prompt-cache."
        )
    found = read_as(Contents, data)
    check(found.schema == SCHEMA, f"{INFO} has no schema")
    check(len(found.files) <= MOST_FILES, f"it lists more than {MOST_FILES:,} files")
    for name, listed in found.files.items():
        require_name(name)
        check(0 <= listed.bytes <= MOST_BYTES, f"{name} cannot have {listed.bytes} bytes")
    check("run/run.json" in found.files, "it lists no run")
    return found


def require_name(name: str) -> None:
    """Refuse a name that no file of a bundle has: it leads elsewhere, or is of a kind that can run code.

    Raises
    ------
    ValueError
    """
    check(_NAME.fullmatch(name) is not None, f"{name[:200]!r} is no name of a file in a bundle")
    check(Path(name).suffix.lower() in KINDS, f"{name} is of a kind that bundles do not hold")


def check_folder(root: Path, files: Mapping[str, Listed], linked: Path | None = None) -> None:
    """Refuse a folder that has not just these files, each with the bytes that are listed.

    Parameters
    ----------
    root : pathlib.Path
    files : mapping of str to Listed
    linked : pathlib.Path, optional
        A folder that files may be links into; no links are allowed if None.

    Raises
    ------
    ValueError
        Naming the file.
    OSError
        If one cannot be read.
    """
    for top in FOLDERS:
        check(not (root / top).is_symlink(), f"{top} is a link")
        for home, folders, names in os.walk(root / top):
            for name in (*folders, *names):
                path = Path(home, name)
                inside = path.relative_to(root).as_posix()
                if path.is_symlink():
                    led = linked is not None and path.resolve().is_relative_to(linked.resolve())
                    check(led and name in names, f"{inside} is a link")
                check(name in folders or inside in files, f"{inside} is not listed in {INFO}")
    for name, listed in files.items():
        try:
            status = (root / name).lstat() if linked is None else (root / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(f"{name} is missing") from None
        check(stat.S_ISREG(status.st_mode), f"{name} is no file")
        check(status.st_size == listed.bytes, f"{name} has {status.st_size} bytes, not {listed.bytes}")
        with (root / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        _require_digest(name, found, listed)


def _require_digest(name: str, found: str, listed: Listed) -> None:
    check(found == listed.sha256, f"{name} is not the file that was put there (its SHA-256 differs)")


def _unpacked(path: Path) -> Bundle:
    """Unpack a zip file into a temporary folder, having checked what it says of itself."""
    size = path.stat().st_size
    _require_short_directory(path)
    with zipfile.ZipFile(path) as archive:
        members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = member.filename
            kind = stat.S_IFMT(member.external_attr >> 16)
            check(kind in (0, stat.S_IFREG, stat.S_IFDIR), f"{name[:200]!r} is a link or no file")
            check(name not in members, f"{name[:200]!r} is there twice")
            check(not member.flag_bits & 1, f"{name[:200]!r} is encrypted")
            if not name.endswith("/"):
                members[name] = member
        check(INFO in members, f"it has no {INFO}")
        check(members[INFO].file_size <= MOST_INFO, f"{INFO} has more than {MOST_INFO:,} bytes")
        contents = read_contents(archive.open(members.pop(INFO)))  # type: ignore[arg-type]
        for name, member in members.items():
            check(name in contents.files, f"{name[:200]!r} is not listed in {INFO}")
            listed = contents.files[name]
            check(
                member.file_size == listed.bytes, f"{name} has {member.file_size} bytes, not {listed.bytes}"
            )
        for name in contents.files:
            check(name in members, f"{name} is missing")
        total = sum(listed.bytes for listed in contents.files.values())
        check(
            total <= max(UNPACKED, RATIO * size),
            f"it would unpack to {total / 1e6:,.0f} MB, more than {RATIO} times its size",
        )
        home = Path(tempfile.mkdtemp(prefix="img2prompt-bundle-"))
        try:
            free = shutil.disk_usage(home).free
            if total > free:
                raise Img2PromptError(
                    f"{path} unpacks to {total / 1e6:,.0f} MB, and {home.parent} has {free / 1e6:,.0f} MB "
                    "left; unpack it yourself and name the folder, or name another place in the environment "
                    "variable TMPDIR"
                )
            for name, listed in contents.files.items():
                (home / name).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(members[name]) as source, (home / name).open("xb") as target:
                    _require_digest(name, _copy(source, target, name, listed.bytes), listed)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
    opened = Bundle(path, home, contents.name)
    weakref.finalize(opened, shutil.rmtree, home, ignore_errors=True)
    return opened


def _copy(source: object, target: BinaryIO, name: str, size: int) -> str:
    """Copy so many bytes and no more; give their SHA-256."""
    total, left = hashlib.sha256(), size
    while chunk := source.read(min(_CHUNK, left + 1)):  # type: ignore[attr-defined]
        left -= len(chunk)
        check(left >= 0, f"{name} unpacks to more than {size} bytes")
        total.update(chunk)
        target.write(chunk)
    return total.hexdigest()


def _require_short_directory(path: Path) -> None:
    """Refuse a zip file whose list of members is longer than that of any bundle, before it is read."""
    with path.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    check(end is not None, "it is no zip file")
    check(int(end[4]) <= 2 * MOST_FILES and int(end[5]) <= MOST_INFO, "it lists too many files")


def dumps(name: str, weights: list[dict[str, object]], files: Mapping[str, Listed], version: str) -> bytes:
    """Write what `bundle.json` says."""
    listed = {key: {"bytes": each.bytes, "sha256": each.sha256} for key, each in sorted(files.items())}
    data = {"schema": SCHEMA, "name": name, "version": version, "weights": weights, "files": listed}
    return (json.dumps(data, indent=1) + "\n").encode("ascii")
