"""Stage fit-probes: every feature table under the same probes, then all of them in one tidy `metrics.parquet`."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import FeatureTable, SurveyTable, read_features, read_survey
from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.sae import sae_directory
from sfnetlab.metrics.bootstrap import sample_and_resamples
from sfnetlab.metrics.quantiles import calibrated, conformal_offsets, quantile_scores
from sfnetlab.metrics.tables import FeatureMatrix, checked_table, columns_of, rows_of
from sfnetlab.plan import ComparisonSpec, ProbeSpec
from sfnetlab.probes.regression import fit_probe
from sfnetlab.report import IN_SAMPLE
from sfnetlab.runner import stage_main
from sfnetlab.runtime import n_threads
from sfnetlab.schema import ProbeName
from sfnetlab.settings import Target
from sfnetlab.stages.class_probes import probe_classes, probe_labels
from sfnetlab.stages.comparison import compare
from sfnetlab.stages.predictions import (
    AUGMENTED,
    COLUMNS,
    N_LEAST,
    PARTS,
    SEED,
    NamedRows,
    Prediction,
    alive_features,
    budgeted_features,
    prediction_rows,
    score_predictions,
)
from sfnetlab.surveys.catalog import target_rows

CALIBRATED = "_calibrated"
"""Ends the names of quantiles that were calibrated on valid rows."""
Predict = Callable[[FeatureMatrix], NDArray[np.float64]]


def build(spec: ProbeSpec | ComparisonSpec, task: Task) -> Metrics:
    match spec:
        case ProbeSpec():
            return _probe_table(spec, task)
        case ComparisonSpec():
            return compare(spec, task)


def _probe_table(spec: ProbeSpec, task: Task) -> Metrics:
    survey, table = read_survey(task.inputs["survey"]), read_features(task.inputs["features"])
    found: dict[str, list[pd.DataFrame]] = defaultdict(list)
    probed = (
        _probe_targets(spec, task, survey, table),
        probe_classes(spec, survey, table),
        probe_labels(spec, survey, table),
    )
    for stem, rows in chain(*probed):
        found[stem].append(rows)
    tables = {stem: pd.concat(parts, ignore_index=True) for stem, parts in found.items()}
    identity = {
        "experiment": spec.experiment,
        "features": spec.table.features,
        "kind": spec.table.kind,
        "k": spec.table.k,
        "seed": spec.table.seed,
    }
    tables["metrics"] = tables["metrics"].assign(**identity).astype({"k": "Int64", "seed": "Int64"})[COLUMNS]
    for stem, rows in tables.items():
        rows.to_parquet(task.work / f"{stem}.parquet", index=False)
    return {"n_rows": len(tables["metrics"])}


def _probe_targets(spec: ProbeSpec, task: Task, survey: SurveyTable, table: FeatureTable) -> Iterator[NamedRows]:
    x_hat = _reconstruction(spec, task, table)
    n_resamples = spec.probes.n_bootstrap
    for name, target in spec.targets.items():
        usable = target_rows(survey.catalog, target, str(task.inputs["survey"]))
        rows = survey.catalog[usable]
        X = table.of(rows["id_str"])
        Y = rows[list(target.columns)].to_numpy(dtype=np.float64)
        split = rows["split"].to_numpy()
        _require_enough(name, split)
        if x_hat is not None:
            embedding = read_features(task.inputs["embedding"]).of(rows["id_str"])
            recovered = _loss_recovered(target, embedding, x_hat.of(rows["id_str"]), Y, split, n_resamples)
            yield "metrics", recovered.assign(target=name)
        network = task.inputs["network"] if name == spec.head_target else None
        turned = _turned_tables(task, survey, rows["id_str"][split == "test"]) if _augments(spec, task) else []
        for prediction in _predictions(spec, X, Y, split, network, turned):
            parts = ("test",) if prediction.probe.endswith(AUGMENTED) else PARTS
            scores = score_predictions(target, Y, prediction, split, n_resamples, parts)
            yield "metrics", scores.assign(target=name)
            yield "predictions", prediction_rows(target.columns, rows, Y, prediction, split).assign(target=name)
        if network is not None and target.quantiles:
            scores, quantiles = _quantiles(name, target, rows, X, network, n_resamples)
            n_alive = len(alive_features(X, np.flatnonzero(split == "train")))
            yield "metrics", scores.assign(target=name, n_features_used=n_alive)
            yield "quantiles", quantiles
        for prediction in _in_sample_predictions(spec, X, Y, split):
            scores = score_predictions(target, Y, prediction, split, n_resamples, parts=("test",))
            yield "metrics", scores.assign(target=name)


def _reconstruction(spec: ProbeSpec, task: Task, table: FeatureTable) -> FeatureTable | None:
    """What the features make of the embedding that they decompose, if they do."""
    match spec.table.kind:
        case "sae" | "null_sae":
            from sfnetlab.models.sae import load_sae

            assert spec.table.k is not None
            assert spec.table.seed is not None
            sae = load_sae(sae_directory(task.inputs["saes"], spec.table.k, spec.table.seed))
            return FeatureTable(table.rows, sae.decode_csr(table.values))
        case "pca":
            from safetensors.numpy import load_file

            pca = load_file(task.inputs["features"] / "model.safetensors")
            x_hat = np.asarray(table.values) @ pca["components"] + pca["mean"]
            return FeatureTable(table.rows, x_hat.astype(np.float32))
        case _:
            return None


def _loss_recovered(
    target: Target,
    embedding: FeatureMatrix,
    x_hat: FeatureMatrix,
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


def _predictions(
    spec: ProbeSpec,
    X: FeatureMatrix,
    Y: NDArray[np.float64],
    split: NDArray[np.str_],
    network: Path | None,
    turned: Sequence[FeatureMatrix] = (),
) -> Iterator[Prediction]:
    """The network's own head, then the probes on all features, then a linear probe on each budget of features.

    With the features of the test galaxies `turned` each way, head and probes on all features predict these also by the
    mean over them, NaN elsewhere.
    """
    train, valid = np.flatnonzero(split == "train"), np.flatnonzero(split == "valid")
    alive = alive_features(X, train)

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
    for chosen in budgeted_features(spec, rows_of(X, train), Y[train], alive):
        yield Prediction("linear", len(chosen), fitted("linear", chosen)(X))


def _in_sample_predictions(
    spec: ProbeSpec, X: FeatureMatrix, Y: NDArray[np.float64], split: NDArray[np.str_]
) -> Iterator[Prediction]:
    """Of embeddings: each probe fitted to the test rows that it then predicts, NaN elsewhere.

    What the SFNet paper calls cheating: what such a fit gains over the honest one is memorised. Penalty and rounds are
    chosen on the valid rows, as ever, so that the two differ in nothing else.
    """
    if spec.table.kind != "encoder":
        return
    valid, test = np.flatnonzero(split == "valid"), np.flatnonzero(split == "test")
    chosen = columns_of(X, alive_features(X, np.flatnonzero(split == "train")))
    rows, choice_rows = rows_of(chosen, test), rows_of(chosen, valid)
    for name in spec.probes.kinds:
        probe = fit_probe(name, rows, Y[test], choice_rows, Y[valid], seed=SEED, n_threads=n_threads())
        values = np.full(Y.shape, np.nan)
        values[test] = probe.predict(rows)
        yield Prediction(f"{name}{IN_SAMPLE}", checked_table(chosen).shape[1], values)


def _head_predictions(network: Path, X: FeatureMatrix) -> NDArray[np.float64]:
    """Label units, (n, n_columns); of quantiles the median."""
    from sfnetlab.models.sfnet import load_network

    weights, bias = load_network(network).head_weights()
    return np.asarray(X @ weights.T + bias, dtype=np.float64)


def _augments(spec: ProbeSpec, task: Task) -> bool:
    return spec.probes.test_time_augmentation and "network" in task.inputs and spec.table.kind in ("sfnet", "encoder")


def _turned_tables(task: Task, survey: SurveyTable, ids: "pd.Series[str]") -> list[FeatureMatrix]:
    """What the network makes of these galaxies under each of the 8 symmetries of their cutouts."""
    from scipy import sparse

    from sfnetlab.models.sfnet import load_network
    from sfnetlab.training.network import embed_turned

    network = load_network(task.inputs["network"]).to(task.device)
    place = pd.Series(np.arange(len(survey.catalog)), index=survey.catalog["id_str"])
    tables: list[FeatureMatrix] = []
    for batches in embed_turned(network.features, survey.cutouts, place[ids].to_numpy(), device=task.device):
        if network.k is None:
            tables.append(np.concatenate(list(batches)))
        else:
            tables.append(sparse.csr_array(sparse.vstack([sparse.csr_array(batch) for batch in batches])))
    return tables


def _quantiles(
    name: str, target: Target, rows: pd.DataFrame, X: FeatureMatrix, network: Path, n_resamples: int
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


main = partial(stage_main, "fit-probes")

if __name__ == "__main__":
    raise SystemExit(main())
