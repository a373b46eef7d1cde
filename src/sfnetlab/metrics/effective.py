"""How many features a table effectively has: near copies are one feature, whatever k and the number in all say."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.association import correlation_blocks, correlation_matrix
from sfnetlab.metrics.tables import FeatureMatrix, checked_table, column_mean_sd, columns_of

MERGED = 0.8
"""Features are near copies where their |Pearson correlation| is larger."""


class EffectiveNumber(NamedTuple):
    """Two answers to the question how many features there are."""

    n_effective: int
    """Clusters of `merged_features`: each near copy counts once, however weak the feature is."""
    participation: float
    """Participation ratio of the covariance, (sum of eigenvalues)² / sum of their squares: features count by their
    variance, in their own units. NaN where no feature varies."""


def effective_number(X: FeatureMatrix) -> EffectiveNumber:
    """Return how many features the columns of an (n, d) table effectively are, dense or CSR; see `EffectiveNumber`.

    Raises
    ------
    ValueError
        If a value is not finite.
    """
    table = checked_table(X)
    cluster = merged_features(X)
    if (cluster < 0).all():
        return EffectiveNumber(0, float("nan"))
    sd = column_mean_sd(table)[1]
    squares = sum(
        float(np.nansum((block * np.outer(sd[columns], sd)) ** 2)) for columns, block in correlation_blocks(table)
    )
    return EffectiveNumber(int(cluster.max()) + 1, float(np.sum(sd**2) ** 2 / squares))


def merged_features(X: FeatureMatrix, above: float = MERGED) -> NDArray[np.int64]:
    """Return the cluster (d,) of each column of an (n, d) table, from 0 in the order of columns; -1 for constant ones.

    Clusters of near copies are those of average linkage: two are merged where the mean |correlation| of their features
    exceeds `above`. So a chain of features of which only neighbours are alike does not become one.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import squareform

    table = checked_table(X)
    d = table.shape[1]
    if table.shape[0] == 0 or d == 0:
        return np.full(d, -1)
    alike = ((columns.start, np.abs(block) > above) for columns, block in correlation_blocks(table))
    i, j = np.concatenate([np.argwhere(pairs) + np.array([start, 0]) for start, pairs in alike]).T
    # average linkage merges nothing across components, and so no matrix of all features is held
    _, component = connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(d, d)), directed=False)
    cluster = np.full(d, -1)
    varies = column_mean_sd(table)[1] > 0
    for number in np.unique(component[varies]):
        members = np.flatnonzero((component == number) & varies)
        cluster[members] = members[0]
        if len(members) > 2:
            distance = 1 - np.abs(correlation_matrix(columns_of(X, members)))
            np.fill_diagonal(distance, 0)
            merged = fcluster(linkage(squareform(distance, checks=False), "average"), 1 - above, "distance")
            for label in np.unique(merged):
                cluster[members[merged == label]] = members[merged == label][0]
    cluster[varies] = np.unique(cluster[varies], return_inverse=True)[1]
    return cluster
