"""Classifiers of many kinds of galaxies: features to one of the kinds."""

from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.tables import FeatureMatrix, Table, checked_table, row_slices
from sfnetlab.probes.common import (
    Scaling,
    balanced_mean,
    capped,
    checked_rows,
    fits_while_better,
    linear_prediction,
    require_columns,
)

LabelClassifierName = Literal["majority", "logistic", "knn"]
LABEL_CLASSIFIERS: tuple[LabelClassifierName, ...] = ("majority", "logistic", "knn")
NEIGHBOURS = (5, 15, 50, 150)
"""Numbers of nearest train galaxies on offer."""


class LabelClassifier(Protocol):
    """Features X, an (n, d) dense or CSR table, to one of many classes, numbered from 0.

    Without a column that varies on the train rows every classifier names the class of most train rows.
    """

    def fit(
        self, X: FeatureMatrix, y: NDArray[np.integer], X_valid: FeatureMatrix, y_valid: NDArray[np.integer]
    ) -> Self:
        """Fit to the train rows X and y (n,), where all classes occur; choose on the valid rows."""
        ...

    def predict(self, X: FeatureMatrix) -> NDArray[np.intp]:
        """Class numbers of shape (n,)."""
        ...


def make_label_classifier(name: LabelClassifierName, *, seed: int) -> LabelClassifier:
    """The unfitted classifier of that name; the seed draws the rows that "knn" keeps beyond `MAX_ROWS`."""
    match name:
        case "majority":
            return MajorityLabelClassifier()
        case "logistic":
            return LogisticLabelClassifier()
        case "knn":
            return NeighbourClassifier(seed=seed)
        case _:
            raise ValueError(f"classifier: expected 'majority', 'logistic' or 'knn', got {name!r}")


class MajorityLabelClassifier:
    """The class of most train rows for every galaxy: a balanced accuracy of one over the number of classes."""

    label_: int

    def fit(
        self, X: FeatureMatrix, y: NDArray[np.integer], X_valid: FeatureMatrix, y_valid: NDArray[np.integer]
    ) -> Self:
        """See `LabelClassifier.fit`."""
        _, labels, _, _ = _checked_labels(X, y, X_valid, y_valid)
        self.label_ = _most_frequent(labels)
        return self

    def predict(self, X: FeatureMatrix) -> NDArray[np.intp]:
        """See `LabelClassifier.predict`."""
        return np.full(checked_table(X).shape[0], self.label_)


class LogisticLabelClassifier:
    """scikit-learn's multinomial logistic regression on features of unit train variance, all classes weighing the same.

    From the strongest of `CLASS_PENALTIES` on, the next one is taken as long as the log loss on the valid rows falls.
    """

    coef_: NDArray[np.float64]
    """(d, n_classes), log odds per feature unit, up to a term that all classes share."""
    intercept_: NDArray[np.float64]
    """(n_classes,)."""
    penalty_: float
    """The chosen one of `CLASS_PENALTIES`; NaN where there was nothing to fit."""

    def fit(
        self, X: FeatureMatrix, y: NDArray[np.integer], X_valid: FeatureMatrix, y_valid: NDArray[np.integer]
    ) -> Self:
        """See `LabelClassifier.fit`."""
        from sklearn.linear_model import LogisticRegression

        table, labels, valid, valid_labels = _checked_labels(X, y, X_valid, y_valid)
        scaling = Scaling(table)
        counts = np.bincount(labels)
        self.coef_, self.intercept_ = np.zeros((table.shape[1], counts.size)), np.log(counts)
        self.penalty_ = float("nan")
        if scaling.kept.size == 0:
            return self
        standardised, valid_standardised = scaling.apply(table), scaling.apply(valid)
        model = LogisticRegression(class_weight="balanced", max_iter=1000, warm_start=True)

        def valid_loss() -> float:
            log_shares = model.predict_log_proba(valid_standardised)
            return balanced_mean(-log_shares[np.arange(len(valid_labels)), valid_labels], valid_labels)

        for penalty in fits_while_better(model, standardised, labels, valid_loss):
            self.penalty_ = penalty
            self.coef_, self.intercept_ = self._unscaled(model, scaling)
        return self

    def predict(self, X: FeatureMatrix) -> NDArray[np.intp]:
        """See `LabelClassifier.predict`."""
        return np.argmax(linear_prediction(checked_table(X), self.coef_, self.intercept_), axis=1)

    @staticmethod
    def _unscaled(model: Any, scaling: "Scaling") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        weights, intercepts = model.coef_, model.intercept_
        if len(weights) == 1:  # of two classes scikit-learn fits the second one alone
            weights, intercepts = np.vstack([-weights, weights]) / 2, np.array([-1, 1]) * intercepts / 2
        parts = [scaling.undone(own, float(b)) for own, b in zip(weights, intercepts, strict=True)]
        return np.hstack([coef for coef, _ in parts]), np.concatenate([intercept for _, intercept in parts])


