"""How strongly each feature goes with each label, one number a pair, with intervals and permutation nulls.

Every function takes all features at once, dense or CSR; a wide CSR is never densified.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import false_discovery_control, rankdata

from sfnetlab.metrics.tables import (
    BLOCK_VALUES,
    CSR,
    FeatureMatrix,
    Table,
    checked_table,
    column_mean_sd,
    transpose_product,
)
from sfnetlab.runtime import compiled

MIN_ROWS = 30
"""A label known on fewer rows is not tested: its rank correlations are large by chance."""

STRONGEST = 0.02
"""Share of the galaxies in which a feature is strongest, by which features of any sparsity are compared: about as many
as a latent of a sparse autoencoder is active in."""

TIE = 1e-5
"""Correlations that differ by less count as equal when permutations are counted: nulls are computed in float32."""

PENALTIES = np.logspace(-6, 3, 19)
"""Ridge penalties on offer to `held_out_r2`, as shares of the number of rows fitted."""


class AssociationTest(NamedTuple):
    """Rank correlations of d features with m labels and what permuted galaxies give."""

    rho: NDArray[np.float64]
    """(d, m), `spearman`; NaN also where a label is known on fewer than `MIN_ROWS` rows."""
    p: NDArray[np.float64]
    """(d, m), two-sided, of each pair by itself; NaN where rho is."""
    p_corrected: NDArray[np.float64]
    """(d,), of the feature's strongest label, corrected for the number of labels."""
    q: NDArray[np.float64]
    """(d,), Benjamini-Hochberg over the features of `p_corrected`."""
    null_max: NDArray[np.float32]
    """(n_permutations, d), each feature's largest |rho| over labels when galaxies are permuted."""

    @property
    def null_mean(self) -> NDArray[np.float64]:
        """Mean over permutations of the largest |rho|, (d,): what a maximum over that many labels is by chance."""
        return self.null_max.mean(axis=0, dtype=np.float64)

    @property
    def null_q95(self) -> NDArray[np.float64]:
        """The 95 % quantile over permutations of the largest |rho|, (d,)."""
        return np.quantile(self.null_max, 0.95, axis=0).astype(np.float64)


