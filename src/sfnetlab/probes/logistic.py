"""The classifier "logistic": logistic regression, of more than two classes multinomial."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.tables import FeatureMatrix
from sfnetlab.probes.common import LinearScores, checked_classes, fit_linear


class LogisticClassifier:
    """scikit-learn's logistic regression on features of unit train variance, all classes weighing the same.

    Its penalty is chosen by `fit_linear` with the log loss. Dense features are centred too; sparse ones stay sparse.
    """

    weights_: LinearScores
    """Log odds of class 1; of more than two classes log odds of each, up to a term that all share."""

    def fit(
        self, X: FeatureMatrix, y: NDArray[np.integer], X_valid: FeatureMatrix, y_valid: NDArray[np.integer]
    ) -> Self:
        """See `Classifier.fit`."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(class_weight="balanced", max_iter=1000, warm_start=True)
        self.weights_ = fit_linear(model, *checked_classes(X, y, X_valid, y_valid), _log_losses)
        return self

    def score(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Classifier.score`."""
        return self.weights_.of(X)


def _log_losses(model: Any, X: Any, y: NDArray[np.intp]) -> NDArray[np.float64]:
    if len(model.classes_) == 2:
        return np.logaddexp(0, -np.where(y == 1, 1.0, -1.0) * model.decision_function(X))
    losses: NDArray[np.float64] = -model.predict_log_proba(X)[np.arange(len(y)), y]
    return losses
