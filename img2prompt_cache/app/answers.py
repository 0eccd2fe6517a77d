"""Answers: what the worker found, as JSON values and files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi.responses import JSONResponse

from img2prompt_cache.app.uploads import Refusal
from img2prompt_cache.tables import printable, shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.app.gallery import Gallery
    from img2prompt_cache.app.outcomes import Outcome
    from img2prompt_cache.runs.run import Run

LONGEST_PROMPT = 4000
"""Characters of a prompt that an answer holds."""
LONGEST_ID = 255


class Ascii(JSONResponse):
    """JSON in ASCII: valid whatever a prompt or a file name holds, lone surrogates included."""

    def render(self, content: Any) -> bytes:
        """Write the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Ascii:
    """Say why a request is refused."""
    return Ascii({"detail": detail}, status, headers)


def result_of(name: str, outcome: Outcome, top_k: int = 0, *, embeddings: bool) -> dict[str, Any]:
    """Describe what is said of one image; see `schemas.ImageResult`."""
    if isinstance(outcome, Refusal):
        return {"name": name, "status": outcome.status, "error": outcome.reason}
    found: dict[str, Any] = {"name": name, "status": 200}
    if outcome.expected is not None:
        found["expected"] = outcome.expected
    if outcome.own_prompt is not None:
        found["own_prompt"] = shorten(outcome.own_prompt, LONGEST_PROMPT)
    if top_k:
        found["prompts"] = [
            {"prompt": shorten(prompt, LONGEST_PROMPT), "cosine": cosine}
            for prompt, cosine in outcome.prompts[:top_k]
        ]
    if embeddings:
        found["embedding"] = outcome.vector.tolist()
    return found


def status_of(outcomes: Sequence[Outcome], *, strict: bool = False) -> int:
    """Give the status of an answer: 200 if any image could be used; else what all have in common, or 422.

    With `strict`, it is 200 only if all could.
    """
    refused = [each.status for each in outcomes if isinstance(each, Refusal)]
    if not refused or (len(refused) < len(outcomes) and not strict):
        return 200
    return refused[0] if len({*refused}) == 1 else 422


def picture_of(gallery: Gallery, row: int) -> dict[str, Any]:
    """Describe a picture of the gallery; see `schemas.GalleryPicture`."""
    rows = gallery.rows
    return {
        "row": row,
        "id": printable(shorten(rows.ids[row], LONGEST_ID)),
        "prompt": shorten(rows.prompts[row], LONGEST_PROMPT),
    }


def run_of(run: Run, gallery: Gallery | None) -> dict[str, Any]:
    """Describe a run; see `schemas.RunInfo`."""
    return {
        "name": run.name,
        "head": run.head,
        "features": [column.spec for column in run.features],
        "target": run.target.spec,
        "width": run.target.width,
        "cosine": run.metrics["cosine"],
        "rows": run.metrics["n"],
        "created": run.created,
        "gallery": 0.0 if gallery is None else gallery.progress(run),
        "problem": "" if gallery is None else gallery.problem(run),
    }


def npy(vectors: NDArray[np.float32]) -> bytes:
    """Write an array as NumPy's file."""
    file = BytesIO()
    np.save(file, vectors, allow_pickle=False)
    return file.getvalue()
