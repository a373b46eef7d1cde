"""Classes of fit-probes: which galaxies are of which, what classifiers say of them, and how that is scored."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import FeatureTable, SurveyTable
from sfnetlab.errors import DataError
from sfnetlab.metrics.bootstrap import class_intervals, sample_and_resamples
from sfnetlab.metrics.classification import confusion_matrix, label_scores
from sfnetlab.metrics.tables import FeatureMatrix, columns_of, rows_of
from sfnetlab.plan import ProbeSpec
from sfnetlab.probes.classes import make_classifier
from sfnetlab.probes.labels import LABEL_CLASSIFIERS, LabelClassifierName, make_label_classifier
from sfnetlab.schema import Classes, ClassifierName, Labels
from sfnetlab.stages.predictions import (
    N_LEAST,
    PARTS,
    SEED,
    NamedRows,
    Prediction,
    alive_features,
    budgeted_features,
    prediction_rows,
)


def probe_classes(spec: ProbeSpec, survey: SurveyTable, table: FeatureTable) -> Iterator[NamedRows]:
    """Scores and test predictions of classifiers that tell one kind of galaxies from another."""
    for name, classes in spec.classes.items():
        usable, is_positive = class_rows(survey.catalog, name, classes)
        rows = survey.catalog[usable]
        y = is_positive[usable].astype(np.float64)
        split = rows["split"].to_numpy()
        found = list(_class_predictions(spec, table.of(rows["id_str"]), y, split))
        if found:
            yield "metrics", _score_classes(classes, y, found, split, spec.probes.n_bootstrap).assign(target=name)
        for prediction in found:
            columns = prediction_rows((classes.column,), rows, y[:, None], prediction, split)
            yield "predictions", columns.assign(target=name)


def probe_labels(spec: ProbeSpec, survey: SurveyTable, table: FeatureTable) -> Iterator[NamedRows]:
    """Scores and confusions of classifiers that tell many kinds apart."""
    for name, labels in spec.labels.items():
        usable, names = label_rows(survey.catalog, name, labels)
        rows = survey.catalog[usable]
        y = pd.Categorical(label_texts(rows[labels.column]), categories=names).codes.astype(np.intp)
        split = rows["split"].to_numpy()
        found = list(_label_predictions(spec, table.of(rows["id_str"]), y, split))
        yield "metrics", _score_labels(labels, y, found, split, spec.probes.n_bootstrap).assign(target=name)
        for prediction in found:
            yield "confusion", _confusion(names, y, prediction, split == "test").assign(target=name)


def class_rows(catalog: pd.DataFrame, name: str, classes: Classes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which galaxies are of either class, and which of the positive one; NaN and codes not listed are of none.

    Raises
    ------
    DataError
        If the column is missing or not numeric, or a part of the split has less than `N_LEAST` of a class.
    """
    if classes.column not in catalog or not pd.api.types.is_numeric_dtype(catalog[classes.column]):
        raise DataError(f"classes {name!r}: the catalogue has no numeric column {classes.column!r}")
    is_positive, is_negative = (
        catalog[classes.column].isin(codes).to_numpy() for codes in (classes.positive, classes.negative)
    )
    for part in PARTS:
        for is_class, codes in ((is_positive, classes.positive), (is_negative, classes.negative)):
            n = int((is_class & (catalog["split"] == part).to_numpy()).sum())
            if n < N_LEAST:
                raise DataError(
                    f"classes {name!r}: only {n} {part} galaxies have {classes.column} in {list(codes)}, and an "
                    f"interval needs at least {N_LEAST}; use more galaxies, other codes or other split.fractions"
                )
    return is_positive | is_negative, is_positive


def _class_predictions(
    spec: ProbeSpec, X: FeatureMatrix, y: NDArray[np.float64], split: NDArray[np.str_]
) -> Iterator[Prediction]:
    """The majority, the classifiers on all features (not the RBF machine), then all on each budget of features."""
    train, valid = np.flatnonzero(split == "train"), np.flatnonzero(split == "valid")
    alive = alive_features(X, train)

    def fitted(name: ClassifierName, chosen: FeatureMatrix, n_features_used: int) -> Prediction:
        classifier = make_classifier(name, seed=SEED)
        classifier.fit(rows_of(chosen, train), y[train], rows_of(chosen, valid), y[valid])
        return Prediction(name, n_features_used, classifier.score(chosen)[:, None])

    on_features = [name for name in spec.probes.classifiers if name != "majority"]
    if "majority" in spec.probes.classifiers:
        yield fitted("majority", X, 0)
    if len(alive) == 0:
        return
    for name in on_features:
        if name != "rbf_svm":
            yield fitted(name, columns_of(X, alive), len(alive))
    for columns in budgeted_features(spec, rows_of(X, train), y[train, None], alive):
        few = columns_of(X, columns)
        dense = few if isinstance(few, np.ndarray) else few.toarray()
        for name in on_features:
            yield fitted(name, dense, len(columns))


