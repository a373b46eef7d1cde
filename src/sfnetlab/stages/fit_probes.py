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
from sfnetlab.artifacts import Metrics, read_features, read_survey
from sfnetlab.errors import DataError
from sfnetlab.metrics.bootstrap import bootstrap_intervals
from sfnetlab.metrics.selection import select_forward
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureTable, checked_table, columns_of, rows_of
from sfnetlab.plan import ComparisonSpec, ProbeSpec, sae_directory
from sfnetlab.probes import fit_probe
from sfnetlab.report import comparison_table, format_comparison
from sfnetlab.runner import Task, stage_main
from sfnetlab.runtime import n_threads
from sfnetlab.schema import ProbeName, Target
from sfnetlab.surveys.catalog import noise_floor, target_rows

log = logging.getLogger(__name__)

N_LEAST = 10
"""Galaxies in each part of the split, so that no resample is of a single one."""
SEED = 0
"""Of resamples and of XGBoost: the same for every method, so that differences between methods are paired."""


@dataclass(frozen=True)
class Prediction:
    """What a probe says of every usable galaxy: `values` (n, n_columns) in label units."""

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
            predictions.append(_test_predictions(target, rows, Y, prediction, split).assign(target=name))
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
    train, valid, test = (np.flatnonzero(split == part) for part in ("train", "valid", "test"))
    fit_rows, choice_rows = rows_of(embedding, train), rows_of(embedding, valid)
    probe = fit_probe("ridge", fit_rows, Y[train], choice_rows, Y[valid], seed=SEED, n_threads=n_threads())
    predictions = (
        np.broadcast_to(Y[train].mean(axis=0), Y[test].shape),
        probe.predict(rows_of(embedding, test)),
        probe.predict(rows_of(x_hat, test)),
    )
    squared_errors = np.stack([np.square(values - Y[test]) for values in predictions])
    # The first row of weights is the sample itself, the others are resamples of its galaxies.
    draws = np.random.default_rng(SEED).multinomial(len(test), np.full(len(test), 1 / len(test)), size=n_resamples)
    weights = np.concatenate([np.ones((1, len(test))), draws]) / len(test)
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
    for part in ("train", "valid", "test"):
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
    alive = np.flatnonzero(activation_frequency(rows_of(X, train)) > 0)
    if network is not None:
        yield Prediction("head", len(alive), _head_predictions(network, X))

    def fitted(name: ProbeName, columns: NDArray[np.integer]) -> Prediction:
        chosen = columns_of(X, columns)
        fit_rows, choice_rows = rows_of(chosen, train), rows_of(chosen, valid)
        probe = fit_probe(name, fit_rows, Y[train], choice_rows, Y[valid], seed=SEED, n_threads=n_threads())
        return Prediction(name, len(columns), probe.predict(chosen))

    for name in spec.probes.kinds:
        yield fitted(name, alive)
    budgets = [budget for budget in spec.probes.budgets if budget < len(alive)]
    if spec.table.kind == "pca":
        order = alive
    elif budgets and spec.table.kind != "photometry":
        order = select_forward(rows_of(X, train), Y[train], max(budgets))
    else:
        return
    for budget in budgets:
        if budget <= len(order):
            yield fitted("linear", order[:budget])


def _head_predictions(network: Path, X: FeatureTable) -> NDArray[np.float64]:
    from sfnetlab.models.sfnet import load_network

    weights, bias = load_network(network).head_weights()
    return np.asarray(X @ weights.T + bias, dtype=np.float64)


def _score(
    target: Target, Y: NDArray[np.float64], prediction: Prediction, split: NDArray[np.str_], n_resamples: int
) -> pd.DataFrame:
    scores = []
    for part in ("train", "valid", "test"):
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
    target: Target, rows: pd.DataFrame, Y: NDArray[np.float64], prediction: Prediction, split: NDArray[np.str_]
) -> pd.DataFrame:
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
        for i, column in enumerate(target.columns)
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
    (task.work / "comparison.txt").write_text(format_comparison(table) + "\n")
    return {"n_rows": len(metrics)}


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
