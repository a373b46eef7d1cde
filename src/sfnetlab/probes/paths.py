"""Ridge solutions of a table at every penalty: what the linear probes of values share."""

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from sfnetlab.metrics.tables import Table, column_mean_sd, row_blocks, transpose_product


class PenaltyPath:
    """Ridge solutions at any penalty, zero included, from one eigendecomposition in float64.

    Features are scaled by their train standard deviation. Centring is implicit: the intercept is free, so that centred
    and uncentred features have the same solutions, and a CSR table stays sparse. The smaller of the d x d Gram matrix
    and the n x n kernel matrix is decomposed; constant columns get no weight.

    Attributes
    ----------
    rank : int
        Number of directions in which the train rows vary.
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
        """Return weights (d, m) of the unscaled features at penalty alpha, as sklearn's Ridge counts it."""
        inverse = np.divide(1.0, self._values + alpha, out=np.zeros_like(self._values), where=self._is_kept)
        coef = np.zeros((self._scale.size, self._target.shape[1]))
        coef[self._kept] = (self._basis @ (inverse[:, None] * self._target)) * self._scale[self._kept, None]
        return coef

    def intercept(self, coef: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the intercepts (..., m) that go with weights (..., d, m)."""
        return self._label_mean - self._mean @ coef


def _gram(X: Table, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The product Z.T @ Z of the standardised columns Z."""
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
    """The product Z @ Z.T of the standardised columns Z."""
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
