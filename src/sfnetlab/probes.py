"""The common probes: linear, ridge and XGBoost behind one protocol, and classifiers behind another.

Train rows fit (scaling too), valid rows choose; whoever scores the test rows calls `predict` once.
"""

import logging
from typing import Any, Literal, Protocol, Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from sfnetlab.metrics.tables import (
    FeatureTable,
    Table,
    checked_labels,
    checked_table,
    column_mean_sd,
    row_blocks,
    row_slices,
    transpose_product,
)
from sfnetlab.schema import ClassifierName, ProbeName

logger = logging.getLogger(__name__)

PENALTIES = np.logspace(-7, 3, 21)
"""Ridge penalties on offer, as shares of the number of train rows (features have unit variance)."""

MAX_ROUNDS = 500
STOP_AFTER_ROUNDS = 20
CLASS_PENALTIES = np.logspace(0, -4, 5)
"""Penalties on offer to linear classifiers, strongest first, as shares of the number of train rows; their C is
1 / (penalty x rows)."""
RBF_COSTS = (0.1, 1.0, 10.0)
"""Costs C on offer to the RBF machine; its gamma is one over the number of features, which have unit variance."""
MAX_ROWS: dict[str, int] = {"linear_svm": 20_000, "rbf_svm": 2_000, "knn": 20_000}
"""These classifiers see at most so many train rows, drawn at random; a warning says when."""

TREES = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "learning_rate": 0.1,
    "max_depth": 5,
    "max_bin": 64,
    "min_child_weight": 5,
    "subsample": 0.8,
}


class Probe(Protocol):
    """Features X, an (n, d) dense or CSR table, to labels Y, (n, m) in label units.

    Without a column that varies on the train rows (d = 0 too) every probe predicts the mean of the train labels.
    The same table gives the same predictions stored dense or CSR.
    """

    def fit(
        self, X: FeatureTable, Y: NDArray[np.floating], X_valid: FeatureTable, Y_valid: NDArray[np.floating]
    ) -> Self:
        """Fit to the train rows X, Y; choose on the valid rows. ValueError for values that are not finite."""
        ...

    def predict(self, X: FeatureTable) -> NDArray[np.float64]:
        """Labels of shape (n, m), in label units."""
        ...


def make_probe(name: ProbeName, *, seed: int, n_threads: int) -> Probe:
    """The unfitted probe of that name; seed and threads concern XGBoost, the others are deterministic."""
    match name:
        case "linear":
            return LinearProbe()
        case "ridge":
            return RidgeProbe()
        case "xgboost":
            return XGBoostProbe(seed=seed, n_threads=n_threads)
        case _:
            raise ValueError(f"probe: expected 'linear', 'ridge' or 'xgboost', got {name!r}")


def fit_probe(
    name: ProbeName,
    X: FeatureTable,
    Y: NDArray[np.floating],
    X_valid: FeatureTable,
    Y_valid: NDArray[np.floating],
    *,
    seed: int,
    n_threads: int,
) -> Probe:
    """The probe of that name, fitted to the train rows X, Y with its choices made on the valid rows."""
    return make_probe(name, seed=seed, n_threads=n_threads).fit(X, Y, X_valid, Y_valid)


class LinearProbe:
    """Ordinary least squares with intercept; the valid rows are not used.

    Rank-deficient or wider than long, it takes the solution of least norm in standardised features and warns:
    with as many columns as train rows it interpolates them, and ridge is the fair probe.
    """

    coef_: NDArray[np.float64]
    """(d, m), label unit per feature unit."""
    intercept_: NDArray[np.float64]
    """(m,), label unit."""

    def fit(
        self, X: FeatureTable, Y: NDArray[np.floating], X_valid: FeatureTable, Y_valid: NDArray[np.floating]
    ) -> Self:
        """See `Probe.fit`."""
        table, labels, _, _ = _checked(X, Y, X_valid, Y_valid)
        path = _PenaltyPath(table, labels)
        if path.rank < table.shape[1]:
            logger.warning(
                "linear probe: %d columns but rank %d on %d train rows; taking the least-norm solution",
                table.shape[1],
                path.rank,
                table.shape[0],
            )
        self.coef_ = path.coefficients(0.0)
        self.intercept_ = path.intercept(self.coef_)
        return self

    def predict(self, X: FeatureTable) -> NDArray[np.float64]:
        """See `Probe.predict`."""
        return _linear_prediction(checked_table(X), self.coef_, self.intercept_)


