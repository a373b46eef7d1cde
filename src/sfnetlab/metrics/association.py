"""How strongly each feature goes with each label, one number a pair."""

from typing import cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import rankdata

from sfnetlab.metrics.tables import BLOCK_VALUES, CSR, FeatureTable, Table, checked_table


def spearman(features: FeatureTable, labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Spearman rank correlation of every feature with every label, average ranks for ties.

    Everything is ranked once for each pattern of missing labels, then a matrix product. Of a CSR table only the
    stored values are ranked: the zeros of a column are one tie.

    Parameters
    ----------
    features : ndarray or CSR of shape (n, d)
    labels : ndarray of shape (n, m)
        NaN marks a missing label: its row is left out for that label alone.

    Returns
    -------
    ndarray of shape (d, m)
        NaN where the feature or the label is constant on the rows that have the label.

    Raises
    ------
    ValueError
        If the numbers of rows differ, a feature is not finite or a label is infinite.
    """
    table, labels = checked_table(features, "features"), np.asarray(labels, dtype=np.float64)
    if labels.ndim != 2 or labels.shape[0] != table.shape[0]:
        raise ValueError(f"labels: expected shape ({table.shape[0]}, m), a row a row of features, got {labels.shape}")
    if n_infinite := np.count_nonzero(np.isinf(labels)):
        raise ValueError(f"labels: {n_infinite} of {labels.size} values are infinite; NaN marks a missing label")
    rho = np.full((table.shape[1], labels.shape[1]), np.nan)
    patterns, pattern_of_label = np.unique(~np.isnan(labels), axis=1, return_inverse=True)
    for i, known in enumerate(patterns.T):
        if known.any():
            columns = pattern_of_label == i
            rows = table if known.all() else table[known]
            rho[:, columns] = _rank_correlation(rows, labels[known][:, columns])
    return rho


def _rank_correlation(X: Table, Y: NDArray[np.float64]) -> NDArray[np.float64]:
    n, d = X.shape
    middle = (n + 1) / 2
    label_ranks = rankdata(Y, axis=0) - middle
    products, squares = np.empty((d, Y.shape[1])), np.empty(d)
    if isinstance(X, np.ndarray):
        width = max(1, BLOCK_VALUES // n)
        for start in range(0, d, width):
            columns = slice(start, start + width)
            block = rankdata(X[:, columns], axis=0) - middle
            products[columns], squares[columns] = block.T @ label_ranks, np.sum(block**2, axis=0)
    else:
        ranks = _ranks_above_zero(X)
        # the label ranks are centred, so the feature ranks need not be
        products[:] = ranks.T @ label_ranks
        raw = np.bincount(ranks.indices, weights=ranks.data**2, minlength=d)
        squares[:] = raw - np.bincount(ranks.indices, weights=ranks.data, minlength=d) ** 2 / n
        # one row apart from a tie leaves about raw / n; less is rounding
        squares[squares <= 1e-12 * raw] = 0
    norms = np.sqrt(np.outer(squares, np.sum(label_ranks**2, axis=0)))
    return np.clip(np.divide(products, norms, out=np.full_like(norms, np.nan), where=norms > 0), -1, 1)


def _ranks_above_zero(X: CSR) -> CSR:
    """Average rank of each value in its column, less the rank of the column's zeros: as sparse as the table."""
    n, d = X.shape
    by_column = X.tocsc()
    by_column.eliminate_zeros()
    column = np.repeat(np.arange(d), np.diff(by_column.indptr))
    order = np.lexsort((by_column.data, column))
    value = by_column.data[order]
    is_first = np.ones(value.size, dtype=bool)
    is_first[1:] = (value[1:] != value[:-1]) | (column[1:] != column[:-1])
    first = np.flatnonzero(is_first)
    n_tied = np.diff(np.append(first, value.size))
    position = np.repeat(first + (n_tied + 1) / 2, n_tied) - by_column.indptr[column]
    n_zero = n - np.diff(by_column.indptr)
    zero_rank = np.bincount(column[value < 0], minlength=d) + (n_zero + 1) / 2
    ranks = np.empty(value.size)
    ranks[order] = position + np.where(value > 0, n_zero[column], 0) - zero_rank[column]
    return cast("CSR", sp.csc_array((ranks, by_column.indices, by_column.indptr), shape=X.shape).tocsr())
