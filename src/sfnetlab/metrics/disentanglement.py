"""How well features stand for the factors that made the data: matched correlations, DCI, factors absorbed by others.

Whatever is chosen is chosen on fit rows and measured on test rows.
"""

import logging
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from sfnetlab.metrics.association import pearson, single_feature_auc, spearman
from sfnetlab.metrics.matching import cross_correlations
from sfnetlab.metrics.tables import (
    FeatureMatrix,
    Table,
    checked_labels,
    checked_table,
    column_mean_sd,
    columns_of,
    row_blocks,
)
from sfnetlab.runtime import compiled

logger = logging.getLogger(__name__)

N_PENALTIES = 25
SMALLEST_PENALTY = 0.01
"""Of the lasso, as a share of that at which every weight is zero."""
HELD_OUT = 5
"""One fit row in so many chooses the lasso's penalty."""
PATIENCE = 4
"""Penalties without a gain on the held-out rows after which no smaller one is tried."""
TOLERANCE, MAX_SWEEPS = 1e-4, 2000
"""The lasso stops when no weight of standardised features moves by more, or after so many sweeps over them."""

DETECTION_AUC = 0.8
"""A feature detects a label if its area under the ROC curve is above: absorption is asked of such features alone."""


class FactorMatch(NamedTuple):
    """The feature of each factor, each feature at most once; all of shape (n_factors,)."""

    feature: NDArray[np.int64]
    """-1 where there are fewer features than factors and the factor got none."""
    correlation_fit: NDArray[np.float64]
    correlation_test: NDArray[np.float64]
    """Signed; 0 for a factor without a feature and for a feature that is constant on the test rows."""


class DCI(NamedTuple):
    """Disentanglement and completeness of a matrix of importances, each in [0, 1]."""

    disentanglement: float
    """Mean over features, weighted by their importance: 1 if each serves one factor alone."""
    completeness: NDArray[np.float64]
    """(n_factors,): 1 if one feature alone serves the factor; NaN for a factor that no feature serves."""


def match_factors(
    features_fit: FeatureMatrix,
    factors_fit: NDArray[np.floating],
    features_test: FeatureMatrix,
    factors_test: NDArray[np.floating],
    method: Literal["pearson", "spearman"] = "pearson",
) -> FactorMatch:
    """Return one-to-one pairs of factor and feature with the largest sum of |correlation| on fit rows.

    Their correlations are measured on fit and on test rows.

    The mean of |correlation_test| is the mean correlation coefficient, MCC: 1 for factors found up to order, sign and
    scale ("spearman": any monotonic change).

    Parameters
    ----------
    features_fit, features_test : (n_fit, d) and (n_test, d)
    factors_fit, factors_test : (n_fit, m) and (n_test, m)
        Finite, and not constant on the fit rows.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or a factor is constant on the fit rows.

    References
    ----------
    Hyvarinen & Morioka 2016, arXiv:1605.06336; Khemakhem et al. 2020, arXiv:1907.04809 (MCC).
    """
    _require_factors(features_fit, factors_fit, features_test, factors_test)
    correlate = pearson if method == "pearson" else spearman
    correlation = correlate(features_fit, factors_fit)
    n_factors = correlation.shape[1]
    matched, factor = linear_sum_assignment(np.nan_to_num(np.abs(correlation)), maximize=True)
    feature = np.full(n_factors, -1)
    feature[factor] = matched
    in_fit, in_test = np.zeros((2, n_factors))
    in_fit[factor] = np.nan_to_num(correlation[matched, factor])
    labels = np.asarray(factors_test, dtype=np.float64)[:, factor]
    in_test[factor] = np.nan_to_num(np.diagonal(correlate(columns_of(features_test, matched), labels)))
    return FactorMatch(feature, in_fit, in_test)


