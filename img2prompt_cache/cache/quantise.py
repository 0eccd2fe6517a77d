"""Values in eight bits: int8 codes, with one scale for each channel of each image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


NO_CODE = -128
"""An int8 number that no value has."""


def quantise(values: NDArray[np.float16], lead: int = 1) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Quantise values to int8.

    A ViT has a few channels that are a hundred times larger than the others. With one scale for each token,
    all other channels would be rounded to zero, so each channel has its own.

    Parameters
    ----------
    values : numpy.ndarray, float16, shape (n, …, c)
        Finite.
    lead : int
        Number of leading axes along which scales differ: 1, or 2 for (n, views, …, c).

    Returns
    -------
    codes : numpy.ndarray, int8, shape of `values`
    scale : numpy.ndarray, float16, shape (first `lead` axes, c)
        No value differs from its ``codes * scale`` by more than half its scale.
    """
    wide = values.astype(np.float32)
    between = tuple(range(lead, values.ndim - 1))
    largest = np.abs(wide).max(axis=between)
    scale = (largest / 127).astype(np.float16)
    # float16 numbers below 6e-5 lie so far apart that the nearest one can be too small, or 0. All products
    # here are exact in float32, so what is compared is what will be restored.
    short = largest > 127.5 * scale.astype(np.float32)
    scale[short] = np.nextafter(scale[short], np.float16(np.inf))
    step = _spread(scale, values.ndim).astype(np.float32)
    codes = np.divide(wide, step, out=np.zeros_like(wide), where=step > 0)
    return np.clip(np.rint(codes), -127, 127).astype(np.int8), scale


def restore(codes: NDArray[np.int8], scale: NDArray[np.float16]) -> NDArray[np.float32]:
    """Compute the values that codes of `quantise` stand for: float32, shape of `codes`."""
    values: NDArray[np.float32] = np.multiply(codes, _spread(scale, codes.ndim), dtype=np.float32)
    return values


def _spread(scale: NDArray[np.float16], axes: int) -> NDArray[np.float16]:
    """Give scales the axes of the values they belong to."""
    return scale.reshape(*scale.shape[:-1], *(1,) * (axes - scale.ndim), scale.shape[-1])
