"""The classifier "knn": the nearest train galaxies."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.tables import FeatureMatrix, Table, checked_table, row_slices
from sfnetlab.probes.common import (
    Scaling,
    balanced_mean,
    capped,
    checked_classes,
    class_log_odds,
    constant_scores,
    named_classes,
    require_columns,
)

NEIGHBOURS = (5, 15, 50, 150)
"""Numbers of nearest train galaxies on offer."""
MAX_ROWS = 20_000
"""It keeps at most so many train rows."""


class NeighbourClassifier:
    """Names the class that is most frequent among the nearest train galaxies, in features of unit train variance.

    A neighbour counts one over the number of train galaxies of its class, so that all classes weigh the same; at equal
    weights the first class is named. How many neighbours vote is the one of `NEIGHBOURS` with the best balanced
    accuracy on the valid rows, the fewest of equals.
    """

    n_neighbours_: int
    """0 where there was nothing to fit."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def fit(
        self, X: FeatureMatrix, y: NDArray[np.integer], X_valid: FeatureMatrix, y_valid: NDArray[np.integer]
    ) -> Self:
        """See `Classifier.fit`."""
        from sklearn.neighbors import NearestNeighbors

        table, classes, valid, valid_classes = checked_classes(X, y, X_valid, y_valid)
        table, classes = capped("knn", table, classes, MAX_ROWS, self.seed)
        self._scaling = Scaling(table)
        self._classes, self._log_odds = classes, class_log_odds(classes)
        self.n_neighbours_ = 0
        if self._scaling.kept.size == 0:
            return self
        offered = sorted({min(n, len(classes)) for n in NEIGHBOURS})
        self._index = NearestNeighbors(n_neighbors=offered[-1], algorithm="brute").fit(self._scaling.apply(table))
        nearest = self._nearest(valid, offered[-1])
        accuracies = [
            balanced_mean(
                (named_classes(self._votes(nearest[:, :n])) == valid_classes).astype(np.float64), valid_classes
            )
            for n in offered
        ]
        self.n_neighbours_ = offered[int(np.argmax(accuracies))]
        return self

    def score(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Classifier.score`: votes, of two classes those for class 1 less those for class 0."""
        table = checked_table(X)
        require_columns(table, self._scaling.n_columns)
        if self.n_neighbours_ == 0:
            return constant_scores(self._log_odds, table.shape[0])
        return self._votes(self._nearest(table, self.n_neighbours_))

    def _nearest(self, table: Table, n: int) -> NDArray[np.intp]:
        """Places (n_rows, n) of the nearest train rows, nearest first."""
        blocks = [
            self._index.kneighbors(self._scaling.apply(table[rows]), n, return_distance=False)
            for rows in row_slices((table.shape[0], max(table.shape[1], len(self._classes))))
        ]
        return np.concatenate([np.zeros((0, n), dtype=np.intp), *blocks])

    def _votes(self, nearest: NDArray[np.intp]) -> NDArray[np.float64]:
        weight = 1 / np.bincount(self._classes)
        each = [(self._classes[nearest] == number).sum(axis=1) for number in range(weight.size)]
        votes = np.stack(each, axis=1) * weight
        return votes[:, 1] - votes[:, 0] if weight.size == 2 else votes
