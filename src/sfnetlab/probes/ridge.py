"""The probe "ridge": linear, with a penalty for each label column that is chosen on valid rows."""

import logging
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.tables import FeatureMatrix, Table, checked_table, row_slices
from sfnetlab.probes.common import checked_rows, linear_prediction
from sfnetlab.probes.paths import Decomposed, PenaltyPath

logger = logging.getLogger(__name__)

PENALTIES = np.logspace(-7, 3, 21)
"""Ridge penalties on offer, as shares of the number of train rows (features have unit variance)."""


class RidgeProbe:
    """Ridge on features of unit train variance with a free intercept; each label column has its own penalty.

    The penalty is the one of `PENALTIES` with the least squared error on the valid rows. One eigendecomposition serves
    all penalties and label columns.
    """

    coef_: NDArray[np.float64]
    """(d, m), label unit per feature unit."""
    intercept_: NDArray[np.float64]
    """(m,), label unit."""
    alpha_: NDArray[np.float64]
    """(m,), the chosen penalties as sklearn's Ridge counts them (for standardised features)."""
    is_at_edge_: NDArray[np.bool_]
    """(m,), whether the choice is the first or last on offer."""

    def fit(
        self, X: FeatureMatrix, Y: NDArray[np.floating], X_valid: FeatureMatrix, Y_valid: NDArray[np.floating]
    ) -> Self:
        """See `Probe.fit`."""
        table, labels, valid, valid_labels = checked_rows(X, Y, X_valid, Y_valid)
        return self.fit_decomposed(Decomposed(table), labels, valid, valid_labels)

    def fit_decomposed(
        self, rows: Decomposed, labels: NDArray[np.float64], valid: Table, valid_labels: NDArray[np.float64]
    ) -> Self:
        """Fit to train rows that were decomposed before, for other labels: what `fit` does with checked tables."""
        path = PenaltyPath(rows, labels)
        alphas = PENALTIES * rows.n_rows
        coefs, errors = _path_errors(path, alphas, valid, valid_labels)
        best = np.argmin(errors, axis=0)
        self.coef_ = np.stack([coefs[i][:, column] for column, i in enumerate(best)], axis=1)
        self.intercept_ = path.intercept(self.coef_)
        self.alpha_ = alphas[best]
        self.is_at_edge_ = (best == 0) | (best == alphas.size - 1)
        if rows.rank > 0 and self.is_at_edge_.any():
            logger.debug(  # where hundreds of features are read from another table, some always are
                "ridge probe: %d of %d label columns take a penalty at the edge of the grid "
                "(%g: as good as least squares; %g: next to the train mean)",
                np.count_nonzero(self.is_at_edge_),
                self.is_at_edge_.size,
                alphas[0],
                alphas[-1],
            )
        return self

    def predict(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Probe.predict`."""
        return linear_prediction(checked_table(X), self.coef_, self.intercept_)


def ridge_path(
    X: FeatureMatrix,
    Y: NDArray[np.floating],
    X_valid: FeatureMatrix,
    Y_valid: NDArray[np.floating],
    alphas: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ridge solutions for features of unit variance at every penalty, and their mean squared valid errors.

    Parameters
    ----------
    X, Y, X_valid, Y_valid
        As for `Probe.fit`.
    alphas : ndarray of shape (n_alphas,)
        Penalties as sklearn's Ridge counts them (for standardised features).

    Returns
    -------
    coefficients : ndarray of shape (n_alphas, d, m)
        Label unit per feature unit.
    errors : ndarray of shape (n_alphas, m)
        Label unit squared.
    """
    table, labels, valid, valid_labels = checked_rows(X, Y, X_valid, Y_valid)
    return _path_errors(PenaltyPath(Decomposed(table), labels), np.asarray(alphas, np.float64), valid, valid_labels)


def _path_errors(
    path: PenaltyPath, alphas: NDArray[np.float64], valid: Table, valid_labels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What `ridge_path` returns, by one pass over the valid rows, in one product for all penalties and labels."""
    coefs = np.stack([path.coefficients(alpha) for alpha in alphas])
    intercepts = path.intercept(coefs)
    side_by_side = np.concatenate(coefs, axis=1)
    squares = np.zeros(intercepts.shape)
    for rows in row_slices((valid.shape[0], max(side_by_side.shape))):
        residuals = (valid[rows].astype(np.float64) @ side_by_side).reshape(-1, *squares.shape)
        residuals += intercepts
        residuals -= valid_labels[rows][:, None, :]
        squares += np.einsum("npm,npm->pm", residuals, residuals)
    return coefs, squares / valid.shape[0]
