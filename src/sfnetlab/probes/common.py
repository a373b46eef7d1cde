"""What probes share: their protocols, checked rows, scaling, linear predictions, fits of linear classifiers."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sfnetlab.metrics.tables import (
    FeatureMatrix,
    Table,
    checked_labels,
    checked_table,
    column_mean_sd,
    in_memory,
    is_dense,
    row_blocks,
)

logger = logging.getLogger(__name__)

CLASS_PENALTIES = np.logspace(0, -4, 5)
"""Penalties on offer to linear classifiers, strongest first, as shares of the number of train rows; their C is
1 / (penalty x rows)."""


MAX_ROWS = 2**18
"""Linear classifiers see at most so many train rows."""


class Probe(Protocol):
    """Predicts label values Y, (n, m) in label units, from features X, an (n, d) dense or CSR table.

    Without a column that varies on the train rows (d = 0 too) every probe predicts the mean of the train labels.
    The same table gives the same predictions stored dense or CSR.
    """

    def fit(
        self, X: FeatureMatrix, Y: NDArray[np.floating], X_valid: FeatureMatrix, Y_valid: NDArray[np.floating]
    ) -> Self:
        """Fit to the train rows X, Y and choose on the valid rows; ValueError where a value is not finite."""
        ...

    def predict(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """Return predicted labels of shape (n, m), in label units."""
        ...


class Classifier(Protocol):
    """Tells classes apart, numbered from 0, by features X, an (n, d) dense or CSR table. All classes weigh the same.

    Without a column that varies on the train rows every classifier scores as the majority does.
    """

    def fit(
        self, X: FeatureMatrix, y: NDArray[np.integer], X_valid: FeatureMatrix, y_valid: NDArray[np.integer]
    ) -> Self:
        """Fit to the train rows X and y, (n,), where every class occurs, and choose on the valid rows.

        Raises
        ------
        ValueError
            If the train rows do not have the classes 0, 1, ... without a gap, the valid rows have others, or a value
            is not finite.
        """
        ...

    def score(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """Return scores like a decision function of scikit-learn: (n,) of two classes, > 0 for class 1; else (n, m).

        Among m classes the one with the largest score is named: see `named_classes`.
        """
        ...


def named_classes(scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the class numbers (n,) that scores of a `Classifier` stand for; of equal scores the first class."""
    return (scores > 0).astype(np.intp) if scores.ndim == 1 else np.argmax(scores, axis=1)


class Scaling:
    """Scales columns to unit train variance: dense columns are centred too, CSR ones not; constant ones are left out.

    Attributes
    ----------
    kept : ndarray of shape (n_kept,)
        The columns that vary on the train rows.
    """

    def __init__(self, table: Table) -> None:
        mean, sd = column_mean_sd(table)
        self.n_columns = sd.size
        self.kept = np.flatnonzero(sd)
        self.sd = sd[self.kept]
        self.mean = mean[self.kept] if is_dense(table) else np.zeros(self.kept.size)

    def apply(self, table: Table) -> Any:
        """Return the kept columns (n, n_kept) of a table, scaled; dense or CSR as it was."""
        chosen = in_memory(table[:, self.kept])
        if isinstance(chosen, np.ndarray):
            return (chosen - self.mean) / self.sd
        # scikit-learn's machines take 32-bit indices only
        indices, starts = (part.astype(np.int32) for part in (chosen.indices, chosen.indptr))
        return sp.csr_array((chosen.data / self.sd[chosen.indices], indices, starts), shape=chosen.shape)

    def undone(self, weights: NDArray[np.float64], intercept: float) -> tuple[NDArray[np.float64], float]:
        """Return weights (d,) and intercept for the unscaled columns, from those (n_kept,) of the scaled ones."""
        coef = np.zeros(self.n_columns)
        coef[self.kept] = weights / self.sd
        return coef, float(intercept - self.mean @ coef[self.kept])