class RidgeProbe:
    """Ridge on features of unit train variance with a free intercept; each label column has its own penalty.

    The penalty is the one of `PENALTIES` with the least squared error on the valid rows. One eigendecomposition serves
    all penalties and labels.
    """

    coef_: NDArray[np.float64]
    """(d, m), label unit per feature unit."""
    intercept_: NDArray[np.float64]
    """(m,), label unit."""
    alpha_: NDArray[np.float64]
    """(m,), the chosen penalties as sklearn's Ridge counts them (for standardised features)."""
    is_at_edge_: NDArray[np.bool_]
    """(m,), whether the choice is the first or last on offer."""

    def fit(
        self, X: FeatureTable, Y: NDArray[np.floating], X_valid: FeatureTable, Y_valid: NDArray[np.floating]
    ) -> Self:
        """See `Probe.fit`."""
        table, labels, valid, valid_labels = _checked(X, Y, X_valid, Y_valid)
        path = _PenaltyPath(table, labels)
        alphas = PENALTIES * table.shape[0]
        coefs, errors = _path_errors(path, alphas, valid, valid_labels)
        best = np.argmin(errors, axis=0)
        self.coef_ = np.stack([coefs[i][:, column] for column, i in enumerate(best)], axis=1)
        self.intercept_ = path.intercept(self.coef_)
        self.alpha_ = alphas[best]
        self.is_at_edge_ = (best == 0) | (best == alphas.size - 1)
        if path.rank > 0 and self.is_at_edge_.any():
            logger.debug(  # where hundreds of features are read from another table, some always are
                "ridge probe: %d of %d label columns take a penalty at the edge of the grid "
                "(%g: as good as least squares; %g: next to the train mean)",
                np.count_nonzero(self.is_at_edge_),
                self.is_at_edge_.size,
                alphas[0],
                alphas[-1],
            )
        return self

    def predict(self, X: FeatureTable) -> NDArray[np.float64]:
        """See `Probe.predict`."""
        return _linear_prediction(checked_table(X), self.coef_, self.intercept_)


class XGBoostProbe:
    """Boosted trees, one ensemble a label column, stopped where the valid rows no longer gain.

    A value of zero is XGBoost's "missing", in dense and CSR tables alike: how a table is stored changes nothing, and
    sparse ones stay sparse. The same seed, number of threads and machine give the same trees.
    """

    n_rounds_: list[int]
    """Trees in use for each label column."""

    def __init__(self, *, seed: int, n_threads: int) -> None:
        self.seed = seed
        self.n_threads = n_threads

    def fit(
        self, X: FeatureTable, Y: NDArray[np.floating], X_valid: FeatureTable, Y_valid: NDArray[np.floating]
    ) -> Self:
        """See `Probe.fit`."""
        import xgboost

        table, labels, valid_table, valid_labels = _checked(X, Y, X_valid, Y_valid)
        # XGBoost computes in float32: standardised labels lose nothing, whatever their unit
        self._mean, self._sd = labels.mean(axis=0), labels.std(axis=0)
        self._n_columns = table.shape[1]
        self._boosters: list[xgboost.Booster] = []
        self.n_rounds_ = []
        if np.all(column_mean_sd(table)[1] == 0):
            return self
        unit = np.where(self._sd > 0, self._sd, 1)
        storage = {"missing": 0.0, "max_bin": TREES["max_bin"], "nthread": self.n_threads}
        train = xgboost.QuantileDMatrix(table, **storage)
        valid = xgboost.QuantileDMatrix(valid_table, **storage, ref=train)
        for column in range(labels.shape[1]):
            train.set_label((labels[:, column] - self._mean[column]) / unit[column])
            valid.set_label((valid_labels[:, column] - self._mean[column]) / unit[column])
            booster = xgboost.train(
                {**TREES, "seed": self.seed, "nthread": self.n_threads},
                train,
                num_boost_round=MAX_ROUNDS,
                evals=[(valid, "valid")],
                early_stopping_rounds=STOP_AFTER_ROUNDS,
                verbose_eval=False,
            )
            self.n_rounds_.append(booster.best_iteration + 1)
            self._boosters.append(booster)
        return self

    def predict(self, X: FeatureTable) -> NDArray[np.float64]:
        """See `Probe.predict`."""
        import xgboost

        table = checked_table(X)
        _require_columns(table, self._n_columns)
        if not self._boosters:
            return np.tile(self._mean, (table.shape[0], 1))
        rows = xgboost.DMatrix(table, missing=0.0, nthread=self.n_threads)
        columns = [
            booster.predict(rows, iteration_range=(0, n_rounds))
            for booster, n_rounds in zip(self._boosters, self.n_rounds_, strict=True)
        ]
        return np.stack(columns, axis=1).astype(np.float64) * self._sd + self._mean


