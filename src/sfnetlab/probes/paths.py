"""Ridge solutions of a table at every penalty: what the linear probes of values share."""

from typing import cast

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from sfnetlab.metrics.tables import CSR, Table, column_mean_sd, in_memory, is_dense, row_blocks, transpose_product


class Decomposed:
    """The train rows of a feature table, decomposed once for any labels and penalties, zero included, in float64.

    Features are scaled by their train standard deviation. Centring is implicit: the intercept is free, so that centred
    and uncentred features have the same solutions, and a CSR table stays sparse. The smaller of the d x d Gram matrix
    and the n x n kernel matrix is decomposed; constant columns get no weight.

    Attributes
    ----------
    n_rows : int
        Number of train rows.
    rank : int
        Number of directions in which the train rows vary.
    """

    def __init__(self, X: Table) -> None:
        self.mean, sd = column_mean_sd(X)
        self.scale = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
        self.kept = np.flatnonzero(sd)
        self.n_rows, d = X.shape[0], self.kept.size
        self._X = X if d == X.shape[1] else X[:, self.kept]
        self._is_gram = d <= self.n_rows
        mean, scale = self.mean[self.kept], self.scale[self.kept]
        if self._is_gram:
            self.values, self._vectors = _eigh(_gram(self._X, mean, scale))
            self.basis = self._vectors
        else:
            self.values, self._vectors = _eigh(_kernel(self._X, mean, scale))
            # labels are centred and the null space drops out: U^T Y has no part along the intercept
            weights = self._vectors - self._vectors.mean(axis=0)
            self.basis = transpose_product(self._X, weights) * scale[:, None]
        tolerance = np.finfo(np.float64).eps * max(self.n_rows, d) * self.values.max(initial=0.0)
        self.is_kept = self.values > tolerance
        self.rank = int(np.count_nonzero(self.is_kept))

    def along(self, labels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what centred labels (n, m) have along each direction, (n_directions, m)."""
        if not self._is_gram:
            return self._vectors.T @ labels
        return self._vectors.T @ (transpose_product(self._X, labels) * self.scale[self.kept, None])


class PenaltyPath:
    """Ridge solutions for the labels Y (n, m) of decomposed train rows, at any penalty."""

    def __init__(self, rows: Decomposed, Y: NDArray[np.float64]) -> None:
        self._rows = rows
        self._label_mean = Y.mean(axis=0)
        self._target = rows.along(Y - self._label_mean)

    def coefficients(self, alpha: float) -> NDArray[np.float64]:
        """Return weights (d, m) of the unscaled features at penalty alpha, as sklearn's Ridge counts it."""
        rows = self._rows
        inverse = np.divide(1.0, rows.values + alpha, out=np.zeros_like(rows.values), where=rows.is_kept)
        coef = np.zeros((rows.scale.size, self._target.shape[1]))
        coef[rows.kept] = (rows.basis @ (inverse[:, None] * self._target)) * rows.scale[rows.kept, None]
        return coef

    def intercept(self, coef: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the intercepts (..., m) that go with weights (..., d, m)."""
        return self._label_mean - self._rows.mean @ coef


def _gram(X: Table, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The product Z.T @ Z of the standardised columns Z."""
    n, d = X.shape
    if not is_dense(X) and cast("CSR", X).nnz < 0.1 * n * d:
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
    """The product Z @ Z.T of the standardised columns Z."""
    if is_dense(X):
        standardised = (in_memory(X) - mean) * scale
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
