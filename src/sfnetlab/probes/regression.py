"""Linear, ridge and XGBoost behind one protocol: features to labels."""

import logging
from typing import Protocol, Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from sfnetlab.metrics.tables import (
    FeatureMatrix,
    Table,
    checked_table,
    column_mean_sd,
    row_blocks,
    row_slices,
    transpose_product,
)
from sfnetlab.probes.common import checked_rows, linear_prediction, require_columns
from sfnetlab.schema import ProbeName

logger = logging.getLogger(__name__)

PENALTIES = np.logspace(-7, 3, 21)
"""Ridge penalties on offer, as shares of the number of train rows (features have unit variance)."""
MAX_ROUNDS = 500
STOP_AFTER_ROUNDS = 20
TREES = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "learning_rate": 0.1,
    "max_depth": 5,
    "max_bin": 64,
    "min_child_weight": 5,
    "subsample": 0.8,
}


class Probe(Protocol):
    """Features X, an (n, d) dense or CSR table, to labels Y, (n, m) in label units.

    Without a column that varies on the train rows (d = 0 too) every probe predicts the mean of the train labels.
    The same table gives the same predictions stored dense or CSR.
    """

    def fit(
        self, X: FeatureMatrix, Y: NDArray[np.floating], X_valid: FeatureMatrix, Y_valid: NDArray[np.floating]
    ) -> Self:
        """Fit to the train rows X, Y; choose on the valid rows. ValueError for values that are not finite."""
        ...

    def predict(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """Labels of shape (n, m), in label units."""
        ...


def make_probe(name: ProbeName, *, seed: int, n_threads: int) -> Probe:
    """The unfitted probe of that name; seed and threads concern XGBoost, the others are deterministic."""
    match name:
        case "linear":
            return LinearProbe()
        case "ridge":
            return RidgeProbe()
        case "xgboost":
            return XGBoostProbe(seed=seed, n_threads=n_threads)
        case _:
            raise ValueError(f"probe: expected 'linear', 'ridge' or 'xgboost', got {name!r}")


def fit_probe(
    name: ProbeName,
    X: FeatureMatrix,
    Y: NDArray[np.floating],
    X_valid: FeatureMatrix,
    Y_valid: NDArray[np.floating],
    *,
    seed: int,
    n_threads: int,
) -> Probe:
    """The probe of that name, fitted to the train rows X, Y with its choices made on the valid rows."""
    return make_probe(name, seed=seed, n_threads=n_threads).fit(X, Y, X_valid, Y_valid)


class LinearProbe:
    """Ordinary least squares with intercept; the valid rows are not used.

    Rank-deficient or wider than long, it takes the solution of least norm in standardised features and warns:
    with as many columns as train rows it interpolates them, and ridge is the fair probe.
    """

    coef_: NDArray[np.float64]
    """(d, m), label unit per feature unit."""
    intercept_: NDArray[np.float64]
    """(m,), label unit."""

    def fit(
        self, X: FeatureMatrix, Y: NDArray[np.floating], X_valid: FeatureMatrix, Y_valid: NDArray[np.floating]
    ) -> Self:
        """See `Probe.fit`."""
        table, labels, _, _ = checked_rows(X, Y, X_valid, Y_valid)
        path = _PenaltyPath(table, labels)
        if path.rank < table.shape[1]:
            logger.warning(
                "linear probe: %d columns but rank %d on %d train rows; taking the least-norm solution",
                table.shape[1],
                path.rank,
                table.shape[0],
            )
        self.coef_ = path.coefficients(0.0)
        self.intercept_ = path.intercept(self.coef_)
        return self

    def predict(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Probe.predict`."""
        return linear_prediction(checked_table(X), self.coef_, self.intercept_)


class RidgeProbe:
    """Ridge on features of unit train variance with a free intercept; each label column has its own penalty.

    The penalty is the one of `PENALTIES` with the least squared error on the valid rows. One eigendecomposition serves
    all penalties and labels.
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
        path = _PenaltyPath(table, labels)
        alphas = PENALTIES * table.shape[0]
        coefs, errors = _path_errors(path, alphas, valid, valid_labels)
        best = np.argmin(errors, axis=0)
        self.coef_ = np.stack([coefs[i][:, column] for column, i in enumerate(best)], axis=1)
        self.intercept_ = path.intercept(self.coef_)
        self.alpha_ = alphas[best]
        self.is_at_edge_ = (best == 0) | (best == alphas.size - 1)
        if path.rank > 0 and self.is_at_edge_.any():
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


class XGBoostProbe:
    """Boosted trees, one ensemble a label column, stopped where the valid rows no longer gain.

    A value of zero is XGBoost's "missing", in dense and CSR tables alike: how a table is stored changes nothing, and
    sparse ones stay sparse. The same seed, number of threads and machine give the same trees.
    """

    n_rounds_: list[int]
    """Trees in use for each label column."""

    def __init__(self, *, seed: int, n_threads: int) -> None:
        self.seed = seed
        self.n_threads = n_threads

    def fit(
        self, X: FeatureMatrix, Y: NDArray[np.floating], X_valid: FeatureMatrix, Y_valid: NDArray[np.floating]
    ) -> Self:
        """See `Probe.fit`."""
        import xgboost

        table, labels, valid_table, valid_labels = checked_rows(X, Y, X_valid, Y_valid)
        # XGBoost computes in float32: standardised labels lose nothing, whatever their unit
        self._mean, self._sd = labels.mean(axis=0), labels.std(axis=0)
        self._n_columns = table.shape[1]
        self._boosters: list[xgboost.Booster] = []
        self.n_rounds_ = []
        if np.all(column_mean_sd(table)[1] == 0):
            return self
        unit = np.where(self._sd > 0, self._sd, 1)
        storage = {"missing": 0.0, "max_bin": TREES["max_bin"], "nthread": self.n_threads}
        train = xgboost.QuantileDMatrix(table, **storage)
        valid = xgboost.QuantileDMatrix(valid_table, **storage, ref=train)
        for column in range(labels.shape[1]):
            train.set_label((labels[:, column] - self._mean[column]) / unit[column])
            valid.set_label((valid_labels[:, column] - self._mean[column]) / unit[column])
            booster = xgboost.train(
                {**TREES, "seed": self.seed, "nthread": self.n_threads},
                train,
                num_boost_round=MAX_ROUNDS,
                evals=[(valid, "valid")],
                early_stopping_rounds=STOP_AFTER_ROUNDS,
                verbose_eval=False,
            )
            self.n_rounds_.append(booster.best_iteration + 1)
            self._boosters.append(booster)
        return self

    def predict(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Probe.predict`."""
        import xgboost

        table = checked_table(X)
        require_columns(table, self._n_columns)
        if not self._boosters:
            return np.tile(self._mean, (table.shape[0], 1))
        rows = xgboost.DMatrix(table, missing=0.0, nthread=self.n_threads)
        columns = [
            booster.predict(rows, iteration_range=(0, n_rounds))
            for booster, n_rounds in zip(self._boosters, self.n_rounds_, strict=True)
        ]
        return np.stack(columns, axis=1).astype(np.float64) * self._sd + self._mean


def ridge_path(
    X: FeatureMatrix,
    Y: NDArray[np.floating],
    X_valid: FeatureMatrix,
    Y_valid: NDArray[np.floating],
    alphas: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ridge of unit-variance features at every penalty, and the mean squared errors on the valid rows.

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
    return _path_errors(_PenaltyPath(table, labels), np.asarray(alphas, np.float64), valid, valid_labels)


def _path_errors(
    path: "_PenaltyPath", alphas: NDArray[np.float64], valid: Table, valid_labels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`ridge_path` of a path: one pass over the valid rows, in one product, for all penalties and labels."""
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


class _PenaltyPath:
    """Ridge solutions at any penalty, zero included, from one eigendecomposition in float64.

    Features are scaled by their train standard deviation. Centring is implicit: the intercept is free, so that centred
    and uncentred features have the same solutions, and a CSR table stays sparse. Decomposed is the smaller of the
    d x d Gram matrix and the n x n kernel matrix; constant columns get no weight.
    """

    def __init__(self, X: Table, Y: NDArray[np.float64]) -> None:
        self._mean, sd = column_mean_sd(X)
        self._scale = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
        self._label_mean = Y.mean(axis=0)
        self._kept = np.flatnonzero(sd)
        labels = Y - self._label_mean
        n, d = X.shape[0], self._kept.size
        if d != X.shape[1]:
            X = X[:, self._kept]
        mean, scale = self._mean[self._kept], self._scale[self._kept]
        if d <= n:
            self._values, vectors = _eigh(_gram(X, mean, scale))
            self._basis = vectors
            self._target = vectors.T @ (transpose_product(X, labels) * scale[:, None])
        else:
            self._values, vectors = _eigh(_kernel(X, mean, scale))
            # labels are centred and the null space drops out: U^T Y has no part along the intercept
            weights = vectors - vectors.mean(axis=0)
            self._basis = transpose_product(X, weights) * scale[:, None]
            self._target = vectors.T @ labels
        tolerance = np.finfo(np.float64).eps * max(n, d) * self._values.max(initial=0.0)
        self._is_kept = self._values > tolerance
        self.rank = int(np.count_nonzero(self._is_kept))

    def coefficients(self, alpha: float) -> NDArray[np.float64]:
        """(d, m) weights of the unscaled features at penalty alpha (sklearn's Ridge); 0 is least squares."""
        inverse = np.divide(1.0, self._values + alpha, out=np.zeros_like(self._values), where=self._is_kept)
        coef = np.zeros((self._scale.size, self._target.shape[1]))
        coef[self._kept] = (self._basis @ (inverse[:, None] * self._target)) * self._scale[self._kept, None]
        return coef

    def intercept(self, coef: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., m) intercepts that go with weights (..., d, m)."""
        return self._label_mean - self._mean @ coef


def _gram(X: Table, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Z.T @ Z of the standardised columns Z."""
    n, d = X.shape
    if not isinstance(X, np.ndarray) and X.nnz < 0.1 * n * d:
        scaled = X.astype(np.float64) @ sp.diags_array(scale)
        gram = (scaled.T @ scaled).toarray()
        gram -= n * np.outer(mean * scale, mean * scale)
        return gram
    gram = np.zeros((d, d))
    for _, block in row_blocks(X):
        block -= mean
        block *= scale
        gram += block.T @ block
    return gram


def _kernel(X: Table, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Z @ Z.T of the standardised columns Z."""
    if isinstance(X, np.ndarray):
        standardised = (X - mean) * scale
        return standardised @ standardised.T
    scaled = X.astype(np.float64) @ sp.diags_array(scale)
    kernel = (scaled @ scaled.T).toarray()
    kernel -= kernel.mean(axis=0)
    kernel -= kernel.mean(axis=1, keepdims=True)
    return kernel


def _eigh(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if matrix.size == 0:
        return np.zeros(0), np.zeros((0, 0))
    values, vectors = scipy.linalg.eigh(matrix, overwrite_a=True, check_finite=False, driver="evd")
    return np.asarray(values), np.asarray(vectors)