def ridge_path(
    X: FeatureTable,
    Y: NDArray[np.floating],
    X_valid: FeatureTable,
    Y_valid: NDArray[np.floating],
    alphas: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ridge of unit-variance features at every penalty, and the mean squared errors on the valid rows.

    Parameters
    ----------
    X, Y, X_valid, Y_valid
        As for `Probe.fit`.
    alphas : ndarray of shape (n_alphas,)
        Penalties as sklearn's Ridge counts them (for standardised features).

    Returns
    -------
    coefficients : ndarray of shape (n_alphas, d, m)
        Label unit per feature unit.
    errors : ndarray of shape (n_alphas, m)
        Label unit squared.
    """
    table, labels, valid, valid_labels = _checked(X, Y, X_valid, Y_valid)
    return _path_errors(_PenaltyPath(table, labels), np.asarray(alphas, np.float64), valid, valid_labels)


def _path_errors(
    path: "_PenaltyPath", alphas: NDArray[np.float64], valid: Table, valid_labels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`ridge_path` of a path: one pass over the valid rows, in one product, for all penalties and labels."""
    coefs = np.stack([path.coefficients(alpha) for alpha in alphas])
    intercepts = path.intercept(coefs)
    side_by_side = np.concatenate(coefs, axis=1)
    squares = np.zeros(intercepts.shape)
    for rows in row_slices((valid.shape[0], max(side_by_side.shape))):
        residuals = (valid[rows].astype(np.float64) @ side_by_side).reshape(-1, *squares.shape)
        residuals += intercepts
        residuals -= valid_labels[rows][:, None, :]
        squares += np.einsum("npm,npm->pm", residuals, residuals)
    return coefs, squares / valid.shape[0]


class _PenaltyPath:
    """Ridge solutions at any penalty, zero included, from one eigendecomposition in float64.

    Features are scaled by their train standard deviation. Centring is implicit: the intercept is free, so that centred
    and uncentred features have the same solutions, and a CSR table stays sparse. Decomposed is the smaller of the
    d x d Gram matrix and the n x n kernel matrix; constant columns get no weight.
    """

    def __init__(self, X: Table, Y: NDArray[np.float64]) -> None:
        self._mean, sd = column_mean_sd(X)
        self._scale = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
        self._label_mean = Y.mean(axis=0)
        self._kept = np.flatnonzero(sd)
        labels = Y - self._label_mean
        n, d = X.shape[0], self._kept.size
        if d != X.shape[1]:
            X = X[:, self._kept]
        mean, scale = self._mean[self._kept], self._scale[self._kept]
        if d <= n:
            self._values, vectors = _eigh(_gram(X, mean, scale))
            self._basis = vectors
            self._target = vectors.T @ (transpose_product(X, labels) * scale[:, None])
        else:
            self._values, vectors = _eigh(_kernel(X, mean, scale))
            # labels are centred and the null space drops out: U^T Y has no part along the intercept
            weights = vectors - vectors.mean(axis=0)
            self._basis = transpose_product(X, weights) * scale[:, None]
            self._target = vectors.T @ labels
        tolerance = np.finfo(np.float64).eps * max(n, d) * self._values.max(initial=0.0)
        self._is_kept = self._values > tolerance
        self.rank = int(np.count_nonzero(self._is_kept))

    def coefficients(self, alpha: float) -> NDArray[np.float64]:
        """(d, m) weights of the unscaled features at penalty alpha (sklearn's Ridge); 0 is least squares."""
        inverse = np.divide(1.0, self._values + alpha, out=np.zeros_like(self._values), where=self._is_kept)
        coef = np.zeros((self._scale.size, self._target.shape[1]))
        coef[self._kept] = (self._basis @ (inverse[:, None] * self._target)) * self._scale[self._kept, None]
        return coef

    def intercept(self, coef: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., m) intercepts that go with weights (..., d, m)."""
        return self._label_mean - self._mean @ coef


def _gram(X: Table, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Z.T @ Z of the standardised columns Z."""
    n, d = X.shape
    if not isinstance(X, np.ndarray) and X.nnz < 0.1 * n * d:
        scaled = X.astype(np.float64) @ sp.diags_array(scale)
        gram = (scaled.T @ scaled).toarray()
        gram -= n * np.outer(mean * scale, mean * scale)
        return gram
    gram = np.zeros((d, d))
    for _, block in row_blocks(X):
        block -= mean
        block *= scale
        gram += block.T @ block
    return gram


def _kernel(X: Table, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Z @ Z.T of the standardised columns Z."""
    if isinstance(X, np.ndarray):
        standardised = (X - mean) * scale
        return standardised @ standardised.T
    scaled = X.astype(np.float64) @ sp.diags_array(scale)
    kernel = (scaled @ scaled.T).toarray()
    kernel -= kernel.mean(axis=0)
    kernel -= kernel.mean(axis=1, keepdims=True)
    return kernel


def _eigh(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if matrix.size == 0:
        return np.zeros(0), np.zeros((0, 0))
    values, vectors = scipy.linalg.eigh(matrix, overwrite_a=True, check_finite=False, driver="evd")
    return np.asarray(values), np.asarray(vectors)


def _linear_prediction(X: Table, coef: NDArray[np.float64], intercept: NDArray[np.float64]) -> NDArray[np.float64]:
    _require_columns(X, coef.shape[0])
    if isinstance(X, np.ndarray):
        return np.concatenate(
            [np.zeros((0, intercept.size)), *(block @ coef + intercept for _, block in row_blocks(X))]
        )
    return X @ coef + intercept


class Classifier(Protocol):
    """Features X, an (n, d) dense or CSR table, to a score of each galaxy that is > 0 for the positive class.

    Without a column that varies on the train rows every classifier scores as the majority does. Classes are not
    weighted: a rare class is found less often.
    """

    def fit(self, X: FeatureTable, y: NDArray[np.number], X_valid: FeatureTable, y_valid: NDArray[np.number]) -> Self:
        """Fit to the train rows X and y, (n,) of 0 and 1; choose on the valid rows."""
        ...

    def score(self, X: FeatureTable) -> NDArray[np.float64]:
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

    def fit(self, X: FeatureTable, y: NDArray[np.number], X_valid: FeatureTable, y_valid: NDArray[np.number]) -> Self:
        """See `Classifier.fit`."""
        _, classes, _, _ = _checked_classes(X, y, X_valid, y_valid)
        self.log_odds_ = _log_odds(classes)
        return self

    def score(self, X: FeatureTable) -> NDArray[np.float64]:
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

    def fit(self, X: FeatureTable, y: NDArray[np.number], X_valid: FeatureTable, y_valid: NDArray[np.number]) -> Self:
        """See `Classifier.fit`."""
        table, classes, valid, valid_classes = _checked_classes(X, y, X_valid, y_valid)
        table, classes = _capped(self.name, table, classes, self.seed)
        scaling = _Scaling(table)
        self.coef_, self.intercept_ = np.zeros((table.shape[1], 1)), np.array([_log_odds(classes)])
        self.penalty_ = float("nan")
        if scaling.kept.size == 0:
            return self
        standardised, valid_standardised = scaling.apply(table), scaling.apply(valid)
        signs = np.where(valid_classes, 1.0, -1.0)
        model = self._model(standardised.shape)
        least = np.inf
        for penalty in CLASS_PENALTIES:
            model.set_params(C=1 / (penalty * table.shape[0])).fit(standardised, classes)
            margins = signs * model.decision_function(valid_standardised)
            losses = np.logaddexp(0, -margins) if self.name == "logistic" else np.maximum(0, 1 - margins) ** 2
            loss = _balanced_mean(losses, valid_classes)
            if loss >= least:
                break
            least = loss
            self.penalty_ = float(penalty)
            self.coef_, self.intercept_ = scaling.undone(model.coef_[0].copy(), float(model.intercept_[0]))
        return self

    def score(self, X: FeatureTable) -> NDArray[np.float64]:
        """See `Classifier.score`."""
        return _linear_prediction(checked_table(X), self.coef_, self.intercept_)[:, 0]

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

    def fit(self, X: FeatureTable, y: NDArray[np.number], X_valid: FeatureTable, y_valid: NDArray[np.number]) -> Self:
        """See `Classifier.fit`."""
        from sklearn.svm import SVC

        table, classes, valid, valid_classes = _checked_classes(X, y, X_valid, y_valid)
        table, classes = _capped("rbf_svm", table, classes, self.seed)
        self._scaling = _Scaling(table)
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
            loss = _balanced_mean(losses, valid_classes)
            if loss < least:
                least, self.cost_, self._model = loss, cost, model
        return self

    def score(self, X: FeatureTable) -> NDArray[np.float64]:
        """See `Classifier.score`."""
        table = checked_table(X)
        _require_columns(table, self._n_columns)
        if self._model is None:
            return np.full(table.shape[0], self._log_odds)
        scores = [self._model.decision_function(self._scaling.apply(table[rows])) for rows in row_slices(table.shape)]
        return np.concatenate([np.zeros(0), *scores])


LabelClassifierName = Literal["majority", "logistic", "knn"]
LABEL_CLASSIFIERS: tuple[LabelClassifierName, ...] = ("majority", "logistic", "knn")
NEIGHBOURS = (5, 15, 50, 150)
"""Numbers of nearest train galaxies on offer."""


class LabelClassifier(Protocol):
    """Features X, an (n, d) dense or CSR table, to one of many classes, numbered from 0.

    Without a column that varies on the train rows every classifier names the class of most train rows.
    """

    def fit(self, X: FeatureTable, y: NDArray[np.integer], X_valid: FeatureTable, y_valid: NDArray[np.integer]) -> Self:
        """Fit to the train rows X and y (n,), where all classes occur; choose on the valid rows."""
        ...

    def predict(self, X: FeatureTable) -> NDArray[np.intp]:
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

    def fit(self, X: FeatureTable, y: NDArray[np.integer], X_valid: FeatureTable, y_valid: NDArray[np.integer]) -> Self:
        """See `LabelClassifier.fit`."""
        _, labels, _, _ = _checked_labels(X, y, X_valid, y_valid)
        self.label_ = _most_frequent(labels)
        return self

    def predict(self, X: FeatureTable) -> NDArray[np.intp]:
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

    def fit(self, X: FeatureTable, y: NDArray[np.integer], X_valid: FeatureTable, y_valid: NDArray[np.integer]) -> Self:
        """See `LabelClassifier.fit`."""
        from sklearn.linear_model import LogisticRegression

        table, labels, valid, valid_labels = _checked_labels(X, y, X_valid, y_valid)
        scaling = _Scaling(table)
        counts = np.bincount(labels)
        self.coef_, self.intercept_ = np.zeros((table.shape[1], counts.size)), np.log(counts)
        self.penalty_ = float("nan")
        if scaling.kept.size == 0:
            return self
        standardised, valid_standardised = scaling.apply(table), scaling.apply(valid)
        model = LogisticRegression(class_weight="balanced", max_iter=1000, warm_start=True)
        least = np.inf
        for penalty in CLASS_PENALTIES:
            model.set_params(C=1 / (penalty * table.shape[0])).fit(standardised, labels)
            log_shares = model.predict_log_proba(valid_standardised)
            loss = _balanced_mean(-log_shares[np.arange(len(valid_labels)), valid_labels], valid_labels)
            if loss >= least:
                break
            least, self.penalty_ = loss, float(penalty)
            self.coef_, self.intercept_ = self._unscaled(model, scaling)
        return self

    def predict(self, X: FeatureTable) -> NDArray[np.intp]:
        """See `LabelClassifier.predict`."""
        return np.argmax(_linear_prediction(checked_table(X), self.coef_, self.intercept_), axis=1)

    @staticmethod
    def _unscaled(model: Any, scaling: "_Scaling") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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

    def fit(self, X: FeatureTable, y: NDArray[np.integer], X_valid: FeatureTable, y_valid: NDArray[np.integer]) -> Self:
        """See `LabelClassifier.fit`."""
        from sklearn.neighbors import NearestNeighbors

        table, labels, valid, valid_labels = _checked_labels(X, y, X_valid, y_valid)
        table, labels = _capped("knn", table, labels, self.seed)
        self._scaling = _Scaling(table)
        self._labels, self._majority = labels, _most_frequent(labels)
        self._n_columns = table.shape[1]
        self.n_neighbours_ = 0
        if self._scaling.kept.size == 0:
            return self
        offered = sorted({min(n, len(labels)) for n in NEIGHBOURS})
        self._index = NearestNeighbors(n_neighbors=offered[-1], algorithm="brute").fit(self._scaling.apply(table))
        nearest = self._nearest(valid, offered[-1])
        scores = [
            _balanced_mean((self._votes(nearest[:, :n]) == valid_labels).astype(np.float64), valid_labels)
            for n in offered
        ]
        self.n_neighbours_ = offered[int(np.argmax(scores))]
        return self

    def predict(self, X: FeatureTable) -> NDArray[np.intp]:
        """See `LabelClassifier.predict`."""
        table = checked_table(X)
        _require_columns(table, self._n_columns)
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


class _Scaling:
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


def _balanced_mean(losses: NDArray[np.float64], classes: NDArray[np.generic]) -> float:
    """Mean of the means of the classes, of those that are there."""
    return float(np.mean([losses[classes == value].mean() for value in np.unique(classes)]))


def _log_odds(classes: NDArray[np.bool_]) -> float:
    return float(np.log(np.count_nonzero(classes) / np.count_nonzero(~classes)))


def _capped(name: str, table: Table, classes: NDArray[Any], seed: int) -> tuple[Table, NDArray[Any]]:
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


def _most_frequent(labels: NDArray[np.integer]) -> int:
    return int(np.argmax(np.bincount(labels)))


def _checked_labels(
    X: FeatureTable, y: NDArray[np.integer], X_valid: FeatureTable, y_valid: NDArray[np.integer]
) -> tuple[Table, NDArray[np.intp], Table, NDArray[np.intp]]:
    """The four tables, finite and fitting each other; the train rows hold the classes 0, 1, ... without a gap."""
    for name, labels in (("y", y), ("y_valid", y_valid)):
        if np.ndim(labels) != 1 or not np.issubdtype(np.asarray(labels).dtype, np.integer):
            raise ValueError(
                f"{name}: expected class numbers in shape (n,), got {np.asarray(labels).dtype} {np.shape(labels)}"
            )
    columns = (np.asarray(labels, dtype=np.float64)[:, None] for labels in (y, y_valid))
    table, _, valid, _ = _checked(X, next(columns), X_valid, next(columns))
    present = np.unique(y)
    if present.size < 2 or not np.array_equal(present, np.arange(present.size)):
        raise ValueError(f"y: expected classes 0, 1, ... without a gap, at least two, got {present.tolist()}")
    if not np.isin(y_valid, present).all():
        raise ValueError(f"y_valid: classes {sorted(set(y_valid.tolist()) - set(present.tolist()))} have no train row")
    return table, np.asarray(y, np.intp), valid, np.asarray(y_valid, np.intp)


def _checked_classes(
    X: FeatureTable, y: NDArray[np.number], X_valid: FeatureTable, y_valid: NDArray[np.number]
) -> tuple[Table, NDArray[np.bool_], Table, NDArray[np.bool_]]:
    """The four tables, finite and fitting each other, with both classes on the train rows."""
    for name, labels in (("y", y), ("y_valid", y_valid)):
        if np.ndim(labels) != 1 or not np.isin(labels, (0, 1)).all():
            raise ValueError(f"{name}: expected 0 and 1 in shape (n,), got shape {np.shape(labels)}")
    columns = (np.asarray(labels, dtype=np.float64)[:, None] for labels in (y, y_valid))
    table, classes, valid, valid_classes = _checked(X, next(columns), X_valid, next(columns))
    if classes.min() == classes.max():
        raise ValueError(f"y: expected both classes, got {classes.size} times {classes[0, 0]:g}")
    return table, classes[:, 0] > 0, valid, valid_classes[:, 0] > 0


def _checked(
    X: FeatureTable, Y: NDArray[np.floating], X_valid: FeatureTable, Y_valid: NDArray[np.floating]
) -> tuple[Table, NDArray[np.float64], Table, NDArray[np.float64]]:
    """The four tables, finite and fitting each other; labels in float64."""
    train, valid = checked_table(X), checked_table(X_valid, "X_valid")
    labels, valid_labels = checked_labels(Y, train.shape[0]), checked_labels(Y_valid, valid.shape[0], "Y_valid")
    if 0 in labels.shape or 0 in valid_labels.shape or labels.shape[1] != valid_labels.shape[1]:
        raise ValueError(f"expected Y (n, m) and Y_valid (n_valid, m), got {labels.shape} and {valid_labels.shape}")
    _require_columns(valid, train.shape[1])
    return train, labels, valid, valid_labels


def _require_columns(X: Table, n_columns: int) -> None:
    if X.shape[1] != n_columns:
        raise ValueError(f"expected {n_columns} feature columns as in the train rows, got {X.shape[1]}")
