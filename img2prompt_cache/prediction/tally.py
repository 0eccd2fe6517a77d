"""Tallies: how many images were predicted for, and how many of these deserve a word at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.progress import Callback, note, warn
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from img2prompt_cache.prediction.predictions import Predictions


@dataclass(slots=True)
class Tally:
    """Counts of images.

    Attributes
    ----------
    used, failed : int
        Images with a prediction, and images that could not be used.
    flagged : int
        Predictions that are expected to be less near to the true prompt than was asked for.
    own : int
        Images that are in the cache, with a prompt.
    """

    used: int = 0
    failed: int = 0
    flagged: int = 0
    own: int = 0

    def add(self, batch: Predictions) -> None:
        """Count a batch."""
        self.used += len(batch.ids)
        self.failed += len(batch.failed)
        self.flagged += 0 if batch.flagged is None else int(batch.flagged.sum())
        self.own += sum(prompt is not None for prompt in batch.own_prompts or ())

    def require_some(self) -> None:
        """Check that not every image failed.

        Raises
        ------
        Img2PromptError
            If it did.
        """
        if self.failed and not self.used:
            raise Img2PromptError(
                "the one image could not be used"
                if self.failed == 1
                else f"none of the {self.failed} images could be used"
            )

    def warn_of_own(self, tell: Callback) -> None:
        """Say which part of the predictions may be for images that the head was fitted on."""
        if self.own:
            warn(
                tell,
                f"{self.own} of {counted(self.used, 'image', 'images')} {'is' if self.own == 1 else 'are'} "
                "in the cache with a prompt of their own, so "
                "the head may have been fitted on them: their predictions are no test of it",
            )

    def note_flagged(self, min_expected: float, tell: Callback, *, shown: bool) -> None:
        """Say how many predictions are flagged; `shown` says whether the output has a place for flags."""
        note(
            tell,
            f"expected to have a cosine below {min_expected:g}: {self.flagged} of "
            f"{counted(self.used, 'prediction', 'predictions')}"
            f"{'' if shown else ', which the output has no place to show'}; none is left out",
        )
