"""Nulls that keep what any two networks share: features of an untrained network, and what is left at fixed labels.

Shuffled galaxies share nothing, so what beats them says little: an untrained network beats them too, for it sees
brightness, colour and size.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sfnetlab.metrics.association import labels_as_predictors
from sfnetlab.metrics.tables import FeatureMatrix

Array = NDArray[np.float64]

ALIKE = 0.7
"""Two features are alike where their |correlation| on test galaxies is larger: they share half of their variance."""
N_DRAWS = 5
"""Draws of as many features of an untrained network as are compared."""
MAX_ROWS = 2**14
"""Galaxies of each part by which nulls are found, at most: what is left at fixed labels is dense."""
KNOTS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of a label at which what follows it may bend."""
NOTHING_LEFT = 1e-8
"""A feature of whose variance a smaller share is left is all told by the labels."""


def share_alike(fit: NDArray[np.floating], test: NDArray[np.floating]) -> float:
    """Return the share of one-to-one pairs of features that are `ALIKE`.

    Parameters
    ----------
    fit, test : ndarray of shape (d_a, d_b)
        Correlations of the features of two tables on fit rows, whose sizes choose the pairs (the Hungarian method), and
        on test rows. NaN counts as 0.

    Returns
    -------
    float
        Of min(d_a, d_b) pairs; NaN where there is none.
    """
    if 0 in fit.shape:
        return float("nan")
    pairs = linear_sum_assignment(np.nan_to_num(np.abs(fit)), maximize=True)
    return float(np.mean(np.nan_to_num(np.abs(test[pairs])) > ALIKE))


def draws(d: int, n: int, seed: int, n_draws: int = N_DRAWS) -> Iterator[NDArray[np.intp]]:
    """Yield choices of n of d features, rising; a single one where these are all."""
    rng = np.random.default_rng(seed)
    for _ in range(n_draws if n < d else 1):
        yield np.sort(rng.choice(d, min(n, d), replace=False))


def curved_predictors(fit: NDArray[np.floating], others: Sequence[NDArray[np.floating]]) -> list[Array]:
    """Return labels as predictors of what follows them, straight or not.

    Each label becomes a linear spline with knots at its `KNOTS`, within the range of the fit rows; missing values as in
    `labels_as_predictors`. All is learnt from the fit rows.

    Parameters
    ----------
    fit, others : ndarrays of shape (n, m)
        Labels of several parts; NaN where not measured. Those never measured on the fit rows say nothing.

    Returns
    -------
    list of ndarray
        Of the fit rows, then of each of the others.
    """
    known = np.flatnonzero(~np.isnan(fit).all(axis=0))
    splines: list[list[Array]] = [[] for _ in range(1 + len(others))]
    for column in known:
        low, *knots, high = np.nanquantile(fit[:, column], (0, *KNOTS, 1))
        for part, columns in zip((fit, *others), splines, strict=True):
            values = np.clip(part[:, column], low, high)
            columns.append(np.column_stack([values, *(np.maximum(values - knot, 0) for knot in knots)]))
    first, *rest = (
        np.hstack([np.empty((len(part), 0)), *columns]) for part, columns in zip((fit, *others), splines, strict=True)
    )
    return [labels_as_predictors(first, first)[0], *(labels_as_predictors(first, part)[1] for part in rest)]


def residuals(tables: Sequence[FeatureMatrix], predictors: Sequence[NDArray[np.floating]]) -> list[Array]:
    """Return what predictors leave of features or labels, by least squares on the first part, each (n, d) dense.

    A column that they tell wholly (`NOTHING_LEFT`) is 0 throughout.

    Parameters
    ----------
    tables
        Columns of several parts, (n, d) dense or CSR; the first is fitted, each column on the rows that have it. A
        missing value, NaN, stays missing.
    predictors
        Their `curved_predictors`, (n, m).
    """
    dense = [
        np.asarray(table if isinstance(table, np.ndarray) else table.toarray(), dtype=np.float64) for table in tables
    ]
    designs = [np.column_stack([np.ones(len(part)), part]) for part in predictors]
    is_known = ~np.isnan(dense[0])
    weights = np.zeros((designs[0].shape[1], dense[0].shape[1]))
    is_whole = is_known.all(axis=0)
    weights[:, is_whole] = np.linalg.lstsq(designs[0], dense[0][:, is_whole])[0]
    for column in np.flatnonzero(~is_whole):
        known = is_known[:, column]
        weights[:, column] = np.linalg.lstsq(designs[0][known], dense[0][known, column])[0]
    left = [values - design @ weights for values, design in zip(dense, designs, strict=True)]
    for column in np.flatnonzero(is_known.any(axis=0)):
        known = is_known[:, column]
        if left[0][known, column].var() <= NOTHING_LEFT * dense[0][known, column].var():
            for part in left:
                part[:, column] = np.where(np.isnan(part[:, column]), np.nan, 0.0)
    return left
