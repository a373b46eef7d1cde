"""Stage fit-probes: every feature table under the same probes, then all of them in one tidy `metrics.parquet`."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import FeatureTable as StoredFeatures
from sfnetlab.artifacts import Job, Metrics, SurveyTable, read_features, read_survey
from sfnetlab.errors import DataError
from sfnetlab.interpret.mzr import median_relation, relation_bins, residual_trends, tremonti_metallicity
from sfnetlab.metrics.bootstrap import bootstrap_intervals, class_intervals, sample_and_resamples
from sfnetlab.metrics.classification import confusion_matrix, label_scores
from sfnetlab.metrics.differences import RUN, compared_runs, difference_table
from sfnetlab.metrics.gains import format_gains, gains
from sfnetlab.metrics.quantiles import calibrated, conformal_offsets, quantile_scores
from sfnetlab.metrics.selection import select_forward
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureTable, checked_table, columns_of, rows_of
from sfnetlab.plan import ComparisonSpec, ProbeSpec, sae_directory
from sfnetlab.probes import LABEL_CLASSIFIERS, LabelClassifierName, fit_probe, make_classifier, make_label_classifier
from sfnetlab.report import (
    IN_SAMPLE,
    class_table,
    comparison_table,
    format_classes,
    format_comparison,
    format_differences,
    format_labels,
    label_table,
    latex_comparison,
    significance_line,
)
from sfnetlab.runner import Task, stage_main
from sfnetlab.runtime import n_threads
from sfnetlab.schema import Classes, ClassifierName, Labels, ProbeName, Target
from sfnetlab.surveys.catalog import noise_floor, target_rows

log = logging.getLogger(__name__)

N_LEAST = 10
"""Galaxies in each part of the split, of classes of each class, so that no resample is of a single one."""
PARTS = ("train", "valid", "test")
AUGMENTED = "_augmented"
"""Ends the names of predictions that are means over the 8 symmetries of a cutout."""
CALIBRATED = "_calibrated"
"""Ends the names of quantiles that were calibrated on valid rows."""
ENSEMBLE = "_ensemble"
"""Ends the names of means over seeds."""
SEED = 0
"""Of resamples and of XGBoost: the same for every method, so that differences between methods are paired."""


@dataclass(frozen=True)
class Prediction:
    """What a probe says of every usable galaxy: `values` (n, n_columns) in label units, of classifiers a score."""

    probe: str
    n_features_used: int
    values: NDArray[np.float64]


MASS, METALLICITY, SFR = "lgm_tot_p50", "oh_p50", "sfr_tot_p50"
MZR_LEAST = 50
"""Test galaxies, fewer make no relation."""

Predict = Callable[[FeatureTable], NDArray[np.float64]]


def build(spec: ProbeSpec | ComparisonSpec, task: Task) -> Metrics:
    match spec:
        case ProbeSpec():
            return _probe_table(spec, task)
        case ComparisonSpec():
            return _compare(spec, task)


def _probe_table(spec: ProbeSpec, task: Task) -> Metrics:
    survey = read_survey(task.inputs["survey"])
    table = read_features(task.inputs["features"])
    x_hat = _reconstruction(spec, task, table)
    metrics: list[pd.DataFrame] = []
    predictions: list[pd.DataFrame] = []
    for name, target in spec.targets.items():
        usable = target_rows(survey.catalog, target, str(task.inputs["survey"]))
        rows = survey.catalog[usable]
        X = table.of(rows["id_str"])
        Y = rows[list(target.columns)].to_numpy(dtype=np.float64)
        split = rows["split"].to_numpy()
        _require_enough(name, split)
        if x_hat is not None:
            embedding = read_features(task.inputs["embedding"]).of(rows["id_str"])
            recovered = _loss_recovered(target, embedding, x_hat.of(rows["id_str"]), Y, split, spec.probes.n_bootstrap)
            metrics.append(recovered.assign(target=name))
        network = task.inputs["network"] if name == spec.head_target else None
        turned = _turned_tables(task, survey, rows["id_str"][split == "test"]) if _augments(spec, task) else []
        for prediction in _predictions(spec, X, Y, split, network, turned):
            parts = ("test",) if prediction.probe.endswith(AUGMENTED) else PARTS
            metrics.append(_score(target, Y, prediction, split, spec.probes.n_bootstrap, parts).assign(target=name))
            predictions.append(_test_predictions(target.columns, rows, Y, prediction, split).assign(target=name))
        if network is not None and target.quantiles:
            scores, quantiles = _quantiles(name, target, rows, X, network, spec.probes.n_bootstrap)
            metrics.append(scores.assign(target=name, n_features_used=len(_alive(X, np.flatnonzero(split == "train")))))
            quantiles.to_parquet(task.work / "quantiles.parquet", index=False)
        for prediction in _in_sample_predictions(spec, X, Y, split):
            scores = _score(target, Y, prediction, split, spec.probes.n_bootstrap, parts=("test",))
            metrics.append(scores.assign(target=name))
    for name, classes in spec.classes.items():
        usable, is_positive = class_rows(survey.catalog, name, classes)
        rows = survey.catalog[usable]
        y = is_positive[usable].astype(np.float64)
        split = rows["split"].to_numpy()
        found = list(_class_predictions(spec, table.of(rows["id_str"]), y, split))
        if found:
            metrics.append(_score_classes(classes, y, found, split, spec.probes.n_bootstrap).assign(target=name))
        for prediction in found:
            columns = _test_predictions((classes.column,), rows, y[:, None], prediction, split)
            predictions.append(columns.assign(target=name))
    confusions: list[pd.DataFrame] = []
    for name, labels in spec.labels.items():
        usable, names = label_rows(survey.catalog, name, labels)
        rows = survey.catalog[usable]
        y = pd.Categorical(label_texts(rows[labels.column]), categories=names).codes.astype(np.intp)
        split = rows["split"].to_numpy()
        found = list(_label_predictions(spec, table.of(rows["id_str"]), y, split))
        metrics.append(_score_labels(labels, y, found, split, spec.probes.n_bootstrap).assign(target=name))
        confusions += [_confusion(names, y, prediction, split == "test").assign(target=name) for prediction in found]
    identity = {
        "experiment": spec.experiment,
        "features": spec.table.features,
        "kind": spec.table.kind,
        "k": spec.table.k,
        "seed": spec.table.seed,
    }
    tidy = pd.concat(metrics, ignore_index=True).assign(**identity).astype({"k": "Int64", "seed": "Int64"})
    tidy[COLUMNS].to_parquet(task.work / "metrics.parquet", index=False)
    pd.concat(predictions, ignore_index=True).to_parquet(task.work / "predictions.parquet", index=False)
    if confusions:
        pd.concat(confusions, ignore_index=True).to_parquet(task.work / "confusion.parquet", index=False)
    return {"n_rows": len(tidy)}


def _reconstruction(spec: ProbeSpec, task: Task, table: StoredFeatures) -> StoredFeatures | None:
    """What the features make of the embedding that they decompose, if they do."""
    match spec.table.kind:
        case "sae" | "null_sae":
            from sfnetlab.models.sae import load_sae

            assert spec.table.k is not None
            assert spec.table.seed is not None
            sae = load_sae(sae_directory(task.inputs["saes"], spec.table.k, spec.table.seed))
            return StoredFeatures(table.rows, sae.decode_csr(table.values))
        case "pca":
            from safetensors.numpy import load_file

            pca = load_file(task.inputs["features"] / "model.safetensors")
            x_hat = np.asarray(table.values) @ pca["components"] + pca["mean"]
            return StoredFeatures(table.rows, x_hat.astype(np.float32))
        case _:
            return None


def _loss_recovered(
    target: Target,
    embedding: FeatureTable,
    x_hat: FeatureTable,
    Y: NDArray[np.float64],
    split: NDArray[np.str_],
    n_resamples: int,
) -> pd.DataFrame:
    """What a ridge probe of the embedding keeps when it is given reconstructions, on test galaxies.

    `rmse_reconstruction` is its error on them, and `loss_recovered` = (MSE of the mean - MSE on reconstructions) /
    (MSE of the mean - MSE on embeddings): 1 is nothing lost, 0 is no better than the mean of the train labels. No row
    where the probe of the embedding itself is no better, for then there is nothing to recover.
    """
    train, valid, test = (np.flatnonzero(split == part) for part in PARTS)
    fit_rows, choice_rows = rows_of(embedding, train), rows_of(embedding, valid)
    probe = fit_probe("ridge", fit_rows, Y[train], choice_rows, Y[valid], seed=SEED, n_threads=n_threads())
    predictions = (
        np.broadcast_to(Y[train].mean(axis=0), Y[test].shape),
        probe.predict(rows_of(embedding, test)),
        probe.predict(rows_of(x_hat, test)),
    )
    squared_errors = np.stack([np.square(values - Y[test]) for values in predictions])
    weights = sample_and_resamples(len(test), n_resamples, SEED)
    table = []
    for i, column in enumerate(target.columns):
        of_mean, of_embedding, of_reconstruction = squared_errors[:, :, i] @ weights.T
        numbers = {"rmse_reconstruction": np.sqrt(of_reconstruction)}
        if of_mean[0] > of_embedding[0]:
            numbers["loss_recovered"] = (of_mean - of_reconstruction) / (of_mean - of_embedding)
        for metric, (value, *resampled) in numbers.items():
            low, high = np.quantile(resampled, (0.025, 0.975))
            table.append({"column": column, "metric": metric, "value": value, "low": low, "high": high})
    about = {"probe": "ridge", "n_features_used": checked_table(embedding).shape[1], "split": "test", "n": len(test)}
    return pd.DataFrame(table).assign(**about)


def _require_enough(target: str, split: NDArray[np.str_]) -> None:
    for part in PARTS:
        n = int((split == part).sum())
        if n < N_LEAST:
            raise DataError(
                f"target {target!r}: only {n} {part} galaxies have it, and an interval needs at least {N_LEAST}; "
                f"use more galaxies, another cut or other split.fractions"
            )


COLUMNS = [
    "experiment", "features", "kind", "k", "seed", "probe", "n_features_used", "target", "column", "split", "metric",
    "value", "low", "high", "n",
]  # fmt: skip


def _predictions(
    spec: ProbeSpec,
    X: FeatureTable,
    Y: NDArray[np.float64],
    split: NDArray[np.str_],
    network: Path | None,
    turned: Sequence[FeatureTable] = (),
) -> Iterator[Prediction]:
    """The network's own head, then the probes on all features, then a linear probe on each budget of features.

    With the features of the test galaxies `turned` each way, head and probes on all features predict these also by the
    mean over them, NaN elsewhere.
    """
    train, valid = np.flatnonzero(split == "train"), np.flatnonzero(split == "valid")
    alive = _alive(X, train)

    def predicted(name: str, columns: NDArray[np.integer], predict: Predict) -> Iterator[Prediction]:
        yield Prediction(name, len(columns), predict(X))
        if turned:
            values = np.full(Y.shape, np.nan)
            values[split == "test"] = np.mean([predict(table) for table in turned], axis=0)
            yield Prediction(f"{name}{AUGMENTED}", len(columns), values)

    def fitted(name: ProbeName, columns: NDArray[np.integer]) -> Predict:
        chosen = columns_of(X, columns)
        fit_rows, choice_rows = rows_of(chosen, train), rows_of(chosen, valid)
        probe = fit_probe(name, fit_rows, Y[train], choice_rows, Y[valid], seed=SEED, n_threads=n_threads())
        return lambda table: probe.predict(columns_of(table, columns))

    if network is not None:
        yield from predicted("head", alive, partial(_head_predictions, network))
    for name in spec.probes.kinds:
        yield from predicted(name, alive, fitted(name, alive))
    for chosen in _budgets(spec, rows_of(X, train), Y[train], alive):
        yield Prediction("linear", len(chosen), fitted("linear", chosen)(X))


def _alive(X: FeatureTable, train: NDArray[np.integer]) -> NDArray[np.integer]:
    return np.flatnonzero(activation_frequency(rows_of(X, train)) > 0)


def _budgets(
    spec: ProbeSpec, X: FeatureTable, Y: NDArray[np.float64], alive: NDArray[np.integer]
) -> Iterator[NDArray[np.integer]]:
    """The features of each budget, by the train rows X and Y: the first components, else the best features."""
    budgets = [budget for budget in spec.probes.budgets if budget < len(alive)]
    if not budgets or spec.table.kind == "photometry":
        return
    order = alive if spec.table.kind in ("pca", "pls") else select_forward(X, Y, max(budgets))
    yield from (order[:budget] for budget in budgets if budget <= len(order))


def _in_sample_predictions(
    spec: ProbeSpec, X: FeatureTable, Y: NDArray[np.float64], split: NDArray[np.str_]
) -> Iterator[Prediction]:
    """Of embeddings: each probe fitted to the test rows that it then predicts, NaN elsewhere.

    What the SFNet paper calls cheating: what such a fit gains over the honest one is memorised. Penalty and rounds are
    chosen on the valid rows, as ever, so that the two differ in nothing else.
    """
    if spec.table.kind != "encoder":
        return
    valid, test = np.flatnonzero(split == "valid"), np.flatnonzero(split == "test")
    chosen = columns_of(X, _alive(X, np.flatnonzero(split == "train")))
    rows, choice_rows = rows_of(chosen, test), rows_of(chosen, valid)
    for name in spec.probes.kinds:
        probe = fit_probe(name, rows, Y[test], choice_rows, Y[valid], seed=SEED, n_threads=n_threads())
        values = np.full(Y.shape, np.nan)
        values[test] = probe.predict(rows)
        yield Prediction(f"{name}{IN_SAMPLE}", checked_table(chosen).shape[1], values)


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
    spec: ProbeSpec, X: FeatureTable, y: NDArray[np.float64], split: NDArray[np.str_]
) -> Iterator[Prediction]:
    """The majority, the classifiers on all features (not the RBF machine), then all on each budget of features."""
    train, valid = np.flatnonzero(split == "train"), np.flatnonzero(split == "valid")
    alive = _alive(X, train)

    def fitted(name: ClassifierName, chosen: FeatureTable, n_features_used: int) -> Prediction:
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
    for columns in _budgets(spec, rows_of(X, train), y[train, None], alive):
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
    spec: ProbeSpec, X: FeatureTable, y: NDArray[np.intp], split: NDArray[np.str_]
) -> Iterator[Prediction]:
    """The majority, then both classifiers on all features and on each budget of them."""
    train, valid = np.flatnonzero(split == "train"), np.flatnonzero(split == "valid")
    alive = _alive(X, train)

    def fitted(name: LabelClassifierName, columns: NDArray[np.integer]) -> Prediction:
        chosen = columns_of(X, columns)
        classifier = make_label_classifier(name, seed=SEED)
        classifier.fit(rows_of(chosen, train), y[train], rows_of(chosen, valid), y[valid])
        return Prediction(name, len(columns), classifier.predict(chosen)[:, None].astype(np.float64))

    yield fitted("majority", alive[:0])
    one_hot = np.eye(y.max() + 1)[y[train]]
    for columns in (alive, *_budgets(spec, rows_of(X, train), one_hot, alive)):
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


def _head_predictions(network: Path, X: FeatureTable) -> NDArray[np.float64]:
    """Label units, (n, n_columns); of quantiles the median."""
    from sfnetlab.models.sfnet import load_network

    weights, bias = load_network(network).head_weights()
    return np.asarray(X @ weights.T + bias, dtype=np.float64)


def _augments(spec: ProbeSpec, task: Task) -> bool:
    return spec.probes.test_time_augmentation and "network" in task.inputs and spec.table.kind in ("sfnet", "encoder")


def _turned_tables(task: Task, survey: SurveyTable, ids: "pd.Series[str]") -> list[FeatureTable]:
    """What the network makes of these galaxies under each of the 8 symmetries of their cutouts."""
    from scipy import sparse

    from sfnetlab.models.sfnet import load_network
    from sfnetlab.training.network import embed_turned

    network = load_network(task.inputs["network"]).to(task.device)
    place = pd.Series(np.arange(len(survey.catalog)), index=survey.catalog["id_str"])
    tables: list[FeatureTable] = []
    for batches in embed_turned(network.features, survey.cutouts, place[ids].to_numpy(), device=task.device):
        if network.k is None:
            tables.append(np.concatenate(list(batches)))
        else:
            tables.append(sparse.csr_array(sparse.vstack([sparse.csr_array(batch) for batch in batches])))
    return tables


def _quantiles(
    name: str, target: Target, rows: pd.DataFrame, X: FeatureTable, network: Path, n_resamples: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics of predicted quantiles, raw and calibrated on valid rows, and the quantiles of the test galaxies."""
    from sfnetlab.models.sfnet import load_network

    (column,) = target.columns
    levels, truth, split = target.quantiles, rows[column].to_numpy(dtype=np.float64), rows["split"].to_numpy()
    raw = load_network(network).read_features(X)
    try:
        offsets = conformal_offsets(truth[split == "valid"], raw[split == "valid"], levels)
    except ValueError as error:
        raise DataError(f"target {name!r}: {error}: give the valid part a greater share in split.fractions") from None
    adjusted = calibrated(raw, offsets, levels)
    scores = []
    for probe, values, parts in (("head", raw, PARTS), (f"head{CALIBRATED}", adjusted, ("test",))):
        for part in parts:
            own = split == part
            found = quantile_scores(truth[own], values[own], levels, n_resamples=n_resamples, seed=SEED)
            about = {"probe": probe, "column": column, "split": part, "n": int(own.sum())}
            scores.append(pd.DataFrame(found).assign(**about))
    test = split == "test"
    table = pd.DataFrame(
        {
            "id_str": np.repeat(rows["id_str"].to_numpy()[test], len(levels)),
            "y_true": np.repeat(truth[test], len(levels)),
            "level": np.tile(levels, test.sum()),
            "raw": raw[test].ravel(),
            "calibrated": adjusted[test].ravel(),
        }
    )
    return pd.concat(scores, ignore_index=True), table.assign(target=name, column=column)


