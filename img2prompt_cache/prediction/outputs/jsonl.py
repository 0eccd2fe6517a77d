"""JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from img2prompt_cache.destination import begins_with
from img2prompt_cache.prediction.outputs.base import Columns, Prompts, Vectors, Writer, plain, records
from img2prompt_cache.prediction.outputs.text import shortest


class JsonlWriter(Writer):
    """One JSON object a line."""

    keeps_prompts = True
    keeps_columns = True

    @classmethod
    def is_ours(cls, path: Path) -> bool:
        """Compare the keys of the first line."""
        return begins_with(path, rb'\{"imgId": "(?:[^"\\]|\\.)*+", "embedding": \[')

    def _begin(self) -> None:
        self._file = self._text(self._path)

    def _append(
        self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None, columns: Columns
    ) -> None:
        for row, (name, values) in enumerate(zip(ids, shortest(vectors), strict=True)):
            parts = [f'"imgId": {_json(name)}', f'"embedding": [{", ".join(values)}]']
            parts += [f"{_json(key)}: {_json(plain(column[row]))}" for key, column in columns.items()]
            if prompts is not None:
                parts.append(f'"prompts": {_json(records(prompts[row]))}')
            self._file.write("{" + ", ".join(parts) + "}\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