class NeighbourClassifier:
    """The class that is most frequent among the nearest train galaxies, in features of unit train variance.

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
        """See `LabelClassifier.fit`."""
        from sklearn.neighbors import NearestNeighbors

        table, labels, valid, valid_labels = _checked_labels(X, y, X_valid, y_valid)
        table, labels = capped("knn", table, labels, self.seed)
        self._scaling = Scaling(table)
        self._labels, self._majority = labels, _most_frequent(labels)
        self._n_columns = table.shape[1]
        self.n_neighbours_ = 0
        if self._scaling.kept.size == 0:
            return self
        offered = sorted({min(n, len(labels)) for n in NEIGHBOURS})
        self._index = NearestNeighbors(n_neighbors=offered[-1], algorithm="brute").fit(self._scaling.apply(table))
        nearest = self._nearest(valid, offered[-1])
        scores = [
            balanced_mean((self._votes(nearest[:, :n]) == valid_labels).astype(np.float64), valid_labels)
            for n in offered
        ]
        self.n_neighbours_ = offered[int(np.argmax(scores))]
        return self

    def predict(self, X: FeatureMatrix) -> NDArray[np.intp]:
        """See `LabelClassifier.predict`."""
        table = checked_table(X)
        require_columns(table, self._n_columns)
        if self.n_neighbours_ == 0:
            return np.full(table.shape[0], self._majority)
        return self._votes(self._nearest(table, self.n_neighbours_))

    def _nearest(self, table: Table, n: int) -> NDArray[np.intp]:
        """Places (n_rows, n) of the nearest train rows, nearest first."""
        blocks = [
            self._index.kneighbors(self._scaling.apply(table[rows]), n, return_distance=False)
            for rows in row_slices((table.shape[0], max(table.shape[1], len(self._labels))))
        ]
        return np.concatenate([np.zeros((0, n), dtype=np.intp), *blocks])

    def _votes(self, nearest: NDArray[np.intp]) -> NDArray[np.intp]:
        of_class = 1 / np.bincount(self._labels)
        votes = np.stack([(self._labels[nearest] == label).sum(axis=1) for label in range(of_class.size)], axis=1)
        return np.argmax(votes * of_class, axis=1)


def _most_frequent(labels: NDArray[np.integer]) -> int:
    return int(np.argmax(np.bincount(labels)))


def _checked_labels(
    X: FeatureMatrix, y: NDArray[np.integer], X_valid: FeatureMatrix, y_valid: NDArray[np.integer]
) -> tuple[Table, NDArray[np.intp], Table, NDArray[np.intp]]:
    """The four tables, finite and fitting each other; the train rows hold the classes 0, 1, ... without a gap."""
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
    if not np.isin(y_valid, present).all():
        raise ValueError(f"y_valid: classes {sorted(set(y_valid.tolist()) - set(present.tolist()))} have no train row")
    return table, np.asarray(y, np.intp), valid, np.asarray(y_valid, np.intp)
