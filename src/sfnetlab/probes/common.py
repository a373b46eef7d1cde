"""What probes share: checked tables, scaling, linear predictions, penalties of classifiers."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sfnetlab.metrics.tables import FeatureMatrix, Table, checked_labels, checked_table, column_mean_sd, row_blocks

logger = logging.getLogger(__name__)

CLASS_PENALTIES = np.logspace(0, -4, 5)
"""Penalties on offer to linear classifiers, strongest first, as shares of the number of train rows; their C is
1 / (penalty x rows)."""
MAX_ROWS: dict[str, int] = {"linear_svm": 20_000, "rbf_svm": 2_000, "knn": 20_000}
"""These classifiers see at most so many train rows, drawn at random; a warning says when."""


class Scaling:
    """To unit train variance: dense columns centred too, CSR ones not; constant columns are left out."""

    def __init__(self, table: Table) -> None:
        mean, sd = column_mean_sd(table)
        self.n_columns = sd.size
        self.kept = np.flatnonzero(sd)
        self.sd = sd[self.kept]
        self.mean = mean[self.kept] if isinstance(table, np.ndarray) else np.zeros(self.kept.size)

    def apply(self, table: Table) -> Any:
        chosen = table[:, self.kept]
        if isinstance(chosen, np.ndarray):
            return (chosen - self.mean) / self.sd
        # scikit-learn's machines take 32-bit indices only
        indices, starts = (part.astype(np.int32) for part in (chosen.indices, chosen.indptr))
        return sp.csr_array((chosen.data / self.sd[chosen.indices], indices, starts), shape=chosen.shape)

    def undone(self, weights: NDArray[np.float64], intercept: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights (d, 1) and intercept (1,) of the unscaled columns."""
        coef = np.zeros((self.n_columns, 1))
        coef[self.kept, 0] = weights / self.sd
        return coef, np.array([intercept - self.mean @ coef[self.kept, 0]])


def linear_prediction(X: Table, coef: NDArray[np.float64], intercept: NDArray[np.float64]) -> NDArray[np.float64]:
    """X @ coef + intercept, (n, m), a block of rows at a time where X is dense."""
    require_columns(X, coef.shape[0])
    if isinstance(X, np.ndarray):
        return np.concatenate(
            [np.zeros((0, intercept.size)), *(block @ coef + intercept for _, block in row_blocks(X))]
        )
    return X @ coef + intercept


def fits_while_better(
    model: Any, table: Any, classes: NDArray[np.generic], valid_loss: Callable[[], float]
) -> Iterator[float]:
    """Fit a linear classifier with one of `CLASS_PENALTIES` after another, as long as its loss on valid rows falls.

    Yields each such penalty while the model is fitted with it; `valid_loss` asks the model as it is.
    """
    least = np.inf
    for penalty in CLASS_PENALTIES:
        model.set_params(C=1 / (penalty * table.shape[0])).fit(table, classes)
        loss = valid_loss()
        if loss >= least:
            return
        least = loss
        yield float(penalty)


def balanced_mean(losses: NDArray[np.float64], classes: NDArray[np.generic]) -> float:
    """Mean of the means of the classes, of those that are there."""
    return float(np.mean([losses[classes == value].mean() for value in np.unique(classes)]))


def capped(name: str, table: Table, classes: NDArray[Any], seed: int) -> tuple[Table, NDArray[Any]]:
    """At most `MAX_ROWS` of the train rows, all classes in their proportion."""
    n, cap = len(classes), MAX_ROWS.get(name, len(classes))
    if n <= cap:
        return table, classes
    logger.warning("%s: fitted to %d of %d train rows, drawn at random, for its time grows too fast", name, cap, n)
    rng = np.random.default_rng(seed)
    parts = [np.flatnonzero(classes == value) for value in np.unique(classes)]
    drawn = [rng.choice(rows, max(1, round(len(rows) * cap / n)), replace=False) for rows in parts]
    rows = np.sort(np.concatenate(drawn))
    return table[rows], classes[rows]


def checked_rows(
    X: FeatureMatrix, Y: NDArray[np.floating], X_valid: FeatureMatrix, Y_valid: NDArray[np.floating]
) -> tuple[Table, NDArray[np.float64], Table, NDArray[np.float64]]:
    """The four tables, finite and fitting each other; labels in float64."""
    train, valid = checked_table(X), checked_table(X_valid, "X_valid")
    labels, valid_labels = checked_labels(Y, train.shape[0]), checked_labels(Y_valid, valid.shape[0], "Y_valid")
    if 0 in labels.shape or 0 in valid_labels.shape or labels.shape[1] != valid_labels.shape[1]:
        raise ValueError(f"expected Y (n, m) and Y_valid (n_valid, m), got {labels.shape} and {valid_labels.shape}")
    require_columns(valid, train.shape[1])
    return train, labels, valid, valid_labels


def require_columns(X: Table, n_columns: int) -> None:
    """ValueError unless the table has as many columns as the train rows had."""
    if X.shape[1] != n_columns:
        raise ValueError(f"expected {n_columns} feature columns as in the train rows, got {X.shape[1]}")
