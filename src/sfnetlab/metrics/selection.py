"""Which features a probe uses: the alive ones, the few that predict the labels best; and which k stands at a budget."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import (
    FeatureMatrix,
    checked_labels,
    checked_table,
    column_mean_sd,
    transpose_product,
)

COLLINEAR = 1e-8
"""A column of whose variance the chosen ones leave less than this share is collinear with them."""


def alive_features(X: FeatureMatrix) -> NDArray[np.intp]:
    """Return the columns of an (n, d) dense or CSR table that are not zero on some row, rising."""
    return np.flatnonzero(activation_frequency(X) > 0)


def features_of_budgets(
    X: FeatureMatrix,
    Y: NDArray[np.floating],
    alive: NDArray[np.intp],
    budgets: Sequence[int],
    *,
    is_ordered: bool,
) -> Iterator[NDArray[np.integer]]:
    """Yield the features of each budget that is smaller than the number of alive features, budget by budget.

    Parameters
    ----------
    X, Y : (n, d) and (n, m)
        Train rows, by which the best features are chosen: see `select_forward`.
    alive
        Columns that are in use.
    is_ordered
        Whether features have an order of their own, as components do: then the first are taken.
    """
    smaller = [budget for budget in budgets if budget < len(alive)]
    if not smaller:
        return
    order = alive if is_ordered else select_forward(X, Y, max(smaller))
    yield from (order[:budget] for budget in smaller if budget <= len(order))


def has_nearest_k(runs: pd.DataFrame, budget: str) -> "pd.Series[bool]":
    """Return which runs have the k nearest to their budget among those of the same features; of two, the larger.

    Parameters
    ----------
    runs : DataFrame
        `features`, `k` and the budget, a row a run.
    budget
        The column that holds how many features the run used in all.

    Returns
    -------
    Series of bool
        True also for runs without k, which have no other.
    """
    k, n = runs["k"].astype(float), runs[budget].astype(float)
    distance = (k - n).abs() - 1e-3 * (k > n)
    nearest = distance.groupby([runs["features"], n]).transform("min")
    return k.isna() | (distance == nearest)


def select_forward(X: FeatureMatrix, Y: NDArray[np.floating], n_select: int) -> NDArray[np.int64]:
    """Return the columns that greedy forward selection takes (orthogonal least squares), in the order of their choice.

    At each step the column is taken with which the linear model (with intercept) of the columns so far leaves the
    least residual sum of squares, summed over standardised targets. Ties go to the first column.

    Every column is kept implicitly orthogonal to the intercept and the chosen ones; a step costs one product of the
    table with a vector, so that a CSR table is never densified. Constant columns (`tables.CONSTANT_SPREAD`) and
    columns collinear with the chosen ones (`COLLINEAR`) are passed over.

    Parameters
    ----------
    X : ndarray or CSR of shape (n, d)
        Features; their scale does not matter.
    Y : ndarray of shape (n, m)
        Labels, any units.

    Returns
    -------
    ndarray of shape (n_select,)
        Columns in the order of their choice; shorter where no further column is left.

    Raises
    ------
    ValueError
        If shapes do not fit, `n_select` is not in [1, d], a value is not finite or a target is constant.

    References
    ----------
    Chen, Cowan & Grant 1991, IEEE Trans. Neural Networks 2, 302.
    """
    table = checked_table(X)
    n, d = table.shape
    labels = checked_labels(Y, n)
    if not 1 <= n_select <= d:
        raise ValueError(f"n_select must lie in [1, d={d}], got {n_select}")
    if constant := [column for column in range(labels.shape[1]) if np.all(labels[:, column] == labels[0, column])]:
        raise ValueError(f"Y: columns {constant} are constant, nothing predicts them")
    targets = (labels - labels.mean(axis=0)) / labels.std(axis=0)
    _, sd = column_mean_sd(table)
    total = n * sd**2
    left = total.copy()
    covariance = transpose_product(table, targets)
    basis = np.empty((min(n_select, n - 1), n))
    chosen: list[int] = []
    for q in basis:
        is_usable = left > COLLINEAR * total
        if not is_usable.any():
            break
        gain = np.divide(np.sum(covariance**2, axis=1), left, out=np.full(d, -1.0), where=is_usable)
        best = int(np.argmax(gain))
        q[:] = table[:, best] if isinstance(table, np.ndarray) else table[:, [best]].toarray()[:, 0]
        q -= q.mean()
        for _ in range(2):  # Gram-Schmidt twice is orthogonal to rounding
            q -= (basis[: len(chosen)] @ q) @ basis[: len(chosen)]
        q -= q.mean()
        q /= np.linalg.norm(q)
        # q is orthogonal to the intercept: no need to centre the table
        projection = transpose_product(table, q)
        left -= projection**2
        covariance -= np.outer(projection, q @ targets)
        left[best] = 0
        chosen.append(best)
    return np.array(chosen, dtype=np.int64)
