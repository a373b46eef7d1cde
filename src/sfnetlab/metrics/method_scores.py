"""Test scores of methods: each a row, over its galaxies and runs, as a tidy table that reports and figures query.

A method is a kind of features with its k, under one probe on all of them or on a budget; its runs are its seeds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import Score, resampled_scores, sample_and_resamples
from sfnetlab.metrics.classification import label_scores
from sfnetlab.metrics.predictions import typed_identity
from sfnetlab.metrics.runs import crossed_scores, dictionary_sd, encoders_of, from_intervals, mean_over_runs, nesting_of
from sfnetlab.metrics.tidy import EFFECTIVE, FAMILY, TRAINING

METHOD = ["features", "kind", "k", FAMILY, "probe", "budget"]
"""Columns that tell methods apart; `budget` is NA where all features are used, whatever their number is for a seed."""
COLUMNS = [
    "features", "kind", "k", "probe", "budget", "n_features_used", *EFFECTIVE, "target", "column", "metric", "value",
    "low", "high", "run_sd", "dictionary_sd", "galaxy_sd", "n_seeds", "n_dictionaries", "n",
]  # fmt: skip
VALUES: tuple[Score, ...] = ("rmse",)
TWO_CLASSES: tuple[Score, ...] = ("auc", "average_precision", "f1", "accuracy", "balanced_accuracy")
MANY_CLASSES: tuple[Score, ...] = ("balanced_accuracy", "accuracy")


def with_budget(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs, or predictions of runs, with `budget`: how many features were chosen, NA where all are in use.

    Runs of several targets have a column `target`: each has galaxies of its own, on which features may be silent.
    """
    by = ["features", "k", "seed", *(["target"] if "target" in runs else [])]
    most = runs.groupby(by, dropna=False)["n_features_used"].transform("max")
    return runs.assign(budget=runs["n_features_used"].astype("Int64").where(runs["n_features_used"] < most))