def dci(importance: NDArray[np.floating]) -> DCI:
    """Return disentanglement and completeness from how much each feature counts for each factor.

    The disentanglement of a feature is one minus the entropy of its importances, as shares of their sum, with the
    number of factors as base; completeness is the same of a factor's importances over features. A completeness of many
    features is therefore not comparable with one of few: state d.

    Parameters
    ----------
    importance : ndarray of shape (d, n_factors)
        0 or more, such as |weights| of standardised features.

    Raises
    ------
    ValueError
        If a value is negative or not finite, all are zero, or there are fewer than two factors or features.

    References
    ----------
    Eastwood & Williams 2018, "A framework for the quantitative evaluation of disentangled representations", section 2.
    """
    R = np.asarray(importance, dtype=np.float64)
    if R.ndim != 2 or min(R.shape) < 2:
        raise ValueError(f"importance: expected (d, n_factors), two or more of each, got {R.shape}")
    if not np.isfinite(R).all() or R.min() < 0 or not R.any():
        raise ValueError("importance: expected finite values, 0 or more, not all of them 0")
    of_feature, of_factor = R.sum(axis=1), R.sum(axis=0)
    serves = of_feature > 0
    disentanglement = 1 - _entropy(R[serves] / of_feature[serves, None]) / np.log(R.shape[1])
    completeness = np.full(R.shape[1], np.nan)
    known = of_factor > 0
    completeness[known] = 1 - _entropy((R[:, known] / of_factor[known]).T) / np.log(R.shape[0])
    weighted = float(np.average(np.clip(disentanglement, 0, 1), weights=of_feature[serves]))
    return DCI(weighted, np.clip(completeness, 0, 1))


class LassoImportance(NamedTuple):
    """The matrix that DCI is computed from, and the predictions that say whether it means something."""

    importance: NDArray[np.float64]
    """(d, n_factors), |weight| of standardised features for standardised factors."""
    predictions: NDArray[np.float64]
    """(n_test, n_factors), in factor units."""


def lasso_importance(
    features_fit: FeatureMatrix, factors_fit: NDArray[np.floating], features_test: FeatureMatrix, seed: int
) -> LassoImportance:
    """Return the weights of a lasso from all features to each factor, and its predictions of the test rows.

    The lasso is Eastwood & Williams' linear regressor: weights that are not needed are exactly zero. The penalty of
    each factor is the one of `N_PENALTIES`, down to `SMALLEST_PENALTY` of the largest, with the least squared error on
    a fifth of the fit rows (the search ends after `PATIENCE` without a gain); the weights are then fitted to all of
    them. Everything is computed from the d x d covariance, so that a CSR table is never densified.

    Parameters
    ----------
    features_fit, features_test : (n_fit, d) and (n_test, d)
    factors_fit : (n_fit, n_factors)
        Finite; constant factors get no weight.
    seed
        Chooses the held-out fifth.
    """
    table, test = checked_table(features_fit), checked_table(features_test)
    factors = checked_labels(factors_fit, table.shape[0], "factors_fit")
    held_out = np.random.default_rng(seed).permutation(table.shape[0]) % HELD_OUT == 0
    part = _Lasso(table[~held_out], factors[~held_out])
    whole = _Lasso(table, factors)
    importance = np.zeros((table.shape[1], factors.shape[1]))
    predictions = np.empty((test.shape[0], factors.shape[1]))
    n_unfinished = 0
    held = table[held_out]
    for column in range(factors.shape[1]):
        best, least, unfinished = 0, np.inf, 0
        for i, (weights, settled) in enumerate(part.path(column)):
            unfinished += not settled
            error = float(np.mean((part.predict(held, weights, column) - factors[held_out, column]) ** 2))
            if error < least:
                best, least = i, error
            elif i - best >= PATIENCE:
                break
        *_, (weights, settled) = islice(whole.path(column), best + 1)
        n_unfinished += unfinished + (not settled)
        importance[whole.alive, column] = np.abs(weights)
        predictions[:, column] = whole.predict(test, weights, column)
    if n_unfinished:
        logger.warning("lasso of factors on features: %d fits did not settle in %d sweeps", n_unfinished, MAX_SWEEPS)
    return LassoImportance(importance, predictions)