def _score(
    target: Target,
    Y: NDArray[np.float64],
    prediction: Prediction,
    split: NDArray[np.str_],
    n_resamples: int,
    parts: tuple[str, ...] = PARTS,
) -> pd.DataFrame:
    scores = []
    for part in parts:
        rows = split == part
        intervals = bootstrap_intervals(Y[rows], prediction.values[rows], n_resamples=n_resamples, seed=SEED)
        for interval in intervals:
            if interval.column is None and len(target.columns) == 1:
                continue  # pooled over one column: the same number
            scores.append(
                {
                    "column": "pooled" if interval.column is None else target.columns[interval.column],
                    "split": part,
                    "metric": "rmse" if interval.column is None else interval.metric,
                    "value": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "n": int(rows.sum()),
                }
            )
    return pd.DataFrame(scores).assign(probe=prediction.probe, n_features_used=prediction.n_features_used)


def _test_predictions(
    label_columns: tuple[str, ...],
    rows: pd.DataFrame,
    Y: NDArray[np.float64],
    prediction: Prediction,
    split: NDArray[np.str_],
) -> pd.DataFrame:
    """Rows of `predictions.parquet`; of classes `y_true` is 0 or 1 and `y_pred` a score, positive where > 0."""
    test = split == "test"
    columns = [
        pd.DataFrame(
            {
                "id_str": rows["id_str"][test],
                "column": column,
                "y_true": Y[test, i],
                "y_pred": prediction.values[test, i],
            }
        )
        for i, column in enumerate(label_columns)
    ]
    return pd.concat(columns).assign(probe=prediction.probe, n_features_used=prediction.n_features_used)


