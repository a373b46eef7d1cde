"""Which methods differ: all comparable pairs of a comparison, on the same galaxies and seeds, with one correction.

A run is one probe of one feature table of one seed; a method is its runs over seeds. Differences are between methods:
their intervals are over galaxies and runs, and from one run there is none.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import holm
from sfnetlab.metrics.method_scores import METHOD, pooled_errors, with_budget
from sfnetlab.metrics.runs import mean_over_runs, nesting_of, scores_of
from sfnetlab.metrics.selection import are_chosen
from sfnetlab.metrics.tidy import FAMILY, HEAD, IDENTITY, STANDS_ON, TRAINING

RUN = (*IDENTITY, *STANDS_ON, "probe", "n_features_used")
MAX_RESAMPLES = 50_000
"""A p-value is at least 2 / (resamples + 1), and Holm's correction multiplies it by the number of differences."""
COLUMNS = [
    "budget", "features_a", "k_a", "probe_a", "n_features_used_a", "features_b", "k_b", "probe_b", "n_features_used_b",
    "n_seeds", "difference", "low", "high", "run_sd", "galaxy_sd", "p", "is_bound", "p_holm",
]  # fmt: skip


def compared_runs(
    runs: pd.DataFrame, on_all: Sequence[str], on_budgets: Sequence[str], choices: pd.DataFrame
) -> pd.DataFrame:
    """Return the runs that stand for their tables, with `budget`: how many features were chosen, NA for all of them.

    On all features these are the network's own head and the first probe of `on_all` that is there (for photometry
    XGBoost too, as its best), on a budget it is the first of `on_budgets`. At a budget each name of features stands
    with the k that is best on valid galaxies.

    Parameters
    ----------
    runs : DataFrame
        Columns of `RUN`, a row a run, of one target or set of classes; other columns are kept.
    on_all, on_budgets
        Names of probes, the preferred ones first.
    choices : DataFrame
        `selection.k_at_budgets` of the target, without the column `target`.
    """
    runs = with_budget(runs)
    has_all = runs["budget"].isna()
    known = set(runs["probe"])
    of_all, of_budget = (next((name for name in names if name in known), "") for names in (on_all, on_budgets))
    return runs[
        (has_all & runs["probe"].isin([HEAD, of_all]))
        | (has_all & (runs["kind"] == "photometry") & (runs["probe"] == "xgboost"))
        | (~has_all & (runs["probe"] == of_budget) & are_chosen(runs, choices))
    ]


def paired_runs(
    predictions: pd.DataFrame,
    columns: Sequence[str],
    on_all: Sequence[str],
    on_budgets: Sequence[str],
    choices: pd.DataFrame,
) -> tuple[pd.DataFrame, NDArray[np.float64], NDArray[np.float64]]:
    """Return the runs to compare, with their predictions of the same galaxies, joined by id.

    Parameters
    ----------
    predictions : DataFrame
        Test predictions of every run, of one target or set of classes: `prediction_rows` with `IDENTITY` and
        `STANDS_ON`.
    columns
        The label columns.
    on_all, on_budgets, choices
        As for `compared_runs`.

    Returns
    -------
    runs : DataFrame
        `compared_runs`.
    y_true : ndarray of shape (n, n_columns)
    y_pred : ndarray of shape (n, n_columns, n_runs)
    """
    number = predictions.groupby(list(RUN), dropna=False).ngroup()
    runs = predictions[list(RUN)].assign(run=number).drop_duplicates("run")
    runs = compared_runs(runs, on_all, on_budgets, choices)
    rows_of_run = {run: rows for run, rows in predictions.groupby(number) if run in set(runs["run"])}
    ids: pd.Index | None = None
    truths: list[NDArray[np.float64]] = []
    values: list[NDArray[np.float64]] = []
    for run in runs["run"]:
        of_run = rows_of_run[run]
        by_id = [of_run[of_run["column"] == column].set_index("id_str") for column in columns]
        ids = by_id[0].index if ids is None else ids
        truths.append(np.stack([rows.loc[ids, "y_true"] for rows in by_id], axis=1))
        values.append(np.stack([rows.loc[ids, "y_pred"] for rows in by_id], axis=1))
    return runs, truths[0], np.stack(values, axis=2)


