"""How far predictions lie from labels, one number a column.

All raise ValueError for empty or differently shaped arrays and for values that are not finite: drop such rows before.
"""

import numpy as np
from numpy.typing import NDArray

NMAD_SCALE = 1.4826
"""Makes the median absolute deviation of a Gaussian its standard deviation."""


def rmse(y_true: NDArray[np.floating], y_pred: NDArray[np.floating]) -> float:
    """Return the root mean squared error, in the unit of the label; arrays of shape (n,)."""
    return float(np.sqrt(np.mean(_residuals(y_true, y_pred, ndim=1) ** 2)))


def pooled_rmse(y_true: NDArray[np.floating], y_pred: NDArray[np.floating]) -> float:
    """Return the root of the mean over columns of their mean squared errors; arrays of (n, m), columns of one unit."""
    return float(np.sqrt(np.mean(_residuals(y_true, y_pred, ndim=2) ** 2)))


def nmad(y_true: NDArray[np.floating], y_pred: NDArray[np.floating]) -> float:
    """Return the normalised median absolute deviation of the residuals about their own median, in the label's unit.

    The standard deviation of a Gaussian, blind to outliers and to a constant bias; arrays of shape (n,).
    """
    residuals = _residuals(y_true, y_pred, ndim=1)
    return float(NMAD_SCALE * np.median(np.abs(residuals - np.median(residuals))))


def r2(y_true: NDArray[np.floating], y_pred: NDArray[np.floating]) -> float:
    """Return one minus the residual over the total sum of squares about the mean of `y_true`; arrays of (n,).

    0 is what the mean of these very rows achieves; predicting the train mean on other rows scores slightly below. NaN
    where `y_true` is constant: it is not defined there.
    """
    residuals = _residuals(y_true, y_pred, ndim=1)
    truth = np.asarray(y_true, dtype=np.float64)
    if np.all(truth == truth[0]):
        return np.nan
    return float(1 - np.sum(residuals**2) / np.sum((truth - truth.mean()) ** 2))


def bias(y_true: NDArray[np.floating], y_pred: NDArray[np.floating]) -> float:
    """Return the mean of prediction minus truth, in the unit of the label; arrays of shape (n,)."""
    return float(np.mean(_residuals(y_true, y_pred, ndim=1)))


def _residuals(y_true: NDArray[np.floating], y_pred: NDArray[np.floating], ndim: int) -> NDArray[np.float64]:
    truth, prediction = np.asarray(y_true, dtype=np.float64), np.asarray(y_pred, dtype=np.float64)
    if truth.ndim != ndim or truth.shape != prediction.shape:
        expected = "(n,)" if ndim == 1 else "(n, m)"
        raise ValueError(
            f"expected y_true and y_pred of one shape {expected}, got {truth.shape} and {prediction.shape}"
        )
    if truth.size == 0:
        raise ValueError("y_true and y_pred are empty")
    for name, values in (("y_true", truth), ("y_pred", prediction)):
        if n_bad := np.count_nonzero(~np.isfinite(values)):
            raise ValueError(f"{name}: {n_bad} of {values.size} values are not finite")
    return prediction - truth
