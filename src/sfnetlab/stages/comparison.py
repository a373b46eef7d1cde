"""The comparison of fit-probes: all tables together, means over seeds, gains, paired differences, mass-metallicity."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import read_survey
from sfnetlab.interpret.mzr import median_relation, relation_bins, residual_trends, tremonti_metallicity
from sfnetlab.jobs import Job, Metrics, Task
from sfnetlab.metrics.differences import RUN, compared_runs, difference_table
from sfnetlab.metrics.gains import format_gains, gains
from sfnetlab.plan import ComparisonSpec, ProbeSpec
from sfnetlab.report import (
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
from sfnetlab.settings import Target
from sfnetlab.stages.predictions import AUGMENTED, COLUMNS, SEED, Prediction, score_predictions
from sfnetlab.surveys.catalog import noise_floor, target_rows

ENSEMBLE = "_ensemble"
"""Ends the names of means over seeds."""
MASS, METALLICITY, SFR = "lgm_tot_p50", "oh_p50", "sfr_tot_p50"
MZR_LEAST = 50
"""Test galaxies, fewer make no relation."""


def compare(spec: ComparisonSpec, task: Task) -> Metrics:
    """Write all tables' metrics with what follows from them together, and the comparison as text, CSV and LaTeX."""
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
            rows = score_predictions(spec.targets[str(target)], truth, mean, split, spec.probes.n_bootstrap, ("test",))
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
            rows = score_predictions(Target(columns=(METALLICITY,)), truth, prediction, split, n_resamples, ("test",))
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
