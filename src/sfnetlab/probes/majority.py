"""The control "majority": what is scored without features."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.tables import FeatureMatrix, checked_table
from sfnetlab.probes.common import checked_classes, class_log_odds, constant_scores


class MajorityClassifier:
    """Names the class of most train rows for every galaxy: its balanced accuracy is one over the number of classes."""

    log_odds_: NDArray[np.float64]
    """Log odds of class 1 among the train rows, (1,); for m classes the logarithms of their counts, (m,)."""

    def fit(
        self, X: FeatureMatrix, y: NDArray[np.integer], X_valid: FeatureMatrix, y_valid: NDArray[np.integer]
    ) -> Self:
        """See `Classifier.fit`."""
        _, classes, _, _ = checked_classes(X, y, X_valid, y_valid)
        self.log_odds_ = class_log_odds(classes)
        return self

    def score(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Classifier.score`."""
        return constant_scores(self.log_odds_, checked_table(X).shape[0])