def _compare(spec: ComparisonSpec, task: Task) -> Metrics:
    catalog = read_survey(task.inputs["survey"]).catalog
    tables = [pd.read_parquet(path / "metrics.parquet") for path in task.inputs_of("fit-probes").values()]
    floors = [
        _floor_row(spec.experiment, name, column, floor, int(rows.sum()))
        for name, target in spec.targets.items()
        for rows in [target_rows(catalog, target, str(task.inputs["survey"])) & (catalog["split"] == "test").to_numpy()]
        for column in target.columns
        if (floor := noise_floor(catalog[rows], column)) is not None
    ]
    combined, gained = _combined(task)
    related, relation = _mass_metallicity(spec, task, catalog)
    metrics = pd.concat([*tables, *floors, *combined, *related], ignore_index=True)[COLUMNS]
    metrics.to_parquet(task.work / "metrics.parquet", index=False)
    table = comparison_table(metrics)
    table.to_csv(task.work / "comparison.csv", index=False)
    (task.work / "comparison.tex").write_text(latex_comparison(table))
    text = [format_comparison(table)]
    if (metrics["metric"] == "auc").any():
        classes = class_table(metrics[metrics["target"].isin(spec.classes)])
        classes.to_csv(task.work / "classes.csv", index=False)
        text.append(format_classes(classes))
    if spec.labels:
        labels = label_table(metrics[metrics["target"].isin(spec.labels)])
        labels.to_csv(task.work / "labels.csv", index=False)
        text.append(format_labels(labels))
    differences = _differences(task)
    differences.to_parquet(task.work / "differences.parquet", index=False)
    (task.work / "differences.txt").write_text(format_differences(differences) + "\n")
    text.append(significance_line(differences))
    if gained:
        gain_table = pd.concat(gained, ignore_index=True)
        gain_table.to_parquet(task.work / "gains.parquet", index=False)
        text.append(format_gains(gain_table))
    for name, part in relation.items():
        part.to_parquet(task.work / f"{name}.parquet", index=False)
    (task.work / "comparison.txt").write_text("\n\n".join(text) + "\n")
    return {"n_rows": len(metrics)}


