"""Losses between predicted and true embeddings, and weighted sums of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.nn import functional

from img2prompt_cache.errors import UsageError, unknown

LOSSES = ("mse", "cosine", "angular", "infonce")
SAME = 1e-6
"""Targets whose cosine is at least 1 minus this belong to the same prompt."""
SHARPEST, AT_FIRST = math.log(100.0), math.log(1 / 0.07)
"""Log of the inverse temperature: its upper bound and its first value, as in CLIP."""


def parse(text: str) -> dict[str, float]:
    """Read a loss or a weighted sum: ``"mse"``, ``"mse:1,cosine:0.5"``.

    Returns
    -------
    dict of str to float
        The weight of each loss, above 0.

    Raises
    ------
    UsageError
        If a loss is unknown or named twice, or a weight is not a number above 0.
    """
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, colon, number = (piece.strip() for piece in part.partition(":"))
        if name not in LOSSES:
            raise unknown("loss", name, LOSSES, parameter="loss")
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = 0.0
        if name in mix or not 0 < weight < math.inf:
            raise UsageError(
                f"loss {text!r}: write each loss once, with a weight above 0, e.g. mse:1,cosine:0.5",
                parameter="loss",
            )
        mix[name] = weight
    return mix


def mixed(
    mix: Mapping[str, float], pred: torch.Tensor, true: torch.Tensor, sharpness: torch.Tensor
) -> torch.Tensor:
    """Weighted sum of losses between predictions and targets.

    Parameters
    ----------
    mix : mapping of str to float
        From `parse`.
    pred, true : torch.Tensor, float32, shape (n, t)
        Predictions of any length; unit-norm targets.
    sharpness : torch.Tensor, shape ()
        See `infonce`.

    Returns
    -------
    torch.Tensor, shape ()
    """
    each = {
        "mse": lambda: functional.mse_loss(pred, true),
        "cosine": lambda: 1.0 - functional.cosine_similarity(pred, true).mean(),
        "angular": lambda: angular(pred, true),
        "infonce": lambda: infonce(pred, true, sharpness),
    }
    total = pred.new_zeros(())
    for name, weight in mix.items():
        total = total + weight * each[name]()
    return total


def angular(pred: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Mean angle between rows, in radians: arccos of their cosine.

    Computed as 2·atan2(‖u − v‖, ‖u + v‖) of the unit vectors (Kahan, "How Futile are Mindless Assessments of
    Roundoff", 2006, §12), which stays exact near 0, where arccos loses half of the digits and its slope is
    infinite.
    """
    one, other = functional.normalize(pred), functional.normalize(true)
    apart = torch.linalg.vector_norm(one - other, dim=1)
    together = torch.linalg.vector_norm(one + other, dim=1)
    return 2.0 * torch.atan2(apart, together).mean()


def infonce(pred: torch.Tensor, true: torch.Tensor, sharpness: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of finding each row's own target among those of the batch (InfoNCE).

    Logits are cosines times exp(`sharpness`), the inverse temperature, at most 100. Rows of the same prompt
    are not negatives of each other: targets whose cosine with the row's own is at least 1 − 1e-6 are left
    out.

    Parameters
    ----------
    pred, true : torch.Tensor, float32, shape (n, t)
    sharpness : torch.Tensor, shape ()
        Log of the inverse temperature; it may be learned.
    """
    one, other = functional.normalize(pred), functional.normalize(true)
    logits = (one @ other.T) * sharpness.clamp(max=SHARPEST).exp()
    same = other @ other.T >= 1.0 - SAME
    same.fill_diagonal_(fill_value=False)
    own = torch.arange(len(pred), device=pred.device)
    return functional.cross_entropy(logits.masked_fill(same, -math.inf), own)
