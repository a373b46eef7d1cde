"""Stage fit-probes: every feature table under the same probes, then all of them in one tidy `metrics.parquet`."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import FeatureTable as StoredFeatures
from sfnetlab.artifacts import Job, Metrics, read_features, read_survey
from sfnetlab.errors import DataError
from sfnetlab.metrics.bootstrap import bootstrap_intervals, class_intervals, sample_and_resamples
from sfnetlab.metrics.differences import RUN, compared_runs, difference_table
from sfnetlab.metrics.selection import select_forward
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureTable, checked_table, columns_of, rows_of
from sfnetlab.plan import ComparisonSpec, ProbeSpec, sae_directory
from sfnetlab.probes import fit_probe, make_classifier
from sfnetlab.report import (
    IN_SAMPLE,
    class_table,
    comparison_table,
    format_classes,
    format_comparison,
    format_differences,
    latex_comparison,
    significance_line,
)
from sfnetlab.runner import Task, stage_main
from sfnetlab.runtime import n_threads
from sfnetlab.schema import Classes, ClassifierName, ProbeName, Target
from sfnetlab.surveys.catalog import noise_floor, target_rows

log = logging.getLogger(__name__)

N_LEAST = 10
"""Galaxies in each part of the split, of classes of each class, so that no resample is of a single one."""
PARTS = ("train", "valid", "test")
SEED = 0
"""Of resamples and of XGBoost: the same for every method, so that differences between methods are paired."""


@dataclass(frozen=True)
class Prediction:
    """What a probe says of every usable galaxy: `values` (n, n_columns) in label units, of classifiers a score."""

    probe: str
    n_features_used: int
    values: NDArray[np.float64]


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
        for prediction in _predictions(spec, X, Y, split, network):
            metrics.append(_score(target, Y, prediction, split, spec.probes.n_bootstrap).assign(target=name))
            predictions.append(_test_predictions(target.columns, rows, Y, prediction, split).assign(target=name))
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
    spec: ProbeSpec, X: FeatureTable, Y: NDArray[np.float64], split: NDArray[np.str_], network: Path | None
) -> Iterator[Prediction]:
    """The network's own head, then the probes on all features, then a linear probe on each budget of features."""
    train, valid = np.flatnonzero(split == "train"), np.flatnonzero(split == "valid")
    alive = _alive(X, train)
    if network is not None:
        yield Prediction("head", len(alive), _head_predictions(network, X))

    def fitted(name: ProbeName, columns: NDArray[np.integer]) -> Prediction:
        chosen = columns_of(X, columns)
        fit_rows, choice_rows = rows_of(chosen, train), rows_of(chosen, valid)
        probe = fit_probe(name, fit_rows, Y[train], choice_rows, Y[valid], seed=SEED, n_threads=n_threads())
        return Prediction(name, len(columns), probe.predict(chosen))

    for name in spec.probes.kinds:
        yield fitted(name, alive)
    for chosen in _budgets(spec, rows_of(X, train), Y[train], alive):
        yield fitted("linear", chosen)


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


def _head_predictions(network: Path, X: FeatureTable) -> NDArray[np.float64]:
    from sfnetlab.models.sfnet import load_network

    weights, bias = load_network(network).head_weights()
    return np.asarray(X @ weights.T + bias, dtype=np.float64)


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
    metrics = pd.concat([*tables, *floors], ignore_index=True)[COLUMNS]
    metrics.to_parquet(task.work / "metrics.parquet", index=False)
    table = comparison_table(metrics)
    table.to_csv(task.work / "comparison.csv", index=False)
    (task.work / "comparison.tex").write_text(latex_comparison(table))
    text = [format_comparison(table)]
    if (metrics["metric"] == "auc").any():
        classes = class_table(metrics)
        classes.to_csv(task.work / "classes.csv", index=False)
        text.append(format_classes(classes))
    differences = _differences(task)
    differences.to_parquet(task.work / "differences.parquet", index=False)
    (task.work / "differences.txt").write_text(format_differences(differences) + "\n")
    text.append(significance_line(differences))
    (task.work / "comparison.txt").write_text("\n\n".join(text) + "\n")
    return {"n_rows": len(metrics)}


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
