"""The classifier "rbf_svm": the support vector machine with a Gaussian kernel."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.tables import FeatureMatrix, checked_table, row_slices
from sfnetlab.probes.common import (
    Scaling,
    balanced_mean,
    capped,
    checked_classes,
    class_log_odds,
    constant_scores,
    require_columns,
)

COSTS = (0.1, 1.0, 10.0)
"""Costs C on offer; gamma is one over the number of features, which have unit variance."""
MAX_ROWS = 2_000
"""It sees at most so many train rows."""


class RBFMachine:
    """scikit-learn's support vector machine with a Gaussian kernel, for two classes and tables of few features.

    The cost is the one of `COSTS` with the least hinge loss on the valid rows; both classes weigh the same.
    """

    cost_: float
    """The chosen one of `COSTS`; NaN where there was nothing to fit."""
    n_train_rows_: int
    """How many rows it was fitted to."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def fit(
        self, X: FeatureMatrix, y: NDArray[np.integer], X_valid: FeatureMatrix, y_valid: NDArray[np.integer]
    ) -> Self:
        """See `Classifier.fit`."""
        from sklearn.svm import SVC

        table, classes, valid, valid_classes = checked_classes(X, y, X_valid, y_valid, at_most=2)
        table, classes = capped("rbf_svm", table, classes, MAX_ROWS, self.seed)
        self.n_train_rows_ = table.shape[0]
        self._scaling = Scaling(table)
        self._log_odds = class_log_odds(classes)
        self._model: Any = None
        self.cost_ = float("nan")
        if self._scaling.kept.size == 0:
            return self
        standardised, valid_standardised = self._scaling.apply(table), self._scaling.apply(valid)
        signs = np.where(valid_classes == 1, 1.0, -1.0)
        least = np.inf
        for cost in COSTS:
            model = SVC(C=cost, gamma=1 / self._scaling.kept.size, class_weight="balanced", cache_size=500)
            model.fit(standardised, classes)
            losses = np.maximum(0, 1 - signs * model.decision_function(valid_standardised))
            loss = balanced_mean(losses, valid_classes)
            if loss < least:
                least, self.cost_, self._model = loss, cost, model
        return self

    def score(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Classifier.score`."""
        table = checked_table(X)
        require_columns(table, self._scaling.n_columns)
        if self._model is None:
            return constant_scores(self._log_odds, table.shape[0])
        scores = [self._model.decision_function(self._scaling.apply(table[rows])) for rows in row_slices(table.shape)]
        return np.concatenate([np.zeros(0), *scores])
