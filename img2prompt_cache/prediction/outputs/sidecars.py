"""Sidecars: a file beside each image, with the prompt that was predicted for it."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.destination import require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.files import Replacement
from img2prompt_cache.locks import remove_leftovers
from img2prompt_cache.prediction.outputs.base import Columns, Prompts, plain, records
from img2prompt_cache.prediction.outputs.captions import CaptionWriter, one_line
from img2prompt_cache.prediction.outputs.text import chosen_prompts
from img2prompt_cache.sources.files import FileSource
from img2prompt_cache.sources.names import without_suffix
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from img2prompt_cache.sources.base import Listing, Source

KINDS = ("txt", "caption", "json")
PREDICTED = "predicted"
"""The only key of such a JSON file. Our readers of prompts look for none below it."""

_LONGEST = 1 << 20


class Sidecars:
    """Writes a file beside each image: ``a.png`` → ``a.txt``; ``a.png.txt`` if ``a.jpg`` is predicted, too.

    Each file appears as a whole, as soon as its image is predicted. Nothing that is there is replaced, unless
    `overwrite` is set; and then only what such a file looks like: one printable line of text, or JSON that
    this class wrote.

    Parameters
    ----------
    kind : str
        One of `KINDS`. ``"txt"`` and ``"caption"`` hold the prompt alone, as trainers read it.
    overwrite : bool
        Replace what is there.

    Attributes
    ----------
    places : dict of str to pathlib.Path
        The sidecar of each image, by imgId; from `expect`.
    written, kept, foreign : int
        Files so far that were written, that were there and stay, and that `overwrite` does not replace.

    Raises
    ------
    UsageError
        If there is no such kind.
    """

    def __init__(self, kind: str, *, overwrite: bool = False) -> None:
        if kind not in KINDS:
            raise unknown("`sidecar`", kind, KINDS, parameter="sidecar")
        self.kind, self._overwrite = kind, overwrite
        self.written = self.kept = self.foreign = 0
        self.places: dict[str, Path] = {}

    def expect(self, source: Source, listing: Listing) -> None:
        """Find the place of each sidecar, and check before the work that it can be written to.

        Raises
        ------
        UsageError
            If the images are no files of their own, or a folder is part of a cache or run, or not writable.
        """
        if isinstance(source, FileSource) and source.packed:
            raise UsageError(
                f"`sidecar` writes beside image files, and those of {source.root} are inside other files; "
                "write the predictions with `out`",
                parameter="sidecar",
            )
        home = source.folder if isinstance(source, FileSource) else Path(str(source.root))
        uris: list[str] = listing.table["uri"].to_pylist()
        stems = Counter(map(without_suffix, uris))
        for name, uri in zip(listing.table["imgId"].to_pylist(), uris, strict=True):
            stem = without_suffix(uri)
            self.places[name] = home / f"{stem if stems[stem] == 1 else uri}.{self.kind}"
        for folder in sorted({place.parent for place in self.places.values()}):
            require_free_place(folder / f"x.{self.kind}", "sidecar")
            if folder.is_dir() and not os.access(folder, os.W_OK):
                raise UsageError(f"`sidecar`: {folder} cannot be written to", parameter="sidecar")
            if folder.is_dir():
                remove_leftovers(folder)

    def write(self, ids: Sequence[str], prompts: Prompts | None, columns: Columns) -> None:
        """Write the sidecars of some images; arguments as for `Writer.write`.

        Raises
        ------
        Img2PromptError
            If one cannot be written.
        """
        for row, (name, (prompt, cosine)) in enumerate(
            zip(ids, chosen_prompts(len(ids), prompts, columns), strict=True)
        ):
            text = f"{one_line(prompt)}\n"
            if self.kind == "json":
                found = {"prompt": prompt, "cosine": round(cosine, 6)}
                found |= {key: plain(values[row]) for key, values in columns.items()}
                if prompts is not None:
                    found["prompts"] = records(prompts[row])
                text = json.dumps({PREDICTED: found}, ensure_ascii=False) + "\n"
            try:
                self._place(self.places[name], text)
            except OSError as error:
                raise Img2PromptError(
                    f"cannot write {self.places[name]}: {error.strerror or error}"
                ) from error

    def _place(self, path: Path, text: str) -> None:
        if os.path.lexists(path):
            if not self._overwrite:
                self.kept += 1
                return
            if not self._is_ours(path):
                self.foreign += 1
                return
        with Replacement(path, tidy=False) as new:
            new.temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
            new.commit()
        self.written += 1

    def _is_ours(self, path: Path) -> bool:
        if self.kind != "json":
            return CaptionWriter.is_ours(path)
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST:
            return False
        try:
            data = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return False
        return isinstance(data, dict) and data.keys() == {PREDICTED}

    def summary(self) -> str:
        """Say how many files were written, and how many stay as they were."""
        told = f"{counted(self.written, 'sidecar', 'sidecars')} (.{self.kind}) written beside the images"
        if self.kept:
            kept = counted(self.kept, "file that was there stays", "files that were there stay")
            told += f"; {kept}: `overwrite=True` replaces them"
        if self.foreign:
            stays = "stays" if self.foreign == 1 else "stay"
            told += f"; {counted(self.foreign, 'file', 'files')} that `predict()` did not write {stays}"
        return told