def _test_table(task: Task) -> pd.DataFrame:
    """The test predictions of every feature table, with its columns of identity."""
    parts = []
    for job, path in _probed(task).items():
        table = job.spec.table
        about = {"features": table.features, "kind": table.kind, "k": table.k, "seed": table.seed}
        parts.append(pd.read_parquet(path / "predictions.parquet").assign(**about))
    return pd.concat(parts, ignore_index=True).astype({"k": "Int64", "seed": "Int64"})


def _probed(task: Task) -> dict[Job, Path]:
    return {job: path for job, path in task.inputs_of("fit-probes").items() if isinstance(job.spec, ProbeSpec)}


def _combined(task: Task) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Metrics of means over seeds, and what these and test-time augmentation gain: of heads and probes on all features.

    A method that has no seeds and is not augmented gains nothing and has no row.
    """
    spec: ProbeSpec = next(iter(_probed(task))).spec
    every = _test_table(task)
    every = every[every["target"].isin(spec.targets)]
    of_run = every.groupby(["features", "k", "seed", "target"], dropna=False)["n_features_used"]
    every = every[every["n_features_used"] == of_run.transform("max")]
    every["is_augmented"] = every["probe"].str.endswith(AUGMENTED)
    every["probe"] = every["probe"].str.removesuffix(AUGMENTED)
    metrics: list[pd.DataFrame] = []
    gained: list[pd.DataFrame] = []
    by = ["features", "kind", "k", "target", "probe"]
    for (features, kind, k, target, probe), own in every.groupby(by, dropna=False, sort=False):
        turned = own[own["is_augmented"]]
        columns = spec.targets[str(target)].columns
        truth, single = _by_galaxy(own[~own["is_augmented"]], columns)
        augmented = _by_galaxy(turned, columns)[1] if len(turned) else None
        about = {"features": features, "kind": kind, "k": k, "probe": probe, "target": target}
        for i, column in enumerate(columns):
            found = gains(
                truth[:, i],
                single[:, i],
                None if augmented is None else augmented[:, i],
                n_resamples=spec.probes.n_bootstrap,
                seed=SEED,
            )
            if found:
                gained.append(pd.DataFrame(found).assign(column=column, **about))
        if single.shape[2] > 1:
            n_used = int(own.drop_duplicates("seed")["n_features_used"].median())
            mean = Prediction(f"{probe}{ENSEMBLE}", n_used, single.mean(axis=2))
            split = np.full(len(truth), "test")
            rows = _score(spec.targets[str(target)], truth, mean, split, spec.probes.n_bootstrap, ("test",))
            metrics.append(rows.assign(experiment=spec.experiment, **(about | {"probe": mean.probe}), seed=None))
    typed = [rows.astype({"k": "Int64", "seed": "Int64"}) for rows in metrics]
    return typed, [rows.astype({"k": "Int64"}) for rows in gained]


def _by_galaxy(rows: pd.DataFrame, columns: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels (n, n_columns) and predictions (n, n_columns, n_seeds), galaxies in order of their ids."""
    rows = rows.assign(run=rows["seed"].fillna(-1))
    wide = rows.pivot_table(index="id_str", columns=["column", "run"], values="y_pred")
    truth = rows.pivot_table(index="id_str", columns="column", values="y_true")
    predictions = [wide[column].to_numpy(dtype=np.float64) for column in columns]
    return truth[list(columns)].to_numpy(dtype=np.float64), np.stack(predictions, axis=1)


