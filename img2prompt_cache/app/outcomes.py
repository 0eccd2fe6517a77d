"""Outcomes: what a run says of an image, or why the image is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from img2prompt_cache.app.uploads import Refusal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a run says of an image.

    Attributes
    ----------
    vector : numpy.ndarray, float32, shape (t,)
        Unit norm.
    prompts : list of (str, float)
        Nearest prompts with their cosines, best first.
    expected : float or None
        The cosine that is expected with the true prompt, where the run says.
    own_prompt : str or None
        Of an image that is in the cache with a prompt: that prompt.
    """

    vector: F32
    prompts: list[tuple[str, float]]
    expected: float | None = None
    own_prompt: str | None = None


Outcome: TypeAlias = "Prediction | Refusal"
