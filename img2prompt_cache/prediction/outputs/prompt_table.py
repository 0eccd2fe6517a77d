"""A table to read, ``.prompts.csv``: for each image one prompt and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from img2prompt_cache.destination import begins_with
from img2prompt_cache.prediction.outputs.base import Columns, Prompts, Vectors, Writer
from img2prompt_cache.prediction.outputs.captions import one_line
from img2prompt_cache.prediction.outputs.text import chosen_prompts, quoted
from img2prompt_cache.tables import guard_cell

_FORMS: dict[str, Callable[[Any], str]] = {
    "expected": lambda cosine: f"{cosine:.3f}",
    "flagged": lambda flag: str(bool(flag)).lower(),
}
"""Further columns that it has, and how a value is written."""


class PromptTableWriter(Writer):
    """CSV for people: `image`, `prompt`, `similarity`, and `expected` and `flagged` where they are known.

    The prompt is the composed one or, where there is none, the nearest; `similarity` is its cosine to the
    prediction. Cosines have three decimals. Which columns there are is settled by the first rows.
    """

    keeps_prompts = True
    keeps_columns = True
    needs_prompts = True

    @classmethod
    def is_ours(cls, path: Path) -> bool:
        """Compare the header."""
        return begins_with(path, rb"image,prompt,similarity(?:,expected)?(?:,flagged)?\r?\n")

    def _begin(self) -> None:
        self._file = self._text(self._path)
        self._names: list[str] | None = None

    def _append(
        self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None, columns: Columns
    ) -> None:
        if self._names is None:
            self._write_header([name for name in _FORMS if name in columns])
        chosen = chosen_prompts(len(ids), prompts, columns)
        for row, (name, (prompt, cosine)) in enumerate(zip(ids, chosen, strict=True)):
            cells = [guard_cell(one_line(text)) for text in (name, prompt)]
            self.guarded += cells[0] != one_line(name)
            more = [_FORMS[each](columns[each][row]) for each in self._names or ()]
            self._file.write(",".join([*map(quoted, cells), f"{cosine:.3f}", *more]) + "\n")

    def _write_header(self, names: list[str]) -> None:
        self._names = names
        self._file.write(",".join(["image", "prompt", "similarity", *names]) + "\n")

    def _finish(self) -> None:
        if self._names is None:
            self._write_header([])