def spearman(features: FeatureMatrix, labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the Spearman rank correlation of every feature with every label, with average ranks for ties.

    Features are sorted once, and their ranks for each pattern of missing labels follow from that order; then comes a
    matrix product. In a CSR table only the stored values are ranked: the zeros of a column are one tie.

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
    return _by_pattern_of_ranks(features, labels, _centred_ranks, _correlate_part)


def pearson(features: FeatureMatrix, labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the Pearson correlation of every feature with every label; shapes, NaN and errors as in `spearman`."""
    return _by_pattern(features, labels, lambda X, Y: _correlate(_value_parts(X), _centred(Y)))


def correlation_matrix(features: FeatureMatrix) -> NDArray[np.float64]:
    """Return the Pearson correlation of every feature with every other, (d, d); NaN for constant features."""
    table = checked_table(features, "features")
    d = table.shape[1]
    return np.concatenate([np.zeros((0, d)), *(block for _, block in correlation_blocks(table))])


def closest_feature(features: FeatureMatrix) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the largest Pearson correlation in size that each feature has with another, and that other; both (d,).

    NaN and -1 for constant features and where no other feature varies. In blocks of features, so that the d x d
    matrix is never held.
    """
    table = checked_table(features, "features")
    d = table.shape[1]
    r, partner = np.full(d, np.nan), np.full(d, -1)
    for columns, block in correlation_blocks(table):
        of_block = np.arange(d)[columns]
        size = np.nan_to_num(np.abs(block), nan=-1.0)
        size[np.arange(of_block.size), of_block] = -1.0
        best = size.argmax(axis=1)
        exists = size.max(axis=1) >= 0
        r[of_block[exists]], partner[of_block[exists]] = block[exists, best[exists]], best[exists]
    return r, partner


def correlation_interval(
    r: NDArray[np.floating],
    n: NDArray[np.integer] | int,
    kind: Literal["pearson", "spearman"],
    *,
    n_held_fixed: int = 0,
    level: float = 0.95,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the low and high end of the interval of correlations over n rows, by Fisher's z, in the shape of `r`.

    The variance of z is 1 / (n - 3) for Pearson and (1 + r² / 2) / (n - 3) for Spearman; columns held fixed count off
    n. Spearman's holds for features that are mostly zero and for fractions too (covers 94 to 98 % in simulation).
    Pearson's is for Gaussian columns: with a long-tailed activation it covers far less (65 % for a lognormal at
    r = 0.7), read Spearman's there. NaN where r is, or where n <= 3 + n_held_fixed.

    References
    ----------
    Bonett & Wright 2000, Psychometrika 65, 23.
    """
    rho, rows = np.broadcast_arrays(np.asarray(r, dtype=np.float64), np.asarray(n) - 3.0 - n_held_fixed)
    variance = np.divide(
        1 + (rho**2 / 2 if kind == "spearman" else 0.0), rows, out=np.full(rho.shape, np.nan), where=rows > 0
    )
    half = ndtri((1 + level) / 2) * np.sqrt(variance)
    z = np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15))
    return np.tanh(z - half), np.tanh(z + half)


def partial_correlation(
    features: FeatureMatrix, label: NDArray[np.floating], held_fixed: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the rank correlation of every feature with a label while other columns are held fixed, (d,).

    All are ranked; the ranks of the columns held fixed (and a constant) are regressed out of both sides; what is left
    is correlated. A relation that is monotone, but not linear in ranks, is not wholly taken out.

    Parameters
    ----------
    features : ndarray or CSR of shape (n, d)
    label : ndarray of shape (n,)
        NaN: missing, the row is left out.
    held_fixed : ndarray of shape (n, c)
        NaN: missing, the row is left out.

    Returns
    -------
    ndarray of shape (d,)
        NaN where nothing is left to correlate (the columns held fixed determine the feature or the label), or fewer
        than c + 3 rows are known.

    Raises
    ------
    ValueError
        As `spearman`.
    """
    table, columns = _checked(features, np.column_stack([label, held_fixed]))
    known = ~np.isnan(columns).any(axis=1)
    rho = np.full(table.shape[1], np.nan)
    if np.count_nonzero(known) < columns.shape[1] + 2:
        return rho
    ranks = _centred_ranks(columns[known])
    basis = _orthonormal(ranks[:, 1:])
    left = ranks[:, 0] - basis @ (basis.T @ ranks[:, 0])
    if not np.sum(left**2) > 1e-10 * np.sum(ranks[:, 0] ** 2):
        return rho
    for part in _rank_parts(table if known.all() else table[known]):
        products = part.values.T @ np.column_stack([left, basis])
        squares = part.squares - np.sum(products[:, 1:] ** 2, axis=1)
        norms = np.sqrt(np.where(squares > 1e-10 * part.squares, squares, np.nan) * np.sum(left**2))
        rho[part.columns] = np.clip(products[:, 0] / norms, -1, 1)
    return rho


def single_feature_auc(features: FeatureMatrix, classes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the area under the ROC curve of every feature as a classifier of every column of 0/1 classes.

    Ties are counted half. The area is above one half where the feature is larger in class 1, below where it is
    smaller, and one half for a constant feature.

    Parameters
    ----------
    features : ndarray or CSR of shape (n, d)
    classes : ndarray of shape (n, m)
        0, 1 or NaN for a galaxy without class, left out for that column alone.

    Returns
    -------
    ndarray of shape (d, m)
        NaN where a class has no galaxy.

    Raises
    ------
    ValueError
        As `spearman`, and for classes other than 0 and 1.
    """
    classes = np.asarray(classes, dtype=np.float64)
    if n_bad := np.count_nonzero(~np.isin(classes, (0.0, 1.0)) & ~np.isnan(classes)):
        raise ValueError(f"classes: {n_bad} of {classes.size} values are neither 0, 1 nor NaN")

    def auc(part: _Part, Y: NDArray[np.float64]) -> NDArray[np.float64]:
        n_pairs = Y.sum(axis=0) * (1 - Y).sum(axis=0)
        above = part.values.T @ _centred(Y)
        return np.divide(above, n_pairs, out=np.full(above.shape, np.nan), where=n_pairs > 0) + 0.5

    return _by_pattern_of_ranks(features, classes, np.asarray, auc)


def strongest(features: FeatureMatrix, sign: int = 1) -> sp.csr_array:
    """Return 1 where a galaxy is among the share `STRONGEST` of rows in which a feature is largest, (n, d).

    All of a tie are in if one is, unless it is that of the feature's smallest value (the zeros of a feature that is
    active less often): then only what lies above.

    Parameters
    ----------
    features : ndarray or CSR of shape (n, d)
    sign
        -1: where it is smallest.
    """
    table = checked_table(features, "features")
    n, d = table.shape
    n_strongest = max(1, round(STRONGEST * n)) if n else 0
    found: list[sp.csr_array] = []
    for columns in _column_slices(n, d, BLOCK_VALUES):
        part = table[:, columns]
        block = sign * (part if isinstance(part, np.ndarray) else part.toarray())
        threshold = np.partition(block, n - n_strongest, axis=0)[n - n_strongest] if n else np.zeros(block.shape[1])
        is_smallest = threshold == block.min(axis=0, initial=np.inf)
        found.append(sp.csr_array(np.where(is_smallest, block > threshold, block >= threshold)))
    return sp.csr_array(sp.hstack([sp.csr_array((n, 0)), *found], format="csr"), dtype=np.float64)


def contrasts(
    members: FeatureMatrix, labels: NDArray[np.floating], towards: Literal["either", "high", "low"] = "either"
) -> NDArray[np.float64]:
    """Return how far the labels of members lie above those of the others, of the farthest possible, (d, m).

    This is 2 AUC - 1 over the largest that so many members can have, the AUC being the chance that a member has the
    larger label than another galaxy, ties counted half: 0 on average if the members are any galaxies, however many
    there are. (Of labels without ties the largest is 1.)

    Parameters
    ----------
    members : CSR of shape (n, d)
        1 for members of each of d sets, see `strongest`.
    labels : ndarray of shape (n, m)
        NaN marks a missing label: its row is left out for that label alone.
    towards
        What counts as the farthest possible. "high": that the members have the largest labels (then they get 1);
        "low": that they have the smallest (-1). These differ where labels are tied: of a label that few galaxies have,
        few members mostly have nothing, which is as low as possible and says nothing. "either": the farther of both.

    Returns
    -------
    ndarray of shape (d, m)
        NaN where a set has no member, or all rows, among those that have the label, and for a constant label.
    """

    def measure(rows: Any, known: NDArray[np.float64]) -> NDArray[np.float64]:
        ranks = _centred_ranks(known)
        below = np.vstack([np.zeros((1, known.shape[1])), np.cumsum(np.sort(ranks, axis=0), axis=0)])
        n_members = np.asarray(rows.sum(axis=0)).astype(np.intp)
        above = np.asarray(rows.T @ ranks)
        high, low = -below[len(known) - n_members], -below[n_members]
        farthest = {"high": high, "low": low, "either": np.maximum(high, low)}[towards]
        return np.divide(above, farthest, out=np.full(above.shape, np.nan), where=farthest > 1e-9)

    return _by_pattern(members, labels, measure)


def association_test(
    features: FeatureMatrix, labels: NDArray[np.floating], *, n_permutations: int, seed: int
) -> AssociationTest:
    """Return the Spearman correlations of all features with all labels, tested against permuted galaxies.

    A permutation moves whole rows of labels, missing values with them, against the rows of features: labels keep
    their correlations and which of them are missing together, which a permutation within each label would destroy. If
    the features of a galaxy say nothing of its labels nor of which were asked, all such pairings are equally likely,
    so that p, a count plus one over the number of permutations plus one, is exact. To need no new ranks for each
    permutation, the test correlates the feature's ranks among *all* galaxies with the label's ranks among those that
    have it (the variances are over those that have it); for labels without missing values that is rho itself.

    `p_corrected` compares the largest |rho| sqrt(n - 1) over labels with the same maximum under each permutation:
    n is that of the label, so that a label that few galaxies have does not drown the others.

    Parameters
    ----------
    features : ndarray or CSR of shape (n, d)
    labels : ndarray of shape (n, m)
        NaN marks a missing label. At least one must be known on `MIN_ROWS` rows.

    Raises
    ------
    ValueError
        As `spearman`, if `n_permutations` is not positive, or no label is known on enough rows.

    References
    ----------
    Westfall & Young 1993, Resampling-based Multiple Testing, section 2.3; Benjamini & Hochberg 1995, JRSS B 57, 289.
    """
    table, labels = _checked(features, labels)
    n, d = table.shape
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be positive, got {n_permutations}")
    n_known = np.count_nonzero(~np.isnan(labels), axis=0)
    tested = np.flatnonzero(n_known >= MIN_ROWS)
    if tested.size == 0:
        raise ValueError(f"no label is known on {MIN_ROWS} rows, the most is {n_known.max(initial=0)}")
    rho = np.full((d, labels.shape[1]), np.nan)
    complete, partial = tested[n_known[tested] == n], tested[n_known[tested] < n]
    complete_ranks = _centred_ranks(labels[:, complete])
    if partial.size:  # whose rho takes the ranks of features among the rows that have the label
        rho[:, partial] = spearman(features, labels[:, partial])
    scores = _LabelScores.of(labels[:, tested], np.float32 if isinstance(table, np.ndarray) else np.float64)
    rng = np.random.default_rng(seed)
    permutations = [rng.permutation(n) for _ in range(n_permutations)]
    weight = np.sqrt(n_known[tested] - 1.0)

    n_larger = np.zeros((d, tested.size))
    n_larger_max = np.zeros(d)
    null_max = np.empty((n_permutations, d), dtype=np.float32)
    batch = max(1, 512 // scores.columns.shape[1])
    for part in _rank_parts(table, 4 * BLOCK_VALUES):
        rho[part.columns, complete] = _correlate_part(part, complete_ranks)
        one = _unit_part(part)
        observed = scores.correlate(one, [np.arange(n)])[:, 0]
        observed_max = (observed * weight).max(axis=1)
        for start in range(0, n_permutations, batch):
            null = scores.correlate(one, permutations[start : start + batch])
            n_larger[part.columns] += np.sum(null >= observed[:, None] - TIE, axis=1)
            null_max[start : start + batch, part.columns] = null.max(axis=2).T
            slack = TIE * weight.max()
            n_larger_max[part.columns] += np.sum((null * weight).max(axis=2) >= observed_max[:, None] - slack, axis=1)
    p = np.full(rho.shape, np.nan)
    p[:, tested] = (1 + n_larger) / (1 + n_permutations)
    p[np.isnan(rho)] = np.nan
    p_corrected = np.where(np.isnan(rho).all(axis=1), np.nan, (1 + n_larger_max) / (1 + n_permutations))
    return AssociationTest(rho, p, p_corrected, benjamini_hochberg(p_corrected), null_max)


def benjamini_hochberg(p: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the smallest false discovery rate at which each hypothesis is rejected, in the shape of `p`.

    NaN stay as they are and are not counted.
    """
    q = np.full(np.shape(p), np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(np.asarray(p, dtype=np.float64)[known])
    return q


def labels_as_predictors(
    fit: NDArray[np.floating], score: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two arrays of labels as complete columns for a regression, with what is learnt from `fit` (n, m) alone.

    A missing value becomes the mean of the fitted rows, and each pattern of missing labels gets a 0/1 column: that a
    question was not asked is information by itself. Columns have mean 0 and variance 1 on the fitted rows; those that
    do not vary there (a label that is always missing too) are left out.
    """
    is_known = ~np.isnan(fit)
    n_known = is_known.sum(axis=0)
    mean = np.divide(np.where(is_known, fit, 0).sum(axis=0), n_known, out=np.zeros(fit.shape[1]), where=n_known > 0)
    distinct, _ = _distinct_columns(is_known)
    both = [
        np.column_stack([np.where(np.isnan(part), mean, part), np.isnan(part[:, distinct])]) for part in (fit, score)
    ]
    center, sd = column_mean_sd(both[0])
    kept = sd > 0
    train, test = ((part[:, kept] - center[kept]) / sd[kept] for part in both)
    return train, test


def held_out_r2(
    features_fit: FeatureMatrix,
    predictors_fit: NDArray[np.floating],
    features_score: FeatureMatrix,
    predictors_score: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Return the R² of every feature on rows that were not fitted, regressed on all predictors at once, (d,).

    Ridge with intercept; each feature takes the one of `PENALTIES` with the least generalised cross-validation error
    on the fitted rows. R² is about the mean of the scored rows; below 0 the prediction is worse than that mean.

    Parameters
    ----------
    features_fit, features_score : ndarray or CSR of shape (n, d)
    predictors_fit, predictors_score : ndarray of shape (n, m)
        Complete, on the scale in which they are penalised: see `labels_as_predictors`.

    Returns
    -------
    ndarray of shape (d,)
        NaN where the feature is constant on the fitted or on the scored rows.

    Raises
    ------
    ValueError
        If shapes do not fit or a value is not finite.

    References
    ----------
    Golub, Heath & Wahba 1979, Technometrics 21, 215.
    """
    X, X_score = checked_table(features_fit, "features_fit"), checked_table(features_score, "features_score")
    Z = np.asarray(checked_table(predictors_fit, "predictors_fit"), dtype=np.float64)
    Z_score = np.asarray(checked_table(predictors_score, "predictors_score"), dtype=np.float64)
    n = X.shape[0]
    if (len(Z), len(Z_score)) != (n, X_score.shape[0]) or X.shape[1] != X_score.shape[1]:
        shapes = f"{X.shape} and {Z.shape}, {X_score.shape} and {Z_score.shape}"
        raise ValueError(f"features and predictors, fitted and scored, do not fit together: {shapes}")
    mean, sd = column_mean_sd(X)
    mean_score, sd_score = column_mean_sd(X_score)
    center = Z.mean(axis=0)
    U, s, Vt = np.linalg.svd(Z - center, full_matrices=False)
    kept = s > 1e-10 * s.max(initial=0.0)
    U, s, Vt = U[:, kept], s[kept], Vt[kept]
    along = transpose_product(X, U)  # (d, rank): U is orthogonal to the intercept, X need not be centred
    shrink = s**2 / (s**2 + n * PENALTIES[:, None])
    left = n * sd[:, None] ** 2 - along**2 @ (2 * shrink - shrink**2).T
    freedom = (1 - (shrink.sum(axis=1) + 1) / n) ** 2  # 0 of a single row
    gcv = np.divide(left, freedom, out=np.full_like(left, np.inf), where=freedom > 0)
    coef = (along * shrink[gcv.argmin(axis=1)] / s) @ Vt
    # sums of squares of the residual, expanded, so that a CSR is never densified
    W = Z_score - center
    n_score = len(W)
    products = transpose_product(X_score, W) - np.outer(mean, W.sum(axis=0))
    total = n_score * sd_score**2
    residual = (
        total
        + n_score * (mean_score - mean) ** 2
        - 2 * np.sum(products * coef, axis=1)
        + np.sum((coef @ (W.T @ W)) * coef, axis=1)
    )
    varies = (sd > 0) & (sd_score > 0)
    return 1 - np.divide(residual, total, out=np.full(len(total), np.nan), where=varies)


class _Part(NamedTuple):
    """Some columns of a table, for products with vectors that sum to zero."""

    columns: slice
    values: NDArray[np.floating] | CSR
    """(n, w); dense ones are centred, CSR need not be."""
    squares: NDArray[np.float64]
    """(w,), sums of squares about the columns' means; 0 where a column is constant."""


class _LabelScores(NamedTuple):
    """The part of the labels that is permuted as one array."""

    columns: NDArray[np.floating]
    """(n, m + q): centred ranks of each label among its rows, of norm 1, 0 where missing; then the q distinct sets of
    rows, as 0/1, of labels with missing values."""
    set_of_label: NDArray[np.int64]
    """(m,), place among the q sets, -1 where none is missing."""

    @classmethod
    def of(cls, labels: NDArray[np.float64], dtype: type[np.floating]) -> "_LabelScores":
        known = ~np.isnan(labels)
        scores = np.zeros(labels.shape)
        for j in range(labels.shape[1]):
            scores[known[:, j], j] = _centred_ranks(labels[known[:, j], j : j + 1])[:, 0]
        norms = np.linalg.norm(scores, axis=0)
        scores = np.divide(scores, norms, out=np.zeros_like(scores), where=norms > 0)
        is_partial = ~known.all(axis=0)
        set_of_label = np.full(labels.shape[1], -1)
        first, set_of_label[is_partial] = _distinct_columns(known[:, is_partial])
        sets = known[:, is_partial][:, first]
        return cls(np.column_stack([scores, sets]).astype(dtype), set_of_label)

    def correlate(self, part: _Part, permutations: list[NDArray[np.int64]]) -> NDArray[np.floating]:
        """|correlation| of each column of the part with each label, (w, n_permutations, m); 0 where undefined."""
        m = len(self.set_of_label)
        shape = (part.squares.size, len(permutations), self.columns.shape[1])
        products = (part.values.T @ np.hstack([self.columns[rows] for rows in permutations])).reshape(shape)
        rho = products[:, :, :m]
        if shape[2] > m:
            sets = np.hstack([self.columns[rows, m:] for rows in permutations])
            values = part.values
            squared = values**2 if isinstance(values, np.ndarray) else sp.csc_array(values).power(2)
            squares = (squared.T @ sets).reshape(shape[0], shape[1], -1)
            variance = squares - products[:, :, m:] ** 2 / self.columns[:, m:].sum(axis=0)
            norms = np.sqrt(np.where(variance > TIE * squares, variance, np.inf))
            is_partial = self.set_of_label >= 0
            rho[:, :, is_partial] /= norms[:, :, self.set_of_label[is_partial]]
        return np.abs(rho)


def _unit_part(part: _Part) -> _Part:
    """Columns of norm 1, constant ones 0: dense in float32, whose products are twice as fast."""
    scale = np.divide(1.0, np.sqrt(part.squares), out=np.zeros_like(part.squares), where=part.squares > 0)
    if isinstance(part.values, np.ndarray):
        return part._replace(values=(part.values * scale).astype(np.float32), squares=part.squares * scale**2)
    scaled = sp.csc_array(part.values @ sp.diags_array(scale))  # its transpose is CSR, whose products run along rows
    return part._replace(values=cast("CSR", scaled), squares=part.squares * scale**2)


def _checked(features: FeatureMatrix, labels: NDArray[np.floating]) -> tuple[Table, NDArray[np.float64]]:
    table, labels = checked_table(features, "features"), np.asarray(labels, dtype=np.float64)
    if labels.ndim != 2 or labels.shape[0] != table.shape[0]:
        raise ValueError(f"labels: expected shape ({table.shape[0]}, m), a row a row of features, got {labels.shape}")
    if n_infinite := np.count_nonzero(np.isinf(labels)):
        raise ValueError(f"labels: {n_infinite} of {labels.size} values are infinite; NaN marks a missing label")
    return table, labels


def _by_pattern(
    features: FeatureMatrix,
    labels: NDArray[np.floating],
    measure: Callable[[Table, NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """(d, m) from a measure of complete labels, called once for each pattern of missing labels."""
    table, labels = _checked(features, labels)
    values = np.full((table.shape[1], labels.shape[1]), np.nan)
    is_known = ~np.isnan(labels)
    first, pattern_of_label = _distinct_columns(is_known)
    for i, known in enumerate(is_known[:, first].T):
        if known.any():
            columns = pattern_of_label == i
            rows = table if known.all() else table[known]
            values[:, columns] = measure(rows, labels[known][:, columns])
    return values


def _by_pattern_of_ranks(
    features: FeatureMatrix,
    labels: NDArray[np.floating],
    prepare: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    measure: "Callable[[_Part, NDArray[np.float64]], NDArray[np.float64]]",
) -> NDArray[np.float64]:
    """(d, m) from a measure of ranked features and complete labels, which are prepared once for each pattern."""
    table, labels = _checked(features, labels)
    n, d = table.shape
    values = np.full((d, labels.shape[1]), np.nan)
    is_known = ~np.isnan(labels)
    first, pattern_of_label = _distinct_columns(is_known)
    patterns = [
        (known, np.flatnonzero(pattern_of_label == i)) for i, known in enumerate(is_known[:, first].T) if known.any()
    ]
    prepared = [prepare(labels[known][:, columns]) for known, columns in patterns]
    if not isinstance(table, np.ndarray):
        for (known, columns), Y in zip(patterns, prepared, strict=True):
            for part in _rank_parts(table if known.all() else table[known]):
                values[part.columns, columns] = measure(part, Y)
        return values
    for of_features in _column_slices(n, d, BLOCK_VALUES):
        block = np.ascontiguousarray(table[:, of_features].T)
        order = np.argsort(block, axis=1)
        block, order = np.take_along_axis(block, order, axis=1), order.astype(np.int32)
        for (known, columns), Y in zip(patterns, prepared, strict=True):
            place = np.where(known, np.cumsum(known) - 1, -1).astype(np.int32)
            ranks = _ranks_in_order(block, order, place, len(Y)).T
            values[of_features, columns] = measure(_Part(of_features, ranks, np.sum(ranks**2, axis=0)), Y)
    return values


@compiled()
def _ranks_in_order(
    values: NDArray[np.floating], order: NDArray[np.integer], place: NDArray[np.integer], n: int
) -> NDArray[np.float64]:
    """Centred average ranks (d, n) of some rows in each of d columns.

    `values` (d, n_rows) rise along each column, `order` says of which row each is, and `place` (n_rows,) where the
    rank of a row goes; rows with -1 are left out.
    """
    ranks = np.empty((len(values), n))
    rows = np.empty(n, dtype=place.dtype)
    for j in range(len(values)):
        n_seen = start = 0
        tied = values[j, 0]
        for i in range(order.shape[1]):
            to = place[order[j, i]]
            if to < 0:
                continue
            if values[j, i] != tied:
                ranks[j, rows[start:n_seen]] = (start + n_seen - n) / 2
                start, tied = n_seen, values[j, i]
            rows[n_seen] = to
            n_seen += 1
        ranks[j, rows[start:n_seen]] = (start + n_seen - n) / 2
    return ranks


def _distinct_columns(flags: NDArray[np.bool_]) -> tuple[list[int], NDArray[np.int64]]:
    """First place of each distinct column, and which of these every column equals; np.unique is slow on long ones."""
    first: dict[bytes, int] = {}
    keys = [column.tobytes() for column in np.packbits(flags, axis=0).T]
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    rank = {key: i for i, key in enumerate(first)}
    return list(first.values()), np.array([rank[key] for key in keys], dtype=np.int64)


def _correlate(parts: Iterable[_Part], Y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(d, m) correlations of the columns of the parts, in order, with the columns of Y, which sum to zero."""
    return np.concatenate([np.zeros((0, Y.shape[1])), *(_correlate_part(part, Y) for part in parts)])


def _correlate_part(part: _Part, Y: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.sqrt(np.outer(part.squares, np.sum(Y**2, axis=0)))
    return np.clip(np.divide(part.values.T @ Y, norms, out=np.full_like(norms, np.nan), where=norms > 0), -1, 1)


def correlation_blocks(X: Table) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield places and rows (w, d) of the correlation matrix of the columns of X; NaN where one is constant."""
    n, d = X.shape
    mean, sd = column_mean_sd(X)
    norms = np.where(sd > 0, np.sqrt(n) * sd, np.nan)
    width = max(1, BLOCK_VALUES // max(n, d))
    for start in range(0, d, width):
        columns = slice(start, start + width)
        block = X[:, columns]
        centred = (block if isinstance(block, np.ndarray) else block.toarray()) - mean[columns]
        yield columns, np.clip(transpose_product(X, centred).T / np.outer(norms[columns], norms), -1, 1)


def _centred_ranks(Y: NDArray[np.floating]) -> NDArray[np.float64]:
    return rankdata(Y, axis=0) - (Y.shape[0] + 1) / 2


def _centred(Y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns less their means; exactly 0 where a column is constant."""
    return np.where(Y.min(axis=0) == Y.max(axis=0), 0.0, Y - Y.mean(axis=0))


def _orthonormal(Y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal columns that span those of Y, collinear ones once."""
    U, s, _ = np.linalg.svd(Y, full_matrices=False)
    return U[:, s > 1e-10 * s.max(initial=0.0)]


def _value_parts(X: Table) -> Iterator[_Part]:
    n, d = X.shape
    mean, sd = column_mean_sd(X)
    if isinstance(X, np.ndarray):
        for columns in _column_slices(n, d, BLOCK_VALUES):
            yield _Part(columns, X[:, columns] - mean[columns], n * sd[columns] ** 2)
    else:
        yield _Part(slice(0, d), X.astype(np.float64), n * sd**2)


def _rank_parts(X: Table, block_values: int | None = None) -> Iterator[_Part]:
    n, d = X.shape
    if isinstance(X, np.ndarray):
        for columns in _column_slices(n, d, block_values or BLOCK_VALUES):
            block = _centred_ranks(X[:, columns])
            yield _Part(columns, block, np.sum(block**2, axis=0))
    else:
        ranks = _ranks_above_zero(X)
        raw = np.bincount(ranks.indices, weights=ranks.data**2, minlength=d)
        squares = raw - np.bincount(ranks.indices, weights=ranks.data, minlength=d) ** 2 / n
        # one row apart from a tie leaves about raw / n; less is rounding
        squares[squares <= 1e-12 * raw] = 0
        yield _Part(slice(0, d), ranks, squares)


def _column_slices(n: int, d: int, block_values: int) -> Iterator[slice]:
    width = max(1, block_values // max(1, n))
    for start in range(0, d, width):
        yield slice(start, min(start + width, d))


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