def factor_absorption(
    features_fit: FeatureMatrix,
    labels_fit: NDArray[np.bool_],
    features_test: FeatureMatrix,
    labels_test: NDArray[np.bool_],
    parent: NDArray[np.integer],
) -> pd.DataFrame:
    """Return whether the feature of a general label is silent where a special one holds, which has its own feature.

    The feature of a label is that whose activity (value above zero) correlates most with it on the fit rows; of a
    child, among the rows that have the parent. Both must detect their label on the fit rows first, with an area under
    the ROC curve above `DETECTION_AUC`: that of the parent among the rows without the child (absorption takes nothing
    from it there), that of the child among the rows with the parent. Absorption then shows on test rows in the
    parent's feature being silent where the child holds more often than where it does not. Neither share asks what the
    child's feature does, so that codes which know nothing of the labels give 0 on average. Of a dense table nothing is
    ever silent.

    Parameters
    ----------
    features_fit, features_test : (n_fit, d) and (n_test, d)
    labels_fit, labels_test : ndarray of bool, shape (n_fit, m) and (n_test, m)
        A child is true only where its parent is.
    parent : ndarray of shape (m,)
        The parent of each label; -1 for none.

    Returns
    -------
    DataFrame
        A row for each label with a parent: `parent`, `child`, `feature_parent`, `feature_child`, `auc_parent`,
        `auc_child` (how well they detect, see above; NaN where a class has no row), `n_rows` (test rows with the
        child), `detected` (share of the test rows with the parent in which its feature is active),
        `silent_with_child` (share of test rows with the child in which the parent's feature is silent),
        `silent_without_child` (the same share of rows with the parent but not the child), `absorption` (their
        difference), `low`, `high` (its 95 % interval, `difference_of_shares`), `null_q95` (the value that absorption
        exceeds in no more than 5 % of all permutations of the child's label among the rows with the parent). The last
        six are NaN where there is no such row, a feature does not detect its label, or both labels have the same.

    Raises
    ------
    ValueError
        If shapes do not fit, or a child is true where its parent is not.

    References
    ----------
    After Chanin et al. 2024, arXiv:2409.14507, who know the latents' directions too (`matching.absorption`).
    """
    fit, test = checked_table(features_fit), checked_table(features_test)
    labels = (np.asarray(labels_fit, dtype=bool), np.asarray(labels_test, dtype=bool))
    parent = np.asarray(parent)
    for table, values, name in zip((fit, test), labels, ("fit", "test"), strict=True):
        if values.shape != (table.shape[0], len(parent)):
            raise ValueError(f"labels_{name}: expected shape {(table.shape[0], len(parent))}, got {values.shape}")
        children = np.flatnonzero(parent >= 0)
        if n_stray := np.count_nonzero(values[:, children] & ~values[:, parent[children]]):
            raise ValueError(f"labels_{name}: a child is true {n_stray} times where its parent is not")
    active_fit = _is_active(fit)
    rows = []
    for child in np.flatnonzero(parent >= 0):
        above = int(parent[child])
        general = _most_alike(active_fit, labels[0][:, above])
        having, lacking = np.flatnonzero(labels[0][:, above]), np.flatnonzero(~labels[0][:, child])
        special = _most_alike(active_fit[having], labels[0][having, child])
        auc_parent = _detection(fit, general, lacking, labels[0][:, above])
        auc_child = _detection(fit, special, having, labels[0][:, child])
        is_asked = general != special and min(auc_parent, auc_child) > DETECTION_AUC
        is_silent = ~(_is_active(test[:, [general]]).toarray()[:, 0] > 0)
        has_parent, has_child = labels[1][:, above], labels[1][:, child]
        silent = [is_silent[part & is_asked] for part in (has_child, has_parent & ~has_child)]
        (silent_with, silent_without), (absorption, low, high) = difference_of_shares(*silent)
        rows.append(
            {
                "parent": above, "child": int(child), "feature_parent": general, "feature_child": special,
                "auc_parent": auc_parent, "auc_child": auc_child, "n_rows": int(np.count_nonzero(has_child)),
                "detected": float(np.mean(~is_silent[has_parent])) if has_parent.any() else np.nan,
                "silent_with_child": silent_with, "silent_without_child": silent_without,
                "absorption": absorption, "low": low, "high": high, "null_q95": _permuted_q95(*silent),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def difference_of_shares(
    a: NDArray[np.bool_], b: NDArray[np.bool_]
) -> tuple[tuple[float, float], tuple[float, float, float]]:
    """Return the shares of true values in two samples, and how much larger the first is, with its 95 % interval.

    Newcombe's hybrid score interval (1998, Statistics in Medicine 17, 873, method 10): unlike a bootstrap's it has a
    width where a share is 0 or 1. All NaN where a sample is empty.
    """
    if not len(a) or not len(b):
        return (np.nan, np.nan), (np.nan, np.nan, np.nan)
    from scipy.stats import binomtest

    share_a, share_b = float(np.mean(a)), float(np.mean(b))
    of_a, of_b = (binomtest(int(np.sum(outcomes)), len(outcomes)).proportion_ci(method="wilson") for outcomes in (a, b))
    difference = share_a - share_b
    below = math.hypot(share_a - of_a.low, of_b.high - share_b)
    above = math.hypot(of_a.high - share_a, share_b - of_b.low)
    return (share_a, share_b), (difference, difference - below, difference + above)


def _permuted_q95(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """The 95 % quantile of the difference of shares (a less b) when the rows are dealt out to a and b at random."""
    if not len(a) or not len(b):
        return np.nan
    from scipy.stats import hypergeom

    n_true = int(a.sum() + b.sum())
    in_a = float(hypergeom.ppf(0.95, len(a) + len(b), n_true, len(a)))
    return in_a / len(a) - (n_true - in_a) / len(b)


def _detection(table: Table, feature: int, rows: NDArray[np.integer], label: NDArray[np.bool_]) -> float:
    """The area under the ROC curve of one feature for a label, among some rows."""
    values: Any = table[:, [feature]]
    return float(single_feature_auc(values[rows], label[rows].astype(np.float64)[:, None])[0, 0])


def _require_factors(
    features_fit: FeatureMatrix,
    factors_fit: NDArray[np.floating],
    features_test: FeatureMatrix,
    factors_test: NDArray[np.floating],
) -> None:
    fit, test = checked_table(features_fit, "features_fit"), checked_table(features_test, "features_test")
    factors = checked_labels(factors_fit, fit.shape[0], "factors_fit")
    n_test = checked_labels(factors_test, test.shape[0], "factors_test").shape[1]
    if fit.shape[1] != test.shape[1] or factors.shape[1] != n_test:
        raise ValueError(
            f"fit rows have {fit.shape[1]} features and {factors.shape[1]} factors, "
            f"test rows {test.shape[1]} and {n_test}"
        )
    if constant := np.flatnonzero(np.all(factors == factors[:1], axis=0)).tolist():
        raise ValueError(f"factors_fit: columns {constant} are constant, nothing recovers them")


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy of each row, in nats."""
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)


class _Lasso:
    """Lasso paths from the features to each factor, on everything standardised."""

    def __init__(self, X: Table, Y: NDArray[np.float64]) -> None:
        self._mean, self._sd = column_mean_sd(X)
        self.alive = np.flatnonzero(self._sd)
        varying: Any = X[:, self.alive]
        self._gram = cross_correlations(varying, varying)
        self._target = np.nan_to_num(pearson(varying, Y))
        self._factor_mean, self._factor_sd = Y.mean(axis=0), Y.std(axis=0)

    def path(self, column: int) -> Iterator[tuple[NDArray[np.float64], bool]]:
        """Weights (n_alive,) at each penalty, the largest first, and whether the fit settled."""
        target = np.ascontiguousarray(self._target[:, column])
        largest = float(np.abs(target).max(initial=0.0))
        weights, residual = np.zeros(len(target)), target.copy()
        for penalty in largest * np.geomspace(1, SMALLEST_PENALTY, N_PENALTIES):
            settled = bool(_descend(self._gram, residual, weights, penalty, TOLERANCE, MAX_SWEEPS))
            yield weights.copy(), settled

    def predict(self, X: Table, weights: NDArray[np.float64], column: int) -> NDArray[np.float64]:
        """(n,) in factor units, of weights (n_alive,)."""
        scaled = np.zeros(len(self._mean))
        scaled[self.alive] = self._factor_sd[column] * weights / self._sd[self.alive]
        offset = self._factor_mean[column] - self._mean @ scaled
        if not isinstance(X, np.ndarray):
            return X @ scaled + offset
        return np.concatenate([np.zeros(0), *(block @ scaled + offset for _, block in row_blocks(X))])


@compiled()
def _descend(
    gram: NDArray[np.float64],
    residual: NDArray[np.float64],
    weights: NDArray[np.float64],
    penalty: float,
    tolerance: float,
    max_sweeps: int,
) -> bool:
    """Coordinate descent in place; `residual` is target - gram @ weights. Whether it settled.

    Between sweeps over all features only those with a weight are visited (Friedman, Hastie & Tibshirani 2010,
    J. Stat. Softw. 33, 1).
    """
    is_full = True
    for _ in range(max_sweeps):
        largest = 0.0
        for j in range(weights.size):
            old = weights[j]
            if not is_full and old == 0:
                continue
            pull = residual[j] + old
            new = np.sign(pull) * max(abs(pull) - penalty, 0.0)
            if new != old:
                step = new - old
                weights[j] = new
                largest = max(largest, abs(step))
                for i in range(weights.size):
                    residual[i] -= step * gram[j, i]
        if largest < tolerance:
            if is_full:
                return True
            is_full = True
        else:
            is_full = False
    return False


def _is_active(table: Table) -> Any:
    """1 where a feature is above zero, as CSR."""
    return (sparse.csr_array(table) > 0).astype(np.float64)


def _most_alike(active: Any, label: NDArray[np.bool_]) -> int:
    if label.all() or not label.any():
        raise ValueError(f"labels_fit: a label is {label.any()} on all {len(label)} rows on which it is looked for")
    alike = pearson(active, label.astype(np.float64)[:, None])[:, 0]
    return int(np.argmax(np.nan_to_num(alike, nan=-2.0)))