class LinearScores(NamedTuple):
    """Weights that give the scores of a linear classifier; m is 1 of two classes."""

    coef: NDArray[np.float64]
    """(d, m), score per feature unit."""
    intercept: NDArray[np.float64]
    """(m,)."""
    penalty: float
    """The chosen one of `CLASS_PENALTIES`; NaN where there was nothing to fit."""

    def of(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """Return the scores that `Classifier.score` returns."""
        scores = linear_prediction(checked_table(X), self.coef, self.intercept)
        return scores[:, 0] if self.intercept.size == 1 else scores


def fit_linear(
    model: Any,
    table: Table,
    classes: NDArray[np.intp],
    valid: Table,
    valid_classes: NDArray[np.intp],
    losses: Callable[[Any, Any, NDArray[np.intp]], NDArray[np.float64]],
) -> LinearScores:
    """Fit one of scikit-learn's linear classifiers to features of unit train variance.

    From the strongest of `CLASS_PENALTIES` on, the next one is taken as long as the loss on the valid rows falls, each
    class weighing the same.

    Parameters
    ----------
    model
        An unfitted linear classifier with a parameter C.
    losses
        The loss (n,) of each of the rows that it is given, from the fitted model, the scaled rows and their classes.
    """
    table, classes = capped("linear classifier", table, classes, MAX_ROWS, seed=0)
    scaling = Scaling(table)
    log_odds = class_log_odds(classes)
    found = LinearScores(np.zeros((table.shape[1], log_odds.size)), log_odds, float("nan"))
    if scaling.kept.size == 0:
        return found
    standardised, valid_standardised = scaling.apply(table), scaling.apply(valid)
    least = np.inf
    for penalty in CLASS_PENALTIES:
        model.set_params(C=1 / (penalty * table.shape[0])).fit(standardised, classes)
        loss = balanced_mean(losses(model, valid_standardised, valid_classes), valid_classes)
        if loss >= least:
            break
        least = loss
        rows = [scaling.undone(w, float(b)) for w, b in zip(model.coef_, model.intercept_, strict=True)]
        found = LinearScores(np.stack([w for w, _ in rows], axis=1), np.array([b for _, b in rows]), float(penalty))
    return found


def linear_prediction(X: Table, coef: NDArray[np.float64], intercept: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return X @ coef + intercept, (n, m), a block of rows at a time where X is dense."""
    require_columns(X, coef.shape[0])
    if is_dense(X):
        return np.concatenate(
            [np.zeros((0, intercept.size)), *(block @ coef + intercept for _, block in row_blocks(X))]
        )
    return X @ coef + intercept


def class_log_odds(classes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the scores by which a classifier without features names the class of most rows.

    For two classes they are the log odds of class 1, (1,), for m classes the logarithms of their counts, (m,).
    """
    counts = np.bincount(classes)
    return np.log(counts[1:] / counts[:1]) if counts.size == 2 else np.log(counts)


def constant_scores(log_odds: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the same `class_log_odds` for n rows, in the shape of `Classifier.score`."""
    return np.full(n, log_odds[0]) if log_odds.size == 1 else np.tile(log_odds, (n, 1))


def balanced_mean(losses: NDArray[np.float64], classes: NDArray[np.generic]) -> float:
    """Return the mean over the classes that occur of the mean loss of each."""
    return float(np.mean([losses[classes == value].mean() for value in np.unique(classes)]))


def capped(
    name: str, table: Table, classes: NDArray[np.intp], max_rows: int, seed: int
) -> tuple[Table, NDArray[np.intp]]:
    """Return at most `max_rows` of the train rows, drawn at random, all classes in proportion; a warning says so."""
    n = len(classes)
    if n <= max_rows:
        return table, classes
    logger.warning("%s: fitted to %d of %d train rows, drawn at random, for its time grows too fast", name, max_rows, n)
    rng = np.random.default_rng(seed)
    parts = [np.flatnonzero(classes == value) for value in np.unique(classes)]
    drawn = [rng.choice(rows, max(1, round(len(rows) * max_rows / n)), replace=False) for rows in parts]
    rows = np.sort(np.concatenate(drawn))
    return table[rows], classes[rows]


def checked_rows(
    X: FeatureMatrix, Y: NDArray[np.floating], X_valid: FeatureMatrix, Y_valid: NDArray[np.floating]
) -> tuple[Table, NDArray[np.float64], Table, NDArray[np.float64]]:
    """Return the arguments of `Probe.fit`, labels in float64; ValueError unless they are finite and fit together."""
    train, valid = checked_table(X), checked_table(X_valid, "X_valid")
    labels, valid_labels = checked_labels(Y, train.shape[0]), checked_labels(Y_valid, valid.shape[0], "Y_valid")
    if 0 in labels.shape or 0 in valid_labels.shape or labels.shape[1] != valid_labels.shape[1]:
        raise ValueError(f"expected Y (n, m) and Y_valid (n_valid, m), got {labels.shape} and {valid_labels.shape}")
    require_columns(valid, train.shape[1])
    return train, labels, valid, valid_labels


def checked_classes(
    X: FeatureMatrix,
    y: NDArray[np.integer],
    X_valid: FeatureMatrix,
    y_valid: NDArray[np.integer],
    *,
    at_most: int | None = None,
) -> tuple[Table, NDArray[np.intp], Table, NDArray[np.intp]]:
    """Return the arguments of `Classifier.fit`; ValueError as there, and for more than `at_most` classes."""
    for name, labels in (("y", y), ("y_valid", y_valid)):
        if np.ndim(labels) != 1 or not np.issubdtype(np.asarray(labels).dtype, np.integer):
            raise ValueError(
                f"{name}: expected class numbers in shape (n,), got {np.asarray(labels).dtype} {np.shape(labels)}"
            )
    columns = (np.asarray(labels, dtype=np.float64)[:, None] for labels in (y, y_valid))
    table, _, valid, _ = checked_rows(X, next(columns), X_valid, next(columns))
    present = np.unique(y)
    if present.size < 2 or not np.array_equal(present, np.arange(present.size)):
        raise ValueError(f"y: expected classes 0, 1, ... without a gap, at least two, got {present.tolist()}")
    if at_most is not None and present.size > at_most:
        raise ValueError(f"y: expected {at_most} classes, which this classifier tells apart, got {present.size}")
    if not np.isin(y_valid, present).all():
        raise ValueError(f"y_valid: classes {sorted(set(y_valid.tolist()) - set(present.tolist()))} have no train row")
    return table, np.asarray(y, np.intp), valid, np.asarray(y_valid, np.intp)


def require_columns(X: Table, n_columns: int) -> None:
    """Raise ValueError unless the table has as many columns as the train rows had."""
    if X.shape[1] != n_columns:
        raise ValueError(f"expected {n_columns} feature columns as in the train rows, got {X.shape[1]}")