def differences_of_target(
    predictions: pd.DataFrame,
    columns: Sequence[str],
    metric: Literal["rmse", "auc"],
    on_all: Sequence[str],
    on_budgets: Sequence[str],
    choices: pd.DataFrame,
    trivial: Collection[str],
    *,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return the paired differences of one target or set of classes, of each label column and of all pooled ("pooled").

    Parameters
    ----------
    predictions, columns, on_all, on_budgets, choices
        As for `paired_runs`.
    trivial
        As for `difference_table`.

    Returns
    -------
    DataFrame
        `column`, `metric` and the columns of `difference_table`.
    """
    runs, y_true, y_pred = paired_runs(predictions, columns, on_all, on_budgets, choices)
    arrays = {column: (y_true[:, i], y_pred[:, i]) for i, column in enumerate(columns)}
    if len(columns) > 1:
        arrays["pooled"] = pooled_errors(y_true, y_pred)
    tables = []
    for column, (truth, values) in arrays.items():
        table = difference_table(runs, truth, values, metric, trivial, n_resamples=n_resamples, seed=seed)
        about = pd.DataFrame({"column": column, "metric": metric}, index=table.index)
        tables.append(pd.concat([about, table], axis=1))
    return pd.concat(tables, ignore_index=True)


def difference_table(
    runs: pd.DataFrame,
    y_true: NDArray[np.floating],
    predictions: NDArray[np.floating],
    metric: Literal["rmse", "auc"],
    trivial: Collection[str] = (),
    *,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return paired differences between all comparable methods, a minus b, each method's score being that of its runs.

    Comparable are methods of all their features with the same k (or without one, as controls are), and methods with
    the same budget. Two of one family are compared over the trainings that both have; where they share none, not at
    all. Intervals and p-values are over galaxies and runs, see `metrics.runs`: NaN where either method has a single
    run. There are as many resamples as Holm's correction over all differences needs, up to `MAX_RESAMPLES`.

    Parameters
    ----------
    runs : DataFrame
        `compared_runs`, a row a column of `predictions`.
    y_true : ndarray of shape (n,)
        Labels of the test galaxies, for "auc" 0 or 1.
    predictions : ndarray of shape (n, n_runs)
        Predictions, for "auc" decision scores.
    trivial
        Names of features than which anything is better: the mean, nulls, an untrained network. Differences to them are
        listed, but neither tested together with the others nor counted: their `p_holm` is NaN.
    n_resamples : int
        At least so many.

    Returns
    -------
    DataFrame
        `COLUMNS`; `n_features_used_*` are medians over seeds, `budget` is NA for all features, `n_seeds` counts the
        runs of the method that has fewer. `run_sd` is the standard deviation of the difference from one run of both to
        the next, `galaxy_sd` that from one sample of galaxies to the next. `is_bound` says that no draw lies beyond 0:
        more resamples could only lower p.
    """
    runs = runs.reset_index(drop=True)
    trainings = [None if pd.isna(training) else int(training) for training in runs[TRAINING]]
    nesting = nesting_of(list(runs[FAMILY]), trainings)
    methods = [
        dict(zip(METHOD, name, strict=True))
        | {"n_features_used": int(of_method["n_features_used"].median()), "runs": list(of_method.index)}
        for name, of_method in runs.groupby(METHOD, dropna=False, sort=False)
    ]
    pairs: list[dict[str, Any]] = []
    contrasts: list[NDArray[np.float64]] = []
    for a, b in _comparable(methods):
        of_a, of_b = a["runs"], b["runs"]
        if a[FAMILY] == b[FAMILY]:
            shared = {trainings[run] for run in of_a} & {trainings[run] for run in of_b}
            of_a, of_b = ([run for run in of_method if trainings[run] in shared] for of_method in (of_a, of_b))
            if not shared:
                continue
        contrasts.append(mean_over_runs(of_a, nesting) - mean_over_runs(of_b, nesting))
        of_side = (*METHOD[:3], "probe", "n_features_used")
        row = {f"{name}_{side}": m[name] for side, m in (("a", a), ("b", b)) for name in of_side}
        pairs.append(row | {"budget": a["budget"]})
    if not pairs:
        return pd.DataFrame(columns=COLUMNS)
    n_draws = max(n_resamples, min(100 * len(pairs), MAX_RESAMPLES))
    found = scores_of(y_true, predictions, np.stack(contrasts, axis=1), nesting, metric, n_resamples=n_draws, seed=seed)
    scores = pd.DataFrame(found).rename(columns={"value": "difference", "n_runs": "n_seeds"})
    table = pd.concat([pd.DataFrame(pairs), scores.assign(n_seeds=scores["n_seeds"].clip(lower=1))], axis=1)
    table["is_bound"] = table["p"] < 3 / (n_draws + 1)  # two-sided p are even multiples of 1 / (n_draws + 1)
    is_trivial = table[["features_a", "features_b"]].isin(list(trivial)).any(axis=1)
    table["p_holm"] = holm(table["p"].where(~is_trivial).to_numpy())
    return table[COLUMNS].astype({"k_a": "Int64", "k_b": "Int64", "budget": "Int64"})


def _comparable(methods: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for a, b in itertools.combinations(methods, 2):
        if pd.isna(a["budget"]) and pd.isna(b["budget"]):
            if pd.isna(a["k"]) or pd.isna(b["k"]) or a["k"] == b["k"]:
                yield a, b
        elif not pd.isna(a["budget"]) and not pd.isna(b["budget"]) and a["budget"] == b["budget"]:
            yield a, b
