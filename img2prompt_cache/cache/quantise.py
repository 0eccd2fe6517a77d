"""Eight bits a value: int8 with one scale a channel and image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def quantise(values: NDArray[np.float16], lead: int = 1) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Code values in int8.

    A ViT has a few channels a hundred times larger than the rest, so a scale a token would leave the rest
    nothing; a scale a channel costs each channel only its own range.

    Parameters
    ----------
    values : numpy.ndarray, float16, shape (n, …, c)
        Finite.
    lead : int
        How many first axes have scales of their own: 1, or 2 for (n, views, …, c).

    Returns
    -------
    codes : numpy.ndarray, int8, shape of `values`
    scale : numpy.ndarray, float16, shape (first `lead` axes, c)
        ``codes * scale`` is `values` to within half a scale.
    """
    wide = values.astype(np.float32)
    between = tuple(range(lead, values.ndim - 1))
    scale = (np.abs(wide).max(axis=between) / 127).astype(np.float16)
    step = _spread(scale, values.ndim).astype(np.float32)
    codes = np.divide(wide, step, out=np.zeros_like(wide), where=step > 0)
    return np.clip(np.rint(codes), -127, 127).astype(np.int8), scale


def restore(codes: NDArray[np.int8], scale: NDArray[np.float16]) -> NDArray[np.float32]:
    """Undo `quantise`, to within half a scale: float32, shape of `codes`."""
    values: NDArray[np.float32] = np.multiply(codes, _spread(scale, codes.ndim), dtype=np.float32)
    return values


def _spread(scale: NDArray[Any], axes: int) -> NDArray[Any]:
    return scale.reshape(*scale.shape[:-1], *(1,) * (axes - scale.ndim), scale.shape[-1])
