"""How many features a table uses, for each galaxy and in all. A feature is active where its value is not zero."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.tables import CSR, FeatureMatrix, checked_table, is_dense, row_slices


def activation_frequency(features: FeatureMatrix) -> NDArray[np.float64]:
    """Return the share of the rows of (n, d) features, dense or CSR, on which each feature is active; shape (d,)."""
    table = checked_table(features, "features")
    n, d = table.shape
    if n == 0:
        raise ValueError("features: expected at least one row, got none")
    if is_dense(table):
        counts = sum(
            (np.count_nonzero(np.asarray(table[rows]), axis=0) for rows in row_slices(table.shape)), np.zeros(d)
        )
    else:  # a CSR may store zeros: count values, not entries
        sparse = cast("CSR", table)
        counts = np.bincount(sparse.indices[sparse.data != 0], minlength=d)
    return counts / n


def l0(features: FeatureMatrix) -> NDArray[np.int64]:
    """Return the number of active features of each row of (n, d) features, dense or CSR; shape (n,)."""
    table = checked_table(features, "features")
    if not isinstance(table, np.ndarray):
        n_before = np.concatenate([[0], np.cumsum(table.data != 0)])
        return np.diff(n_before[table.indptr])
    return np.concatenate(
        [np.zeros(0, np.int64), *(np.count_nonzero(table[rows], axis=1) for rows in row_slices(table.shape))]
    )


def n_alive(frequency: NDArray[np.floating]) -> int:
    """Return how many features are active on at least one row, from their activation frequencies (d,)."""
    return int(np.count_nonzero(frequency))


def dead_fraction(frequency: NDArray[np.floating]) -> float:
    """Return the share of the features that are active on no row, from their activation frequencies (d,)."""
    if frequency.size == 0:
        raise ValueError("the share of dead features is undefined without features")
    return 1 - n_alive(frequency) / frequency.size


def usage_entropy(frequency: NDArray[np.floating]) -> float:
    """Return the entropy in nats of the activations over features, from their activation frequencies (d,).

    Its exponential, the perplexity, is the effective number of features in use: m features that are equally often
    active give log m. ValueError where no feature is ever active.
    """
    active = np.asarray(frequency, dtype=np.float64)[np.asarray(frequency) > 0]
    if active.size == 0:
        raise ValueError(f"none of the {frequency.size} features is ever active: their usage has no entropy")
    share = active / active.sum()
    return float(-np.sum(share * np.log(share)))
