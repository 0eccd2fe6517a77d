"""Prompts that are shown with predictions: the nearest ones of a bank, and those that are composed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.cache.opening import open_cache
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.devices import choose_device
from img2prompt_cache.models.recorded import load_recorded_encoder
from img2prompt_cache.prediction.bank import Bank, cached_bank, encoded_bank
from img2prompt_cache.prediction.bank_folder import load_bank
from img2prompt_cache.prediction.compose import Composer
from img2prompt_cache.progress import Callback, ignore, warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from img2prompt_cache.prediction.fitted import Fitted
    from img2prompt_cache.prediction.predictions import Predictions

BANK = "bank"
"""Folder with the prompts that a run came with."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownPrompts:
    """Prompts to show: the bank that the nearest ones are found in, and what composes them, if asked for.

    Where `mean_prediction` is there, the nearest ones are corrected for hubs.
    """

    bank: Bank
    composer: Composer | None
    mean_prediction: NDArray[np.float32] | None = None

    def show(self, batch: Predictions, top_k: int) -> Predictions:
        """Add the nearest prompts and the composed one to some predictions."""
        if top_k:
            prompts, scores = self.bank.nearest(batch.vectors, top_k, self.mean_prediction)
            batch = replace(batch, prompts=prompts, scores=scores)
        if self.composer is not None:
            composed, cosines = self.composer.compose(batch.vectors)
            batch = replace(batch, composed=composed, composed_cosines=cosines)
        return batch


def load_prompts(
    fitted: Fitted,
    home: Cache | Path | None,
    bank: str | Path | None,
    device: str,
    tell: Callback,
    *,
    compose: bool,
) -> KnownPrompts:
    """Load the prompts of a file, or of a cache.

    Parameters
    ----------
    fitted : Fitted
    home : Cache or pathlib.Path or None
        The cache.
    bank : path or None
        The file.
    device : str
    tell : callable
    compose : bool
        Whether prompts are composed, too: of both.

    Raises
    ------
    UsageError
        If there is neither.
    Img2PromptError
        If one of them cannot be read, or the encoder is not the one that made the targets.
    """
    carried = None if fitted.carried is None else fitted.carried / BANK
    if bank is None and home is None and fitted.own_bank is None and not (carried and carried.is_dir()):
        raise UsageError(
            f"{why_no_prompts(fitted)}; name prompts with `bank`, or `top_k=0`"
            + (" and no `compose`" if compose else ""),
            parameter="bank",
        )
    own = fitted.own_bank
    if own is not None:
        bank = None  # it is made of that
    elif bank is None or compose:
        if home is not None:
            own = cached_bank(open_cache(home), fitted.target)
        elif carried and carried.is_dir():
            own = load_bank(carried, fitted.target.width)
    if not compose:
        return KnownPrompts(own or encoded_bank(Path(bank or ""), fitted.target, device, tell), None)
    try:
        encoder = load_recorded_encoder(fitted.target, device=device)
    except Img2PromptError as error:
        raise type(error)(f"`compose=True` takes the text encoder of the run: {error}") from error
    given = None if bank is None else Bank.from_file(Path(bank), encoder, tell)
    banks = [each for each in (own, given) if each is not None]
    return KnownPrompts(given or banks[0], Composer(banks, encoder, device=choose_device(device), tell=tell))


def why_no_prompts(fitted: Fitted) -> str:
    """Say why there are no prompts to show: the cache is gone, or the run came without it."""
    return (
        f"the cache of the run is gone ({fitted.cache})" if fitted.cache else "the run came without prompts"
    )


def mean_for_hubs(fitted: Fitted, tell: Callback = ignore) -> NDArray[np.float32] | None:
    """Give what prompts are corrected for hubs with; None, with a note, where the run's predictions are lost.

    Hubs are prompts near to every prediction; see `numerics.hubs`.
    """
    try:
        return fitted.mean_prediction
    except Img2PromptError as error:
        warn(tell, f"the nearest prompts are not corrected for hubs: {error}")
        return None