def _mass_metallicity(
    spec: ComparisonSpec, task: Task, catalog: pd.DataFrame
) -> tuple[list[pd.DataFrame], dict[str, pd.DataFrame]]:
    """Metrics of the metallicity that follows from predicted masses alone, and the relation of what heads predict.

    Tables: `mass_metallicity_bins` (`interpret.mzr.relation_bins` of the true metallicity and of each head's, against
    catalogue masses) and `mass_metallicity_residuals` (`residual_trends` with log SFR and log sSFR).
    """
    target = next((name for name, target in spec.targets.items() if METALLICITY in target.columns), None)
    if target is None or not {MASS, METALLICITY, SFR} <= set(catalog):
        return [], {}
    measured = Target(columns=(METALLICITY, MASS, SFR), cut="metallicity")
    known = catalog[target_rows(catalog, measured, str(task.inputs["survey"]))]
    train, test = (known[known["split"] == part].set_index("id_str") for part in ("train", "test"))
    n_resamples = next(iter(_probed(task))).spec.probes.n_bootstrap
    heads = _test_table(task)
    heads = heads[(heads["probe"] == "head") & heads["id_str"].isin(test.index)]

    relations = {
        "tremonti_2004": tremonti_metallicity,
        "fitted_relation": median_relation(train[MASS].to_numpy(), train[METALLICITY].to_numpy()),
    }
    by = ["features", "kind", "k", "seed", "n_features_used"]
    metrics: list[pd.DataFrame] = []
    for (*identity, n_used), own in heads[heads["column"] == MASS].groupby(by, dropna=False, sort=False):
        about = dict(zip(by, identity, strict=False)) | {"experiment": spec.experiment, "target": target}
        truth = test.loc[own["id_str"], METALLICITY].to_numpy()[:, None]
        for name, relation in relations.items():
            values = relation(own["y_pred"].to_numpy())[:, None]
            prediction = Prediction(f"head_mass_{name}", n_used, values)
            split = np.full(len(truth), "test")
            rows = _score(Target(columns=(METALLICITY,)), truth, prediction, split, n_resamples, ("test",))
            metrics.append(rows.assign(**about).astype({"k": "Int64", "seed": "Int64"}))

    bins: list[pd.DataFrame] = []
    trends: list[pd.DataFrame] = []
    drawn = {("true", None, None): test[METALLICITY]}
    of_metallicity = heads[heads["column"] == METALLICITY]
    for identity, own in of_metallicity.groupby(["features", "k", "seed"], dropna=False, sort=False):
        drawn[identity] = own.set_index("id_str")["y_pred"]
    for (features, k, seed), values in drawn.items():
        rows = test.loc[values.index]
        mass, metallicity = rows[MASS].to_numpy(), values.to_numpy()
        own_bins = relation_bins(mass, metallicity, n_resamples=n_resamples, seed=SEED)
        if len(rows) < MZR_LEAST or own_bins.empty:
            return metrics, {}
        about = {"features": features, "k": k, "seed": seed}
        bins.append(own_bins.assign(**about))
        residual = metallicity - median_relation(mass, metallicity)(mass)
        quantities = {"log SFR": rows[SFR].to_numpy(), "log sSFR": (rows[SFR] - rows[MASS]).to_numpy()}
        trends.append(residual_trends(residual, quantities, n_resamples=n_resamples, seed=SEED).assign(**about))
    tables = {"mass_metallicity_bins": bins, "mass_metallicity_residuals": trends}
    typed = {"k": "Int64", "seed": "Int64"}
    return metrics, {name: pd.concat(parts, ignore_index=True).astype(typed) for name, parts in tables.items()}


