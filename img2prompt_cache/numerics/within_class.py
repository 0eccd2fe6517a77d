"""Within-class covariance normalisation of a kernel, from inner products of rows alone.

Rows of one class, such as images of one prompt, differ in directions that say nothing of the class. With the
covariance W of rows about the means of their classes, x̃ = (W + λI)^(−1/2) x discounts these (A. O. Hatch, S.
Kajarekar and A. Stolcke, "Within-class covariance normalization for SVM-based speaker recognition",
Interspeech 2006). Let R be the rows less the means of their classes, so that W = R'R / m with m degrees of
freedom. By Woodbury's identity

    λ x̃·ỹ = x·y − (Rx)' (mλI + RR')⁻¹ (Ry),

so W, which is as wide as the features, is never formed. Rows that are the only ones of their class have no
part in it. In shapes, n is the number of training rows and k that of those whose class has several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from img2prompt_cache.numerics.gram import cholesky
from img2prompt_cache.numerics.kernel_ridge import centre_kinds, fit_exact
from img2prompt_cache.numerics.metrics import cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    F64 = NDArray[np.float64]
    Floats = NDArray[np.floating]
    Ints = NDArray[np.int64]

SHRINKAGE = 0.03
"""λ as a share of the trace of W."""


@dataclass(frozen=True, slots=True, eq=False)
class Normalisation:
    """What discounts the variation within classes.

    Attributes
    ----------
    members : numpy.ndarray, int64, shape (k,)
        The training rows whose class has several.
    root : numpy.ndarray, float32, shape (k, k)
        T with λ x̃·ỹ = x·y − (T m_x)·(T m_y), where m_x holds the inner products of x with the members.
    projected : numpy.ndarray, float32, shape (n, k)
        T m_x of each training row.
    lengths : numpy.ndarray, float32, shape (n,)
        √λ |x̃| of each training row.
    """

    members: Ints
    root: F32
    projected: F32
    lengths: F32

    def kernel(self, products: F32, squares: F32, total: float) -> F32:
        """Compute the kernel values exp(g (cos(x̃, ỹ) − 1)) of new rows with the training rows.

        Parameters
        ----------
        products : numpy.ndarray, float32, shape (m, n)
            Inner products of the new rows with the training rows.
        squares : numpy.ndarray, float32, shape (m,)
            Of the new rows with themselves.
        total : float
            g.

        Returns
        -------
        numpy.ndarray, float32, shape (m, n), in 0…1
        """
        projected = products[:, self.members] @ self.root.T
        lengths = _lengths(squares, projected)
        values: F32 = np.subtract(products, projected @ self.projected.T, dtype=np.float32)
        values /= lengths[:, None]
        values /= self.lengths
        values -= np.float32(1)
        values *= np.float32(total)
        return np.exp(values, out=values)


def fit_normalisation(products: Floats, classes: Ints) -> Normalisation | None:
    """Find what discounts the variation within classes.

    Parameters
    ----------
    products : numpy.ndarray, shape (n, n)
        Inner products of the training rows.
    classes : numpy.ndarray, int64, shape (n,)

    Returns
    -------
    Normalisation, or None where rows of one class do not differ, or no class has several
    """
    _, number, size = np.unique(classes, return_inverse=True, return_counts=True)
    members = np.flatnonzero(size[number] > 1)
    if not len(members):
        return None
    _, own, count = np.unique(number[members], return_inverse=True, return_counts=True)
    centred = _centre(products[np.ix_(members, members)].astype(np.float64), own, count)
    within = _centre(np.ascontiguousarray(centred.T), own, count)
    trace = float(np.trace(within))
    if trace <= 1e-9 * float(np.trace(products)):
        return None
    # m λ = m · SHRINKAGE · tr(RR') / m
    lower, _ = cholesky(within, SHRINKAGE * trace, lower=True)
    # T is L⁻¹ C, where C subtracts the means and LL' = mλI + RR'.
    centring = _centre(np.eye(len(members)), own, count)
    root = linalg.solve_triangular(lower, centring, lower=True, overwrite_b=True, check_finite=False)
    root32: F32 = root.astype(np.float32)
    projected: F32 = products[:, members].astype(np.float32) @ root32.T
    return Normalisation(members, root32, projected, _lengths(np.diagonal(products), projected))


def held_out_gain(
    products: Floats, y: F64, fold: Ints, kinds: Ints, classes: Ints, *, total: float, alpha: F64
) -> F64:
    """Compute how much the normalisation raises the cosine of rows that it was not fitted on.

    Parameters
    ----------
    products : numpy.ndarray, float32, shape (n, n)
        Inner products of the rows, each of squared length `total` or 0.
    y : numpy.ndarray, float64, shape (n, t)
        Unit targets.
    fold, kinds : numpy.ndarray, int64, shape (n,)
        As for `kernel_ridge.search`.
    classes : numpy.ndarray, int64, shape (n,)
    total : float
        Sum of the gains.
    alpha : numpy.ndarray, float64, shape (k,)
        Penalty of each kind.

    Returns
    -------
    numpy.ndarray, float64, shape (n,)
        The difference for each held-out row; 0 for rows that are only fitted on.
    """
    gain = np.zeros(len(y))
    for number in np.unique(fold[fold >= 0]):
        held, train = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        inner, outer = products[np.ix_(train, train)], products[np.ix_(held, train)]
        found = fit_normalisation(inner, classes[train])
        if found is None:
            continue
        mean, centred = centre_kinds(y[train], kinds[train])
        squares, new = np.diagonal(inner), np.diagonal(products)[held]
        for sign, within, across in (
            (-1, np.exp(inner - total), np.exp(outer - total)),
            (1, found.kernel(inner, squares, total), found.kernel(outer, new, total)),
        ):
            dual = fit_exact(within, centred, alpha[kinds[train]])
            gain[held] += sign * cosine(across @ dual + mean, y[held])
    return gain


def _centre(values: F64, own: Ints, count: Ints) -> F64:
    """Subtract from each row the mean of its class."""
    sums = np.zeros((len(count), values.shape[1]))
    np.add.at(sums, own, values)
    return values - (sums / count[:, None])[own]


def _lengths(squares: Floats, projected: F32) -> F32:
    """Give √(x·x − |T m_x|²), 1 for a row of zeros."""
    left = squares - np.einsum("ij,ij->i", projected, projected)
    found: F32 = np.sqrt(np.where(left > 0, left, 1)).astype(np.float32)
    return found
