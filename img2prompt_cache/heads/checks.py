"""What every head asks of its settings, its input and its saved arrays before it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_array

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.data.feature_blocks import width
from img2prompt_cache.errors import DataError, Img2PromptError, UsageError, unknown
from img2prompt_cache.numerics.disk_array import release
from img2prompt_cache.numerics.row_blocks import BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.base import BaseEstimator

    Features = NDArray[np.float32]
    Targets = NDArray[np.float32]
    Groups = NDArray[np.int64]


def require(head: Any, setting: str, fits: bool, wanted: str) -> None:
    """Check the value of a setting.

    Parameters
    ----------
    head : estimator
    setting : str
    fits : bool
        Whether the value is in its range.
    wanted : str
        The range: ``"at least 0"``.

    Raises
    ------
    UsageError
        Naming the head, the setting and the range, if it is not.
    """
    if not fits:
        value = getattr(head, setting)
        raise UsageError(
            f"setting {setting!r} of head {head.name!r} must be {wanted}, not {value}", parameter=setting
        )


def positive(head: Any, setting: str) -> None:
    """Check a setting of one number or several: each finite and above 0, or None.

    Raises
    ------
    UsageError
        If one is not.
    """
    values = np.asarray([] if getattr(head, setting) is None else getattr(head, setting), np.float64)
    require(head, setting, bool(((values > 0) & (values < np.inf)).all()), "finite and above 0")


def one_per(head: Any, setting: str, count: int, what: str) -> NDArray[np.float64] | None:
    """Give a setting of one number, or one for each of `count` things, as `count` numbers; None if absent.

    Raises
    ------
    UsageError
        If there are more or fewer.
    """
    value = getattr(head, setting)
    if value is None:
        return None
    values = np.atleast_1d(np.asarray(value, np.float64))
    require(head, setting, len(values) in (1, count), f"one number, or one for each of {count} {what}")
    return np.broadcast_to(values, count).copy()


def require_one_of(head: Any, setting: str, valid: Sequence[str]) -> None:
    """Check that the value of a setting is one of some words.

    Raises
    ------
    UsageError
        Naming the nearest valid words, if it is not.
    """
    value = getattr(head, setting)
    if value not in valid:
        raise unknown(
            "value", value, valid, where=f"of setting {setting!r} of head {head.name!r}", parameter=setting
        )


def features(X: Any, head: BaseEstimator, what: str = "features") -> Features:
    """Check features and give them as float32, shape (n, p); without a copy where they are that already.

    Messages call them `what`.

    Raises
    ------
    DataError
        If they are no matrix of finite real numbers.
    TypeError
        If they are sparse, or an element is no number.
    """
    return finite(what, _array(X, head, input_name="X"))


def targets(y: Any, head: BaseEstimator, what: str = "targets") -> Targets:
    """Check targets and give them as float32, shape (n, t).

    Messages call them `what`.

    Raises
    ------
    DataError, TypeError
        As `features`.
    """
    if y is None:
        raise DataError(f"{head.name} requires y to be passed, but the target y is None")
    array = _array(y, head, input_name="y", ensure_2d=False)
    if array.ndim != 2:
        raise DataError(
            f"y has shape {array.shape}, but each target is a vector: give a matrix with as many rows as X, "
            "or y.reshape(-1, 1) if each target is a number"
        )
    return finite(what, array)


def rows(
    X: Any, y: Any, groups: Any | None, widths: Sequence[int] | None, head: BaseEstimator
) -> tuple[Targets, Groups, tuple[int, ...]]:
    """Check the other arguments of `Head.fit` against `X` (n, …), and fill in the absent ones.

    Returns
    -------
    y : numpy.ndarray, float32, shape (n, t)
    groups : numpy.ndarray, int64, shape (n,)
        Each row its own where there were none.
    widths : tuple of int
        The number of values of a row of `X` where there were none.

    Raises
    ------
    DataError, TypeError
        If they do not fit each other, there are no rows, or a target is not finite.
    """
    if not isinstance(y, ColumnRows):  # what is read later is checked then
        y = targets(y, head)
    if len(X) != len(y):
        raise DataError(f"features {X.shape} and targets {y.shape} must have the same number of rows")
    if len(X) == 0:
        raise DataError("there are no pairs to fit a head on: 0 samples")
    groups = np.arange(len(X)) if groups is None else np.asarray(groups)
    widths = (width(X),) if widths is None else tuple(widths)
    if groups.shape != (len(X),) or sum(widths) != width(X) or min(widths) < 1:
        raise DataError(f"groups {groups.shape} and widths {widths} do not fit features {X.shape}")
    return y, groups, widths


def kinds(kinds: Any | None, n: int) -> Groups:
    """Check the kinds of n rows: 0 for rows like those that will be predicted, 1, 2, … for extra rows.

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
        All 0 where there are none.

    Raises
    ------
    DataError
        If they are not n whole numbers, at least 0, with none left out up to the largest.
    """
    if kinds is None:
        return np.zeros(n, np.int64)
    found = np.asarray(kinds)
    whole = found.shape == (n,) and found.dtype.kind in "iu"
    if not whole or not np.array_equal(np.unique(found), np.arange(found.max() + 1)):
        raise DataError(f"`kinds` must be {n} numbers 0, 1, 2, …, one for each row, with a row for each kind")
    return found.astype(np.int64)


def more_rows(X: Any, y: Any, like: tuple[Any, Targets], head: BaseEstimator, what: str = "targets") -> Any:
    """Check the targets of checked features `X`, and that both are as wide as others; give the targets.

    Parameters
    ----------
    X : shape (m, …)
    y : array-like or ColumnRows, shape (m, t)
        What is read later is checked then.
    like : pair of (features, targets), shapes (n, …) and (n, t)
        The rows that the head is fitted on.
    head : Head
    what : str
        Messages call the targets so.

    Raises
    ------
    DataError, TypeError
        If they do not fit each other or the others, or a target is not finite.
    """
    checked = y if isinstance(y, ColumnRows) else targets(y, head, what)
    fitted, true = like
    if len(X) != len(checked) or X.shape[1:] != fitted.shape[1:] or checked.shape[1:] != true.shape[1:]:
        raise DataError(
            f"features {X.shape} and {what} {checked.shape} do not fit each other, or not the features "
            f"{fitted.shape} and targets {true.shape} that the head is fitted on"
        )
    return checked


def same_width(X: Any, head: BaseEstimator) -> None:
    """Check that features have as many columns as those that a head was fitted on.

    Raises
    ------
    DataError
        In scikit-learn's words.
    """
    if width(X) != head.n_features_in_:
        raise DataError(
            f"X has {width(X)} features, but {type(head).__name__} is expecting "
            f"{head.n_features_in_} features as input"
        )


def finite(what: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Give `values` as float32, having checked that each is finite.

    Raises
    ------
    DataError
        Naming `what` and the first bad row.
    """
    require_finite(what, values)
    return np.asarray(values, np.float32)