def _differences(task: Task) -> pd.DataFrame:
    """The paired differences of every label column and class, from the test predictions of all tables."""
    made = task.inputs_of("fit-probes")
    spec: ProbeSpec = next(iter(made)).spec
    labels = {name: target.columns for name, target in spec.targets.items()}
    if set(spec.probes.classifiers) & {"logistic", "linear_svm"}:
        labels |= {name: (classes.column,) for name, classes in spec.classes.items()}
    tables = []
    for name, columns in labels.items():
        runs, y_true, y_pred = _test_runs(made, name, columns)
        metric = "auc" if name in spec.classes else "rmse"
        arrays = {column: (y_true[:, i], y_pred[:, i]) for i, column in enumerate(columns)}
        if len(columns) > 1:
            # the root of the mean square over columns is an error of its own, whose RMSE is the pooled one
            pooled = np.sqrt(np.mean((y_pred - y_true[:, :, None]) ** 2, axis=1))
            arrays["pooled"] = (np.zeros(len(pooled)), pooled)
        for column, (truth, predictions) in arrays.items():
            table = difference_table(runs, truth, predictions, metric, n_resamples=spec.probes.n_bootstrap, seed=SEED)
            about = {"target": name, "column": column, "metric": metric}
            tables.append(pd.concat([pd.DataFrame(about, index=table.index), table], axis=1))
    return pd.concat(tables, ignore_index=True)


