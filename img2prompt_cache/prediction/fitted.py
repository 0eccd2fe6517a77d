"""What prediction needs of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from img2prompt_cache.data.columns import UsedColumn
    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.prediction.bank import Bank
    from img2prompt_cache.prediction.expectation import Expectation


class Fitted(Protocol):
    """What prediction needs of a run."""

    @property
    def features(self) -> tuple[UsedColumn, ...]:
        """What it was fitted on."""

    @property
    def target(self) -> UsedColumn:
        """What it predicts."""

    @property
    def cache(self) -> str:
        """Where the cache was when it was fitted."""

    @property
    def home(self) -> Path | None:
        """Where the cache is now; None where it is gone."""

    @property
    def carried(self) -> Path | None:
        """Folder with the `weights` and the `bank` that came with it; None where none did."""

    @property
    def estimator(self) -> Head:
        """The fitted head."""

    @property
    def expectation(self) -> Expectation | None:
        """What to expect of its predictions; None where the run does not say."""

    @property
    def without_expectation(self) -> str:
        """Why it does not say what to expect, where it does not."""

    @property
    def doubts(self) -> str:
        """Why what it expects says little of a single prediction; empty where it says more, or nothing."""

    @property
    def own_bank(self) -> Bank | None:
        """The prompts it was made of, to choose from; None where those are in the cache."""

    @property
    def mean_prediction(self) -> NDArray[np.float32]:
        """The mean of its unit predictions for held-out rows; an `Img2PromptError` where these are lost."""
