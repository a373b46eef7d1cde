"""The probe "linear": ordinary least squares."""

import logging
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.tables import FeatureMatrix, checked_table
from sfnetlab.probes.common import checked_rows, linear_prediction
from sfnetlab.probes.paths import Decomposed, PenaltyPath

logger = logging.getLogger(__name__)


class LinearProbe:
    """Ordinary least squares with intercept; the valid rows are not used.

    Where the table is rank-deficient or wider than long, it takes the solution of least norm in standardised features
    and warns: with as many columns as train rows it interpolates them, and ridge is the fair probe.
    """

    coef_: NDArray[np.float64]
    """(d, m), label unit per feature unit."""
    intercept_: NDArray[np.float64]
    """(m,), label unit."""

    def fit(
        self, X: FeatureMatrix, Y: NDArray[np.floating], X_valid: FeatureMatrix, Y_valid: NDArray[np.floating]
    ) -> Self:
        """See `Probe.fit`."""
        table, labels, _, _ = checked_rows(X, Y, X_valid, Y_valid)
        rows = Decomposed(table)
        if rows.rank < table.shape[1]:
            logger.warning(
                "linear probe: %d columns but rank %d on %d train rows; taking the least-norm solution",
                table.shape[1],
                rows.rank,
                table.shape[0],
            )
        path = PenaltyPath(rows, labels)
        self.coef_ = path.coefficients(0.0)
        self.intercept_ = path.intercept(self.coef_)
        return self

    def predict(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Probe.predict`."""
        return linear_prediction(checked_table(X), self.coef_, self.intercept_)
