"""The classifier "linear_svm": the linear support vector machine."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.tables import FeatureMatrix
from sfnetlab.probes.common import LinearScores, capped, checked_classes, fit_linear

MAX_ROWS = 20_000
"""It sees at most so many train rows."""


class LinearSVM:
    """scikit-learn's linear support vector machine on features of unit train variance, for two classes.

    Both classes weigh the same, in the fit and in the loss: of few AGN among many galaxies none would be found else.
    Its penalty is chosen by `fit_linear` with the squared hinge loss. Dense features are centred too; sparse ones stay
    sparse, which changes nothing but the machine's small penalty on its intercept.
    """

    weights_: LinearScores

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def fit(
        self, X: FeatureMatrix, y: NDArray[np.integer], X_valid: FeatureMatrix, y_valid: NDArray[np.integer]
    ) -> Self:
        """See `Classifier.fit`."""
        from sklearn.svm import LinearSVC

        table, classes, valid, valid_classes = checked_classes(X, y, X_valid, y_valid, at_most=2)
        table, classes = capped("linear_svm", table, classes, MAX_ROWS, self.seed)
        # the intercept is penalised as one more weight: far enough away, that penalty is nothing
        model = LinearSVC(
            class_weight="balanced",
            dual=table.shape[1] > table.shape[0],
            intercept_scaling=10.0,
            max_iter=20_000,
            random_state=0,
        )
        self.weights_ = fit_linear(model, table, classes, valid, valid_classes, _squared_hinge_losses)
        return self

    def score(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Classifier.score`."""
        return self.weights_.of(X)


def _squared_hinge_losses(model: Any, X: Any, y: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.maximum(0, 1 - np.where(y == 1, 1.0, -1.0) * model.decision_function(X)) ** 2
