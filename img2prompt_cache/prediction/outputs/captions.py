"""Captions: a folder with a text file for each image, as kohya's trainers and ComfyUI read them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from unicodedata import category

from img2prompt_cache.destination import require_free_place
from img2prompt_cache.errors import UsageError
from img2prompt_cache.files import Replacement, sync_folder
from img2prompt_cache.prediction.outputs.base import Columns, Prompts, Vectors, Writer
from img2prompt_cache.sources.names import without_suffix
from img2prompt_cache.tables import printable, shorten

_LONGEST = 1 << 20
"""Bytes of the longest file that is taken for a caption and may be replaced."""

_RESERVED = '<>:"|?*\\' if os.name == "nt" else ""


def caption_name(name: str) -> str:
    """Name the caption of an image, relative to the folder: ``a/b`` and ``a/b.png`` → ``a/b.txt``.

    The name stays below the folder, whatever the imgId: ``..``, ``.`` and a leading ``/`` are left out, and
    what cannot stand in a name becomes ``_``.
    """
    parts = [_clean(part) for part in without_suffix(name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts or ["_"]) + ".txt"


def _clean(part: str) -> str:
    kept = "".join("_" if category(each) in ("Cc", "Cs") or each in _RESERVED else each for each in part)
    if os.name == "nt":
        kept = kept.rstrip(" .") or "_"
    # A folder that is named like a temporary one would be removed by the next command that writes here.
    return f"_{kept}" if kept.startswith(".") and kept.endswith(".tmp") else kept


def one_line(prompt: str) -> str:
    """Write a prompt as one printable line: white space as single spaces, control characters escaped."""
    return printable(" ".join(prompt.split()))


class CaptionWriter(Writer):
    """For each image a text file with its composed prompt or, where there is none, the nearest one.

    All files are written to a temporary folder first. A new folder appears as a whole; in one that was there
    already, each file is the old or the new one.

    Parameters
    ----------
    path : pathlib.Path
        The folder; it is made if it is not there.
    dim : int
        Width of the embeddings.
    overwrite : bool
        Replace captions: regular files that hold one printable line of text. No other file is replaced.
    inputs : iterable of path, optional
        Files that are read meanwhile; none of them is replaced.

    Raises
    ------
    UsageError
        If the folder cannot be made or written to, is a file, or lies in a cache or run.
    """

    keeps_prompts = True
    needs_prompts = True

    def __init__(
        self, path: Path, dim: int, *, overwrite: bool = False, inputs: Iterable[str | Path] = ()
    ) -> None:
        super().__init__(path, dim)
        self._overwrite = overwrite
        self._inputs = set[tuple[int, int]]()
        for each in inputs:
            with suppress(OSError, ValueError):
                found = Path(each).stat()
                self._inputs.add((found.st_dev, found.st_ino))
        self._checked: Path | None = None
        require_free_place(path / "x.txt", "out")
        if os.path.lexists(path) and not path.is_dir():
            raise self._refusal(" is no folder; name one for the captions")
        if not path.parent.is_dir():
            raise self._refusal(f": the folder {path.parent} does not exist; make it first")
        try:
            self._staging().discard()
        except OSError as error:
            raise self._refusal(f" cannot be written to: {error.strerror}; name another folder") from error

    @classmethod
    def is_ours(cls, path: Path) -> bool:
        """Check for one printable line of UTF-8 in a regular file; captions have no header."""
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST:
            return False
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            return False
        return not text or text == f"{one_line(text)}\n"

    def expect(self, ids: Iterable[str]) -> None:
        """Refuse two images of one caption, and a file that is in the way."""
        names = set[str]()
        for each in ids:
            inside = caption_name(each)
            if inside in names:
                raise self._twice(each, inside)
            names.add(inside)
            if not self._new_folder:
                self._require_free(self._path / inside)

    def _staging(self) -> Replacement:
        """Make the temporary folder on the same file system: beside the folder, or in it if it is there."""
        self._new_folder = not os.path.lexists(self._path)
        return Replacement(self._path if self._new_folder else self._path / "captions", folder=True)

    def _reserve(self) -> None:
        self._new[self._path] = self._staging()

    def _begin(self) -> None:
        pass

    def _append(
        self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None, columns: Columns
    ) -> None:
        composed = columns.get("composed")
        if composed is None and (prompts is None or not all(prompts)):
            raise self._refusal(
                ": captions are prompts, and there are none; give `top_k` of 1 or more, or `compose=True`"
            )
        for row, name in enumerate(ids):
            self._stage(name, composed[row] if composed is not None else (prompts or ())[row][0][0])

    def _stage(self, name: str, prompt: str) -> None:
        inside = caption_name(name)
        staged = self._new[self._path].temporary / inside
        try:
            staged.parent.mkdir(parents=True, exist_ok=True)
            with staged.open("x", encoding="utf-8", newline="\n") as file:
                file.write(f"{one_line(prompt)}\n")
        except (FileExistsError, NotADirectoryError):
            raise self._twice(name, inside) from None
        if not self._new_folder:
            self._require_free(self._path / inside)

    def _require_free(self, final: Path) -> None:
        """Refuse a file that is there, unless it is a caption and may be replaced; no link is followed."""
        if final.parent != self._checked:
            for folder in final.relative_to(self._path).parents:
                inner = self._path / folder
                if (
                    inner != self._path
                    and os.path.lexists(inner)
                    and (inner.is_symlink() or not inner.is_dir())
                ):
                    raise self._refusal(f": {inner} is no folder, or a link; remove it first")
            require_free_place(final, "out")
            self._checked = final.parent
        try:
            found = final.lstat()
        except FileNotFoundError:
            return
        if not self._overwrite:
            raise self._refusal(f": {final} exists; give `overwrite=True` to replace it, or another folder")
        if (found.st_dev, found.st_ino) in self._inputs:
            raise self._refusal(f": {final} is a file that is read; name another folder")
        if not self.is_ours(final):
            raise self._refusal(
                f": {final} is no caption (one line of text), so nothing replaces it; name another folder, "
                "or remove it first"
            )

    def _commit(self) -> None:
        staging = self._new[self._path]
        staging.flush()
        if self._new_folder:
            staging.temporary.rename(self._path)  # fails if a folder with files has been made meanwhile
            sync_folder(self._path.parent)
            return
        self._checked = None
        for _, final in self._pairs(staging.temporary):
            self._require_free(final)
        touched: Path | None = None
        for staged, final in self._pairs(staging.temporary):
            if touched not in (None, final.parent):
                sync_folder(touched)
            touched = final.parent
            touched.mkdir(parents=True, exist_ok=True)
            staged.replace(final)
        if touched is not None:
            sync_folder(touched)

    def _pairs(self, top: Path) -> Iterator[tuple[Path, Path]]:
        """Give every new file with its final place, folder by folder."""
        for folder, _, names in os.walk(top):
            for name in names:
                staged = Path(folder) / name
                yield staged, self._path / staged.relative_to(top)

    def _twice(self, name: str, inside: str) -> UsageError:
        return self._refusal(
            f": two images would write {inside}, the second one is {shorten(printable(name))}; rename one of "
            "them, or predict them into two folders"
        )

    def _refusal(self, why: str) -> UsageError:
        return UsageError(f"`out` {self._path}{why}", parameter="out")
