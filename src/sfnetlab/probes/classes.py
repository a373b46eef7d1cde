"""Classifiers of one kind of galaxies against another: features to a score."""

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
from sfnetlab.schema import ClassifierName

RBF_COSTS = (0.1, 1.0, 10.0)
"""Costs C on offer to the RBF machine; its gamma is one over the number of features, which have unit variance."""


class Classifier(Protocol):
    """Features X, an (n, d) dense or CSR table, to a score of each galaxy that is > 0 for the positive class.

    Without a column that varies on the train rows every classifier scores as the majority does.
    """

    def fit(self, X: FeatureMatrix, y: NDArray[np.number], X_valid: FeatureMatrix, y_valid: NDArray[np.number]) -> Self:
        """Fit to the train rows X and y, (n,) of 0 and 1; choose on the valid rows."""
        ...

    def score(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """Decision scores of shape (n,)."""
        ...


def make_classifier(name: ClassifierName, *, seed: int) -> Classifier:
    """The unfitted classifier of that name; the seed draws the rows of support vector machines beyond `MAX_ROWS`."""
    match name:
        case "majority":
            return MajorityClassifier()
        case "logistic" | "linear_svm":
            return LinearClassifier(name, seed=seed)
        case "rbf_svm":
            return RBFClassifier(seed=seed)
        case _:
            raise ValueError(f"classifier: expected 'majority', 'logistic', 'linear_svm' or 'rbf_svm', got {name!r}")


class MajorityClassifier:
    """The class of most train rows for every galaxy: the score is the log odds of the train rows."""

    log_odds_: float

    def fit(self, X: FeatureMatrix, y: NDArray[np.number], X_valid: FeatureMatrix, y_valid: NDArray[np.number]) -> Self:
        """See `Classifier.fit`."""
        _, classes, _, _ = _checked_classes(X, y, X_valid, y_valid)
        self.log_odds_ = _log_odds(classes)
        return self

    def score(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Classifier.score`."""
        return np.full(checked_table(X).shape[0], self.log_odds_)


class LinearClassifier:
    """scikit-learn's logistic regression or linear support vector machine on features of unit train variance.

    Both classes weigh the same, in the fit and in the loss: of few AGN among many galaxies none would be found else.
    From the strongest of `CLASS_PENALTIES` on, the next one is taken as long as the loss on the valid rows falls: log
    loss, squared hinge loss.
    Dense features are centred too; sparse ones stay sparse, which changes nothing but the machine's small penalty on
    its intercept.
    """

    coef_: NDArray[np.float64]
    """(d, 1), score per feature unit."""
    intercept_: NDArray[np.float64]
    """(1,)."""
    penalty_: float
    """The chosen one of `CLASS_PENALTIES`; NaN where there was nothing to fit."""

    def __init__(self, name: Literal["logistic", "linear_svm"], *, seed: int) -> None:
        self.name: Literal["logistic", "linear_svm"] = name
        self.seed = seed

    def fit(self, X: FeatureMatrix, y: NDArray[np.number], X_valid: FeatureMatrix, y_valid: NDArray[np.number]) -> Self:
        """See `Classifier.fit`."""
        table, classes, valid, valid_classes = _checked_classes(X, y, X_valid, y_valid)
        table, classes = capped(self.name, table, classes, self.seed)
        scaling = Scaling(table)
        self.coef_, self.intercept_ = np.zeros((table.shape[1], 1)), np.array([_log_odds(classes)])
        self.penalty_ = float("nan")
        if scaling.kept.size == 0:
            return self
        standardised, valid_standardised = scaling.apply(table), scaling.apply(valid)
        signs = np.where(valid_classes, 1.0, -1.0)
        model = self._model(standardised.shape)

        def valid_loss() -> float:
            margins = signs * model.decision_function(valid_standardised)
            losses = np.logaddexp(0, -margins) if self.name == "logistic" else np.maximum(0, 1 - margins) ** 2
            return balanced_mean(losses, valid_classes)

        for penalty in fits_while_better(model, standardised, classes, valid_loss):
            self.penalty_ = penalty
            self.coef_, self.intercept_ = scaling.undone(model.coef_[0].copy(), float(model.intercept_[0]))
        return self

    def score(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Classifier.score`."""
        return linear_prediction(checked_table(X), self.coef_, self.intercept_)[:, 0]

    def _model(self, shape: tuple[int, ...]) -> Any:
        if self.name == "logistic":
            from sklearn.linear_model import LogisticRegression

            return LogisticRegression(class_weight="balanced", max_iter=1000, warm_start=True)
        from sklearn.svm import LinearSVC

        # the intercept is penalised as one more weight: far enough away, that penalty is nothing
        return LinearSVC(
            class_weight="balanced",
            dual=shape[1] > shape[0],
            intercept_scaling=10.0,
            max_iter=20_000,
            random_state=0,
        )


class RBFClassifier:
    """scikit-learn's support vector machine with a Gaussian kernel, for tables of few features.

    The cost is the one of `RBF_COSTS` with the least hinge loss on the valid rows; both classes weigh the same.
    """

    cost_: float
    """The chosen one of `RBF_COSTS`; NaN where there was nothing to fit."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def fit(self, X: FeatureMatrix, y: NDArray[np.number], X_valid: FeatureMatrix, y_valid: NDArray[np.number]) -> Self:
        """See `Classifier.fit`."""
        from sklearn.svm import SVC

        table, classes, valid, valid_classes = _checked_classes(X, y, X_valid, y_valid)
        table, classes = capped("rbf_svm", table, classes, self.seed)
        self._scaling = Scaling(table)
        self._log_odds = _log_odds(classes)
        self._n_columns = table.shape[1]
        self._model: Any = None
        self.cost_ = float("nan")
        if self._scaling.kept.size == 0:
            return self
        standardised, valid_standardised = self._scaling.apply(table), self._scaling.apply(valid)
        signs = np.where(valid_classes, 1.0, -1.0)
        least = np.inf
        for cost in RBF_COSTS:
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
        require_columns(table, self._n_columns)
        if self._model is None:
            return np.full(table.shape[0], self._log_odds)
        scores = [self._model.decision_function(self._scaling.apply(table[rows])) for rows in row_slices(table.shape)]
        return np.concatenate([np.zeros(0), *scores])


def _log_odds(classes: NDArray[np.bool_]) -> float:
    return float(np.log(np.count_nonzero(classes) / np.count_nonzero(~classes)))


def _checked_classes(
    X: FeatureMatrix, y: NDArray[np.number], X_valid: FeatureMatrix, y_valid: NDArray[np.number]
) -> tuple[Table, NDArray[np.bool_], Table, NDArray[np.bool_]]:
    """The four tables, finite and fitting each other, with both classes on the train rows."""
    for name, labels in (("y", y), ("y_valid", y_valid)):
        if np.ndim(labels) != 1 or not np.isin(labels, (0, 1)).all():
            raise ValueError(f"{name}: expected 0 and 1 in shape (n,), got shape {np.shape(labels)}")
    columns = (np.asarray(labels, dtype=np.float64)[:, None] for labels in (y, y_valid))
    table, classes, valid, valid_classes = checked_rows(X, next(columns), X_valid, next(columns))
    if classes.min() == classes.max():
        raise ValueError(f"y: expected both classes, got {classes.size} times {classes[0, 0]:g}")
    return table, classes[:, 0] > 0, valid, valid_classes[:, 0] > 0