def require_finite(what: str, values: NDArray[Any]) -> None:
    """Check that each of `values` is finite in float32.

    Raises
    ------
    DataError
        Naming `what` and the first bad row.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values if values.dtype in (np.float16, np.float32) else values.astype(np.float32)
        # A float64 sum of float32 values cannot overflow, so it is finite exactly when they all are.
        if np.isfinite(np.sum(narrow, dtype=np.float64)):
            return
    row = int(np.flatnonzero(~np.isfinite(narrow).all(axis=tuple(range(1, narrow.ndim))))[0])
    if np.isfinite(values[row]).all():
        raise DataError(f"{what} hold a value that is infinite in float32, first in row {row}; scale them")
    raise DataError(
        f"{what} hold NaN or infinity, first in row {row}; `verify()` tells whether the cache is damaged, "
        "`extract()` makes one anew"
    )


def saved_array(state: Mapping[str, NDArray[Any]], name: str, *shape: int | None) -> NDArray[Any]:
    """Give one array of a head's saved state.

    Parameters
    ----------
    state : mapping of str to numpy.ndarray
    name : str
    *shape : int or None
        The shape it must have; None where any width will do.

    Raises
    ------
    Img2PromptError
        If it is missing, has another shape or holds NaN or infinity.
    """
    if name not in state:
        raise Img2PromptError(f"the saved head lacks {name!r}; fit it again")
    array = state[name]
    fits = array.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits or not _all_finite(array):
        raise Img2PromptError(
            f"the saved head's {name!r}, {array.dtype} {array.shape}, is not what was fitted; fit it again"
        )
    return array


def _all_finite(array: NDArray[Any]) -> bool:
    """Check a saved array, some rows at a time: of one that is memory-mapped no more is in memory."""
    for start in range(0, len(array), BLOCK):
        if not np.isfinite(np.sum(array[start : start + BLOCK], dtype=np.float64)):
            return False
        release(array)
    return True


def _array(values: Any, head: BaseEstimator, **options: Any) -> NDArray[Any]:
    """Convert what is like an array; refuse what is sparse, complex or text."""
    try:
        array: NDArray[Any] = check_array(
            values, ensure_all_finite=False, ensure_min_samples=0, estimator=head, **options
        )
    except ValueError as error:
        raise DataError(str(error)) from None
    return array