def _test_runs(
    made: dict[Job, Path], target: str, columns: tuple[str, ...]
) -> tuple[pd.DataFrame, NDArray[np.float64], NDArray[np.float64]]:
    """Runs to compare, the labels (n, n_columns) and predictions (n, n_columns, n_runs), galaxies joined by id."""
    tables = {}
    for i, (job, path) in enumerate(made.items()):
        rows = pd.read_parquet(path / "predictions.parquet", filters=[("target", "==", target)])
        table = job.spec.table
        about = {"features": table.features, "kind": table.kind, "k": table.k, "seed": table.seed}
        tables[i] = rows.assign(**about).astype({"k": "Int64", "seed": "Int64"})
    runs = compared_runs(
        pd.concat([rows[RUN].drop_duplicates().assign(table=i) for i, rows in tables.items()], ignore_index=True)
    )
    ids: pd.Index | None = None
    truths: list[NDArray[np.float64]] = []
    predictions: list[NDArray[np.float64]] = []
    for run in runs.to_dict("records"):
        rows = tables[run["table"]]
        own = rows[(rows["probe"] == run["probe"]) & (rows["n_features_used"] == run["n_features_used"])]
        by_id = [own[own["column"] == column].set_index("id_str") for column in columns]
        if ids is None:
            ids = by_id[0].index
        truths.append(np.stack([column.loc[ids, "y_true"] for column in by_id], axis=1))
        predictions.append(np.stack([column.loc[ids, "y_pred"] for column in by_id], axis=1))
    return runs, truths[0], np.stack(predictions, axis=2)


def _floor_row(experiment: str, target: str, column: str, floor: float, n: int) -> pd.DataFrame:
    """A row that no method can beat: the scatter of the label that the generator kept out of the image."""
    row = {
        "experiment": experiment, "features": "noise floor", "kind": "noise_floor", "k": None, "seed": None,
        "probe": "none", "n_features_used": 0, "target": target, "column": column, "split": "test", "metric": "rmse",
        "value": floor, "low": np.nan, "high": np.nan, "n": n,
    }  # fmt: skip
    return pd.DataFrame([row]).astype({"k": "Int64", "seed": "Int64"})


main = partial(stage_main, "fit-probes")

if __name__ == "__main__":
    raise SystemExit(main())
