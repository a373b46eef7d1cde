"""Which features a probe uses: the alive ones, the few that predict best; and which variant stands for a method."""

import numbers
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.method_scores import with_budget
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import (
    FeatureMatrix,
    checked_labels,
    checked_table,
    column_mean_sd,
    transpose_product,
)

VALID_SCORES = {"rmse": -1, "auc": 1, "balanced_accuracy": 1}
"""Scores by which choices are made, and their signs: what is best has the largest product."""
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


def chosen_on_valid(metrics: pd.DataFrame, by: Sequence[str], among: Sequence[str]) -> pd.DataFrame:
    """Return what stands for each method: the one of its variants that scores best on valid galaxies.

    This is the one rule of every free choice among what was fitted (k, variant, number of features, probe). The score
    is the first of `VALID_SCORES` that the target has, over all label columns pooled where there are several, its mean
    over runs. A variant of which a run is missing is passed over where another has all; of equals the first stands, in
    the order of the columns `among`. Test galaxies choose nothing.

    Parameters
    ----------
    metrics : DataFrame
        `metrics.parquet` of fit-probes or rows of it: `target, column, split, metric, value, seed` and the columns
        below.
    by
        Columns of what a method is, for example `target, features, probe, budget`.
    among
        Columns that tell its variants apart, for example `k`.

    Returns
    -------
    DataFrame
        The columns `by` and `among`, a row a method that has a score on valid galaxies.
    """
    valid = metrics[(metrics["split"] == "valid") & metrics["metric"].isin(list(VALID_SCORES))]
    rank = valid["metric"].map({name: place for place, name in enumerate(VALID_SCORES)})
    valid = valid[rank == rank.groupby(valid["target"]).transform("min")]
    is_pooled = valid["column"] == "pooled"
    valid = valid[is_pooled | ~is_pooled.groupby(valid["target"]).transform("any")]
    valid = valid.assign(score=valid["value"].astype(float) * valid["metric"].map(VALID_SCORES).astype(float))
    of_variant = valid.groupby([*by, *among], dropna=False)["score"].agg(["mean", "size"]).reset_index()
    of_method = of_variant.groupby(list(by), dropna=False)
    whole = of_variant[of_variant["size"] == of_method["size"].transform("max")]
    ordered = whole.sort_values(list(among)).sort_values("mean", ascending=False, kind="stable")
    return ordered.drop_duplicates(list(by))[[*by, *among]].reset_index(drop=True)


def are_chosen(runs: pd.DataFrame, choices: pd.DataFrame) -> "pd.Series[bool]":
    """Return which runs are among the `chosen_on_valid`; missing values, as of k, are equal to each other."""

    def keys(table: pd.DataFrame) -> pd.Index:
        return pd.MultiIndex.from_arrays([table[name].map(_as_text) for name in choices])

    return pd.Series(keys(runs).isin(keys(choices)), index=runs.index)


def _as_text(value: Any) -> str:
    """A value by which runs are told apart, whatever the type of its column: 4 and 4.0 are equal, as are all NaN."""
    return "" if pd.isna(value) else f"{value:g}" if isinstance(value, numbers.Number) else str(value)


def k_at_budgets(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the k with which each name of features stands at each budget, see `chosen_on_valid`.

    Parameters
    ----------
    metrics : DataFrame
        `metrics.parquet` of fit-probes.

    Returns
    -------
    DataFrame
        `target, features, probe, budget, k`, a row each of the first four.
    """
    on_budget = with_budget(metrics[metrics["split"] == "valid"]).dropna(subset="budget")
    return chosen_on_valid(on_budget, ("target", "features", "probe", "budget"), ("k",))


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