def _score_classes(
    classes: Classes,
    y: NDArray[np.float64],
    predictions: list[Prediction],
    split: NDArray[np.str_],
    n_resamples: int,
) -> pd.DataFrame:
    scores = np.hstack([prediction.values for prediction in predictions])
    rows = []
    for part in PARTS:
        own = split == part
        for interval in class_intervals(y[own], scores[own], n_resamples=n_resamples, seed=SEED):
            prediction = predictions[interval.column]
            rows.append(
                {
                    "column": classes.column,
                    "split": part,
                    "metric": interval.metric,
                    "value": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "n": int(own.sum()),
                    "probe": prediction.probe,
                    "n_features_used": prediction.n_features_used,
                }
            )
    return pd.DataFrame(rows)


def label_rows(catalog: pd.DataFrame, name: str, labels: Labels) -> tuple[NDArray[np.bool_], list[str]]:
    """Which galaxies are of one of the classes, and the classes, as text, in order.

    Raises
    ------
    DataError
        If the column is missing or no text or whole numbers, or a part of the split has less than `N_LEAST` of a class.
    """
    if labels.column not in catalog:
        raise DataError(f"labels {name!r}: the catalogue has no column {labels.column!r}")
    column = catalog[labels.column]
    if pd.api.types.is_numeric_dtype(column) and not (column.dropna() % 1 == 0).all():
        raise DataError(
            f"labels {name!r}: {labels.column!r} holds numbers that are not whole; classes are names or codes"
        )
    texts = label_texts(column)
    names = list(labels.values) or _in_order(texts.dropna().unique())
    for part in PARTS:
        counts = texts[catalog["split"] == part].value_counts().reindex(names, fill_value=0)
        few = counts[counts < N_LEAST]
        if len(few) or len(names) < 2:
            listed = ", ".join(f"{label} ({n})" for label, n in few.items())
            raise DataError(
                f"labels {name!r}: {labels.column!r} needs two classes of at least {N_LEAST} {part} galaxies each, too "
                f"few are of {listed or names}; name the classes to keep with values = [...], or use more galaxies or "
                f"other split.fractions"
            )
    return texts.isin(names).to_numpy(), names


def label_texts(column: "pd.Series[Any]") -> "pd.Series[str]":
    """Classes as text, whole numbers without a point: 3.0 is "3"; missing ones stay so."""
    if pd.api.types.is_numeric_dtype(column):
        column = column.astype("Int64")
    return column.astype("string")


def _in_order(names: NDArray[Any]) -> list[str]:
    """Numbers by their value, names by the alphabet."""
    texts = [str(name) for name in names]
    return sorted(texts, key=int) if all(text.lstrip("-").isdigit() for text in texts) else sorted(texts)


def _label_predictions(
    spec: ProbeSpec, X: FeatureMatrix, y: NDArray[np.intp], split: NDArray[np.str_]
) -> Iterator[Prediction]:
    """The majority, then both classifiers on all features and on each budget of them."""
    train, valid = np.flatnonzero(split == "train"), np.flatnonzero(split == "valid")
    alive = alive_features(X, train)

    def fitted(name: LabelClassifierName, columns: NDArray[np.integer]) -> Prediction:
        chosen = columns_of(X, columns)
        classifier = make_label_classifier(name, seed=SEED)
        classifier.fit(rows_of(chosen, train), y[train], rows_of(chosen, valid), y[valid])
        return Prediction(name, len(columns), classifier.predict(chosen)[:, None].astype(np.float64))

    yield fitted("majority", alive[:0])
    one_hot = np.eye(y.max() + 1)[y[train]]
    for columns in (alive, *budgeted_features(spec, rows_of(X, train), one_hot, alive)):
        if len(columns):
            yield from (fitted(name, columns) for name in LABEL_CLASSIFIERS if name != "majority")


def _score_labels(
    labels: Labels,
    y: NDArray[np.intp],
    predictions: list[Prediction],
    split: NDArray[np.str_],
    n_resamples: int,
) -> pd.DataFrame:
    found = np.hstack([prediction.values for prediction in predictions]).astype(np.intp)
    rows = []
    for part in PARTS:
        own = split == part
        scores = label_scores(y[own], found[own], sample_and_resamples(int(own.sum()), n_resamples, SEED))
        for metric, values in scores.items():
            low, high = np.nanquantile(values[1:], (0.025, 0.975), axis=0)
            for i, prediction in enumerate(predictions):
                rows.append(
                    {
                        "column": labels.column,
                        "split": part,
                        "metric": metric,
                        "value": values[0, i],
                        "low": low[i],
                        "high": high[i],
                        "n": int(own.sum()),
                        "probe": prediction.probe,
                        "n_features_used": prediction.n_features_used,
                    }
                )
    return pd.DataFrame(rows)


def _confusion(names: list[str], y: NDArray[np.intp], prediction: Prediction, rows: NDArray[np.bool_]) -> pd.DataFrame:
    """Rows of `confusion.parquet`: how many of the galaxies of `y_true` are called `y_pred`."""
    counts = confusion_matrix(y[rows], prediction.values[rows, 0].astype(np.intp), len(names))
    index = pd.MultiIndex.from_product([names, names], names=["y_true", "y_pred"])
    table = pd.DataFrame({"n": counts.ravel()}, index=index).reset_index()
    return table.assign(probe=prediction.probe, n_features_used=prediction.n_features_used)