def method_scores(
    predictions: pd.DataFrame,
    columns_of: Mapping[str, Sequence[str]],
    metrics: Sequence[Score],
    *,
    are_classes_many: bool = False,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return the test scores of every method, of each label column and for several of all pooled ("pooled").

    Parameters
    ----------
    predictions : DataFrame
        Test predictions of every run: `prediction_rows` with `IDENTITY`, `STANDS_ON` and `target`.
    columns_of
        The label columns of each target; predictions of what is no target are left out.
    metrics
        `VALUES`, `TWO_CLASSES` or `MANY_CLASSES`.
    are_classes_many
        Whether predictions are numbers of one of several classes.

    Returns
    -------
    DataFrame
        `COLUMNS`, a row a method, label column and metric. `low` and `high` are the 95 % interval over galaxies and
        runs, NaN where a single training stands for the method; `run_sd` is the standard deviation from one training to
        the next (NaN from one, 0 where nothing is random), each being the mean of the dictionaries on it,
        `dictionary_sd` that between dictionaries on the same training (NaN where each has one), `galaxy_sd` that from
        one sample of as many galaxies to the next; `n_seeds` counts the trainings and `n_dictionaries` the dictionaries
        on each; `n_features_used`, `n_effective` and `participation` are their medians. See `metrics.runs`.
    """
    rows: list[dict[str, Any]] = []
    for target, columns in columns_of.items():
        every = with_budget(predictions[predictions["target"] == target])
        for identity, of_method in every.groupby(METHOD, dropna=False, sort=False):
            about = dict(zip(METHOD, identity, strict=True))
            known = set(of_method["column"])
            predicted = [column for column in columns if column in known]
            trainings, y_true, y_pred = by_run(of_method, predicted)
            nesting, n_seeds = nesting_of([0] * len(trainings), trainings), len(set(trainings))
            weights = mean_over_runs(range(len(trainings)), nesting)[:, None]
            of_runs = of_method.drop_duplicates(["seed", TRAINING])
            used = {"n_features_used": int(of_runs["n_features_used"].median())} | dict(
                of_runs[list(EFFECTIVE)].median()
            )
            for column, truth, values in _columns(predicted, y_true, y_pred):
                for metric in metrics:
                    if are_classes_many:
                        found = _resampled_labels(metric, truth, values, n_resamples, seed)
                    else:
                        found = resampled_scores(metric, truth, values, n_resamples=n_resamples, seed=seed)
                    (score,) = crossed_scores(*found, weights, nesting, seed=seed)
                    # of what is a share no more than all
                    ends = np.clip([score.low, score.high], 0, np.inf if metric == "rmse" else 1)
                    numbers = score._replace(low=ends[0], high=ends[1])._asdict()
                    numbers |= {
                        "dictionary_sd": dictionary_sd(found[0], nesting),
                        "n_seeds": n_seeds,
                        "n_dictionaries": len(trainings) // n_seeds,
                        "n": len(truth),
                    }
                    rows.append(about | {"target": target, "column": column, "metric": metric} | used | numbers)
    return typed_identity(pd.DataFrame(rows, columns=COLUMNS)).astype({"budget": "Int64"})


def by_run(
    rows: pd.DataFrame, columns: Sequence[str]
) -> tuple[list[int | None], NDArray[np.float64], NDArray[np.float64]]:
    """Return the trainings of one method's runs, labels (n, n_columns) and predictions (n, n_columns, n_runs).

    Galaxies are in the order of their ids.

    Raises
    ------
    ValueError
        If runs predict different galaxies.
    """
    keys = [TRAINING, "seed"]
    runs = rows.assign(**{key: rows[key].fillna(-1) for key in keys})
    wide = runs.pivot_table(index="id_str", columns=["column", *keys], values="y_pred")
    truth = runs.pivot_table(index="id_str", columns="column", values="y_true")
    if wide.isna().any(axis=None):
        about = rows[["features", "probe"]].iloc[0].to_dict()
        raise ValueError(f"{about}: runs predict different galaxies, so that their scores cannot be compared")
    trainings = [None if run[0] < 0 else int(run[0]) for run in wide[columns[0]].columns]
    predictions = np.stack([wide[column].to_numpy(dtype=np.float64) for column in columns], axis=1)
    return trainings, truth[list(columns)].to_numpy(dtype=np.float64), predictions


def without_interval(rows: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield rows of `metrics.parquet` as rows of methods of which there is one run."""
    for table in rows:
        chosen = table[(table["split"] == "test") & (table["metric"] == "rmse")]
        nothing = dict.fromkeys(("low", "high", "run_sd", "dictionary_sd", "galaxy_sd"), np.nan)
        yield chosen.assign(**nothing, n_seeds=1, n_dictionaries=1, budget=None)[COLUMNS].astype({"budget": "Int64"})


def with_method_intervals(metrics: pd.DataFrame, methods: pd.DataFrame) -> pd.DataFrame:
    """Return `metrics.parquet` with, in its test rows, the interval of the method in the place of that of the run.

    What is not among the methods' scores (fits to test rows, R²) gets `runs.from_intervals`.

    Parameters
    ----------
    metrics : DataFrame
        A row a run and number, `metrics.tidy.COLUMNS`.
    methods : DataFrame
        `COLUMNS`.
    """
    by = ["features", "k", "probe", "budget", "target", "column", "metric"]
    tests = metrics[metrics["split"] == "test"]
    runs = pd.concat([with_budget(rows) for _, rows in tests.groupby(["target", "metric"])]).reset_index(names="row")
    known = methods.drop_duplicates(by)[[*by, "low", "high"]]
    runs = runs.merge(known, on=by, how="left", suffixes=("_of_run", ""), indicator="where")
    found = runs[["low", "high"]].to_numpy(dtype=np.float64, copy=True)
    of_run = runs[["value", "low_of_run", "high_of_run"]].to_numpy(dtype=np.float64)
    seeds = encoders_of(runs["seed"])
    others = runs[runs["where"] == "left_only"].groupby(by, dropna=False).ngroup()
    for of_method in others.groupby(others).groups.values():
        rows = np.asarray(of_method)
        value, low, high = of_run[rows].T
        found[rows] = from_intervals(value, low, high, [seeds[row] for row in rows])[1:]
    bounds = metrics[["low", "high"]].astype(float)
    bounds.loc[runs["row"]] = found
    return metrics.assign(low=bounds["low"], high=bounds["high"])


def _columns(
    columns: Sequence[str], y_true: NDArray[np.float64], y_pred: NDArray[np.float64]
) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    """Name, labels (n,) and predictions (n, n_runs) of each column, and of all pooled where there are several."""
    for i, column in enumerate(columns):
        yield column, y_true[:, i], y_pred[:, i]
    if len(columns) > 1:
        yield "pooled", *pooled_errors(y_true, y_pred)


def pooled_errors(
    y_true: NDArray[np.float64], y_pred: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return zeros (n,) and, as predictions of these, errors (n, n_runs) whose RMSE is that of all columns pooled."""
    errors = np.sqrt(np.mean((y_pred - y_true[:, :, None]) ** 2, axis=1))
    return np.zeros(len(errors)), errors


def _resampled_labels(
    metric: str, y_true: NDArray[np.float64], y_pred: NDArray[np.float64], n_resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A score of `label_scores` of every run, (n_runs,), and on resamples, (n_resamples, n_runs)."""
    truth, found = y_true.astype(np.intp), y_pred.astype(np.intp)
    blocks = [
        label_scores(truth, found, weights)[metric] for weights in sample_and_resamples(len(truth), n_resamples, seed)
    ]
    values = np.vstack(blocks)
    return values[0], values[1:]
