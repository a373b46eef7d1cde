"""How well features go with labels, by the galaxies in which each is strongest: whatever their sparsity.

The Spearman correlation of a perfect detector of the top 2 % is 0.24, for it says nothing of the others. Here each
feature is asked of equally many galaxies, those in which it is strongest, and so is a dense one.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import rankdata

from sfnetlab.metrics.association import contrasts, strongest
from sfnetlab.metrics.bootstrap import resample_counts
from sfnetlab.metrics.tables import FeatureMatrix

_DIRECTIONS: tuple[Literal["high", "low"], ...] = ("high", "low")


class Alignment(NamedTuple):
    """The label of each feature, chosen on valid galaxies, and how well it goes with it on test galaxies."""

    label: NDArray[np.intp]
    """(d,), a column of the labels; -1 where the feature does not vary on valid galaxies."""
    score: NDArray[np.float64]
    """(d,), `association.contrasts` of the galaxies in which the feature is strongest, towards the side on which they
    lie in valid galaxies, and with that sign taken out: 1 for a perfect detector, 0 on average for a feature that knows
    nothing of the labels. NaN where the feature has no such galaxy in the test sample."""
    sign: NDArray[np.float64]
    """(d,), of the contrast on valid galaxies."""
    members: Any
    """CSR of shape (n_test, d), 1 for the test galaxies in which each feature is strongest."""


def align(
    values_valid: FeatureMatrix, valid: NDArray[np.floating], values_test: FeatureMatrix, test: NDArray[np.floating]
) -> Alignment:
    """Return how well features go with the label that fits each best on valid galaxies, measured on test galaxies.

    A feature with two ends, such as a principal component, is asked by the end that fits better on valid galaxies.

    Parameters
    ----------
    values_valid, values_test : (n_valid, d), (n_test, d)
    valid, test : ndarray of shape (n_valid, m), (n_test, m)
        The same labels; NaN where not measured.
    """
    ends = [(_end(values_valid, sign), _end(values_test, sign)) for sign in (1, -1)]
    found = np.stack([contrasts(members, valid) for members, _ in ends])  # (2, d, m)
    d, m = found.shape[1:]
    size = np.nan_to_num(np.abs(found), nan=-1.0).transpose(1, 0, 2).reshape(d, 2 * m)
    best, is_known = size.argmax(axis=1), size.max(axis=1, initial=-1.0) >= 0
    end, label = np.divmod(best, m)
    at = (end, np.arange(d), label)
    sign = np.where(is_known, np.sign(found[at]), np.nan)
    # The label is chosen by how much can be told (the farther of both directions is 1), the score is of its direction.
    high, low = (np.stack([contrasts(members, test, towards) for _, members in ends])[at] for towards in _DIRECTIONS)
    score = np.where(is_known, np.where(sign > 0, high, low) * sign, np.nan)
    upper = sp.diags_array((end == 0).astype(np.float64))
    lower = sp.diags_array((end == 1).astype(np.float64))
    members = sp.csr_array(ends[0][1] @ upper + ends[1][1] @ lower)
    return Alignment(np.where(is_known, label, -1), score, sign, members)


def mean_score(
    alignment: Alignment, test: NDArray[np.floating], *, n_resamples: int, seed: int
) -> tuple[float, float, float]:
    """Return the mean score over features and its 95 % percentile interval over galaxies.

    A feature without a score goes with no label and counts 0. Galaxies are resampled and all features are scored on the
    same ones: they share their galaxies, so that features are no sample. Ranks of labels, and the largest contrasts
    possible, are those of the whole sample.

    Parameters
    ----------
    alignment
        From `align`.
    test : ndarray of shape (n_test, m)
        The labels of the test galaxies.
    """
    known_features = np.flatnonzero(np.isfinite(alignment.score))
    d = len(alignment.score)
    labels = np.asarray(test, dtype=np.float64)[:, alignment.label[known_features]]
    is_known = ~np.isnan(labels)
    n_known = is_known.sum(axis=0)
    ranks = np.where(is_known, rankdata(labels, axis=0, nan_policy="omit"), 0.0)
    ranks = np.where(is_known, (2 * ranks - n_known - 1) / n_known, 0.0) * alignment.sign[known_features]
    members = alignment.members[:, known_features].toarray() > 0
    columns = np.hstack([ranks * members, is_known & members, ranks, is_known])

    def contrast(counts: NDArray[np.floating]) -> NDArray[np.float64]:
        above, n_members, total, n = (counts @ columns).reshape(4, -1)
        n_others = n - n_members
        both = (n_members > 0) & (n_others > 0)
        inside, outside = (
            np.divide(*each, out=np.zeros(len(both)), where=both)
            for each in ((above, n_members), (total - above, n_others))
        )
        return inside - outside

    found = contrast(np.ones(len(labels)))
    scale = np.divide(alignment.score[known_features], found, out=np.ones_like(found), where=found != 0)
    drawn = [
        contrast(counts.astype(np.float64)) @ scale / d for counts in resample_counts(len(labels), n_resamples, seed)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.nan_to_num(alignment.score).mean()), float(low), float(high)


def _end(values: FeatureMatrix, sign: int) -> Any:
    """The galaxies in which features are largest, or smallest (-1); none where more than half are smallest."""
    members: Any = strongest(values, sign)
    if sign > 0:
        return members
    is_few = np.asarray(members.sum(axis=0)) <= members.shape[0] / 2
    return sp.csr_array(members @ sp.diags_array(is_few.astype(np.float64)))
