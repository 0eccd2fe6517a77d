"""Settings of a network on features that depend on the number of rows, where they are not given.

A penalty on the weights is needed for noise, which averages out as rows grow; the loss is a mean over rows.
So what is right for few rows keeps a network on many from learning: the weight decay of Adam is a part of the
gradient, and beside that of a squared error averaged over 384 numbers it soon is the larger part. From `MANY`
rows on it falls with the rows, as the share of dropout does, and there is a second hidden layer, because the
rows allow for more. docs/measurements.md has the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from sklearn.base import clone

if TYPE_CHECKING:
    from img2prompt_cache.heads.neural.settings import NetworkSettings

    Settings = TypeVar("Settings", bound=NetworkSettings)

FEW: Final = 2_000
"""Rows up to which penalties are what they are for few rows; beyond they fall with the rows."""
MANY: Final = 10_000
"""From so many rows on the settings for many rows apply."""
EPOCH: Final = 200_000
"""An epoch is a pass over the rows, or, where there are more than this, over an equal share of them."""
PASSES: Final = 15
"""Passes over 100,000 rows; over other numbers of rows see `passes`."""
HELD: Final = 20_000
"""Most rows that epochs and mix are chosen on: their mean cosine has a standard error of about 0.001."""


def passes(rows: int) -> float:
    """Compute how many passes over so many rows a training takes: 15 of 100,000, fewer of more.

    They fall with the fourth root of the rows: all steps together grow with rows to the power of 3/4. So ten
    times the rows take 5.6 times as long, and no row is seen less than a few times up to 10 million.
    """
    found: float = PASSES * (100_000 / rows) ** 0.25
    return found


def parts(head: NetworkSettings) -> int:
    """Count the epochs of one pass over the rows."""
    return -(-(head.rows or 1) // EPOCH)


def settle(head: Settings, n: int) -> Settings:
    """Fill in the settings of a head that are absent, for `head.rows` rows.

    Parameters
    ----------
    head : NetworkSettings
        Stays as it is. If `rows` is absent, `n` stands for it; but few rows where `epochs` is given: a number
        of epochs belongs to a network and its batches.
    n : int
        Number of rows to fit on.

    Returns
    -------
    NetworkSettings
        Its `rows` are absent where they are few.
    """
    rows = head.rows if head.rows is not None else n if head.epochs is None else 0
    if rows < MANY:
        settled: dict[str, Any] = {**head.few, "rows": None}
    else:
        settled = {**head.few, **head.many, "rows": rows}
        settled["weight_decay"] *= FEW / rows
        # The rate falls to 0 at the last epoch, and a network is best at the end of that.
        epochs = max(1, round(passes(rows) * -(-rows // EPOCH)))
        settled |= {"max_epochs": epochs, "patience": max(3, epochs // 3)}
    absent = {name: value for name, value in settled.items() if name == "rows" or getattr(head, name) is None}
    found: Settings = clone(head).set_params(**absent)
    return found
