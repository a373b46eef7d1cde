"""Classes of fit-probes: which galaxies are of which, and what classifiers say of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import FeatureTable, SurveyTable
from sfnetlab.errors import DataError
from sfnetlab.methods import TRAITS
from sfnetlab.metrics.classification import best_threshold
from sfnetlab.metrics.effective import EffectiveNumber
from sfnetlab.metrics.predictions import (
    Prediction,
    confusion_rows,
    many_class_scores,
    prediction_rows,
    two_class_scores,
)
from sfnetlab.metrics.tables import columns_of, rows_of
from sfnetlab.metrics.tidy import PARTS
from sfnetlab.plan import ProbeSpec
from sfnetlab.probes import make_classifier, names_of, probe_kind
from sfnetlab.probes.common import named_classes
from sfnetlab.schema import Classes
from sfnetlab.stages.samples import N_LEAST, SEED, NamedRows, Sample, features_of, parts_of
from sfnetlab.surveys.messages import did_you_mean, first_few


def probe_classes(spec: ProbeSpec, survey: SurveyTable, table: FeatureTable) -> Iterator[NamedRows]:
    """Scores and test predictions of classifiers of each set of classes; of many their confusions too."""
    for name, classes in spec.classes.items():
        numbers, names = class_numbers(survey.catalog, name, classes)
        rows, y = survey.catalog[numbers >= 0], numbers[numbers >= 0]
        is_control = TRAITS[spec.table.kind].role == "control"
        sample = Sample(features_of(table, rows["id_str"]), parts_of(rows, spec), is_control)
        found = list(class_predictions(spec, sample, y, are_two=classes.are_two))
        if not found:
            continue
        score = two_class_scores if classes.are_two else many_class_scores
        n_resamples = spec.probes.n_bootstrap
        split = np.where(sample.scored, sample.split, "")
        scores = score(classes.column, y, found, split, n_resamples=n_resamples, seed=SEED)
        yield "metrics", scores.assign(target=name)
        for prediction in found:
            Y = y[:, None].astype(np.float64)
            told = prediction_rows((classes.column,), rows["id_str"], Y, prediction, split)
            yield "predictions", told.assign(target=name)
            if not classes.are_two:
                yield "confusion", confusion_rows(names, y, prediction, sample.split).assign(target=name)


def class_numbers(catalog: pd.DataFrame, name: str, classes: Classes) -> tuple[NDArray[np.intp], list[str]]:
    """Return the class number of each galaxy, from 0, or -1 where it has none, and the names of the classes in order.

    Of two classes the positive one is 1. Of many without `values` numbers stand in their order, names by the alphabet.

    Parameters
    ----------
    name
        What the configuration calls the classes, for messages.

    Raises
    ------
    DataError
        If the column is missing or does not hold classes, or a part of the split has less than `N_LEAST` of a class.
    """
    numbers, names = numbers_and_names(catalog, name, classes)
    remedy = "name other codes" if classes.are_two else "name the classes to keep with values = [...]"
    for part in PARTS:
        of_part = numbers[(numbers >= 0) & (catalog["split"] == part).to_numpy()]
        counts = np.bincount(of_part, minlength=len(names))
        few = ", ".join(f"{label} ({n})" for label, n in zip(names, counts, strict=True) if n < N_LEAST)
        if few:
            raise DataError(
                f"classes {name!r}: {classes.column!r} needs two classes of at least {N_LEAST} {part} galaxies each, "
                f"too few are of {few}; {remedy}, or use more galaxies or other split.fractions"
            )
    return numbers, names


def numbers_and_names(catalog: pd.DataFrame, name: str, classes: Classes) -> tuple[NDArray[np.intp], list[str]]:
    """Return what `class_numbers` does, however few galaxies are of a class.

    Raises
    ------
    DataError
        If the column is missing or does not hold classes, or galaxies of fewer than two classes.
    """
    if classes.column not in catalog:
        near = did_you_mean(classes.column, catalog.columns.tolist())
        raise DataError(f"classes {name!r}: the catalogue has no column {classes.column!r}{near and f'; {near}'}")
    of = _numbers_of_two if classes.are_two else _numbers_of_many
    numbers, names = of(catalog[classes.column], name, classes)
    absent = [label for number, label in enumerate(names) if not (numbers == number).any()]
    if len(names) - len(absent) < 2:
        held = sorted(map(str, catalog[classes.column].dropna().unique()))
        raise DataError(
            f"classes {name!r}: {classes.column!r} needs two classes, and no galaxy is of "
            f"{', '.join(absent) or 'a second one'}; its values are {first_few(held) or 'all missing'}"
        )
    return numbers, names


def _numbers_of_two(column: "pd.Series[Any]", name: str, classes: Classes) -> tuple[NDArray[np.intp], list[str]]:
    if not pd.api.types.is_numeric_dtype(column):
        raise DataError(f"classes {name!r}: {classes.column!r} is not numeric; positive and negative are its codes")
    numbers = np.full(len(column), -1)
    names = []
    for number, codes in enumerate((classes.negative, classes.positive)):
        numbers[column.isin(codes).to_numpy()] = number
        names.append(str(list(codes)))
    return numbers, names


def _numbers_of_many(column: "pd.Series[Any]", name: str, classes: Classes) -> tuple[NDArray[np.intp], list[str]]:
    if pd.api.types.is_numeric_dtype(column):
        if not (column.dropna() % 1 == 0).all():
            raise DataError(
                f"classes {name!r}: {classes.column!r} holds numbers that are not whole; classes are names or codes"
            )
        column = column.astype("Int64")  # 3.0 is "3"
    texts = column.astype("string")
    names = list(classes.values)
    if not names:
        names = sorted(map(str, texts.dropna().unique()))
        if all(text.lstrip("-").isdigit() for text in names):
            names.sort(key=int)
    kept = texts.where(texts.isin(names))
    return pd.Categorical(kept, categories=names).codes.astype(np.intp), names


def class_predictions(spec: ProbeSpec, sample: Sample, y: NDArray[np.intp], *, are_two: bool) -> Iterator[Prediction]:
    """Yield predictions of the control without features, then of classifiers on all features and on each budget.

    They are 0 for galaxies that are not `Sample.scored`. Scores of two classes are above 0 where they pass the
    threshold that has the largest F1 on valid galaxies.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Class numbers of the sample.
    """
    task = "two_classes" if are_two else "many_classes"
    kinds = [probe_kind(name, task) for name in (spec.probes.classifiers if are_two else names_of(task))]

    def predicted(
        name: str, columns: NDArray[np.integer], effective: EffectiveNumber, *, is_dense: bool = False
    ) -> Prediction:
        chosen = columns_of(sample.X, columns)
        if is_dense and not isinstance(chosen, np.ndarray):
            chosen = chosen.toarray()
        classifier = sample.fit_classifier(make_classifier(name, task, seed=SEED), chosen, y)
        scores = classifier.score(chosen if sample.scored.all() else rows_of(chosen, np.flatnonzero(sample.scored)))
        values = np.zeros((len(y), 1))
        values[sample.scored, 0] = scores if are_two else named_classes(scores)
        if are_two:  # one rule for all classifiers, whose zeros are not alike
            valid = sample.rows("valid")
            values[sample.scored] -= best_threshold(y[valid], values[valid, 0])
        return Prediction(name, len(columns), values, *effective)

    no_features = sample.alive[:0]
    nothing = sample.effective(no_features)
    yield from (predicted(kind.name, no_features, nothing) for kind in kinds if kind.is_control)
    if len(sample.alive) == 0:
        return
    yield from (predicted(kind.name, sample.alive, sample.all_effective) for kind in kinds if kind.on_all)
    by_class = y[:, None].astype(np.float64) if are_two else np.eye(y.max() + 1)[y]
    for columns in sample.budgets(spec, by_class):
        # the few of two classes are centred; for many, centring would change the scores of sparse tables
        effective = sample.effective(columns)
        yield from (predicted(kind.name, columns, effective, is_dense=are_two) for kind in kinds if kind.on_budgets)
