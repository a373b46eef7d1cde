"""Which methods differ: all comparable pairs of a comparison, on the same galaxies and seeds, with one correction.

A run is one probe of one feature table of one seed; a method is its runs over seeds.
"""

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import holm, paired_differences

RUN = ["features", "kind", "k", "seed", "probe", "n_features_used"]
METHOD = ["features", "kind", "k", "probe", "budget"]
MAX_RESAMPLES = 50_000
"""A p-value is at least 2 / (resamples + 1), and Holm's correction multiplies it by the number of differences."""
COLUMNS = [
    "budget", "features_a", "k_a", "probe_a", "n_features_used_a", "features_b", "k_b", "probe_b", "n_features_used_b",
    "n_seeds", "difference", "low", "high", "p", "p_holm",
]  # fmt: skip


def compared_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that stand for their feature tables, with `budget`: how many features were chosen, NA for all of them.

    Of all features the network's own head and the ridge probe (of photometry XGBoost too, as its best), of a budget the
    linear probe; for classes logistic regression, else the linear machine. At a budget each name of features stands
    with one k, the nearest to the budget (of two the larger).

    Parameters
    ----------
    runs : DataFrame
        Columns `RUN`, a row a run, of one target or class; other columns are kept.
    """
    probed = runs[runs["probe"] != "majority"]
    most = probed.groupby(["features", "k", "seed"], dropna=False)["n_features_used"].transform("max")
    probed = probed.assign(budget=probed["n_features_used"].astype("Int64").where(probed["n_features_used"] < most))
    on_all = probed["budget"].isna()
    known = set(probed["probe"])
    of_all = next((name for name in ("ridge", "linear", "logistic", "linear_svm", "xgboost") if name in known), "")
    of_budget = next((name for name in ("linear", "logistic", "linear_svm") if name in known), "")
    return probed[
        (on_all & probed["probe"].isin(["head", of_all]))
        | (on_all & (probed["kind"] == "photometry") & (probed["probe"] == "xgboost"))
        | (~on_all & (probed["probe"] == of_budget) & _has_nearest_k(probed))
    ]


def _has_nearest_k(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Whether no other k of the same features is nearer to the run's budget; of no k, there is no other."""
    k, budget = runs["k"].astype(float), runs["budget"].astype(float)
    distance = (k - budget).abs() - 1e-3 * (k > budget)
    nearest = distance.groupby([runs["features"], runs["budget"]]).transform("min")
    return k.isna() | (distance == nearest)


def difference_table(
    runs: pd.DataFrame,
    y_true: NDArray[np.floating],
    predictions: NDArray[np.floating],
    metric: Literal["rmse", "auc"],
    *,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Paired differences between all comparable methods, a minus b, averaged over the seeds that both have.

    Comparable are methods of all their features with the same k (or without one, as controls are), and methods with
    the same budget. Methods without seeds are compared with every seed of the other; two that share no seed, not at
    all. Intervals and p-values are over galaxies, with the networks as trained. There are as many resamples as Holm's
    correction over all differences needs, up to `MAX_RESAMPLES`.

    Parameters
    ----------
    runs : DataFrame
        `compared_runs`, a row a column of `predictions`.
    y_true : ndarray of shape (n,)
        Labels of the test galaxies, for "auc" 0 or 1.
    predictions : ndarray of shape (n, n_runs)
        Predictions, for "auc" decision scores.
    n_resamples : int
        At least so many.

    Returns
    -------
    DataFrame
        `COLUMNS`; `n_features_used_*` are medians over seeds, `budget` is NA for all features.
    """
    groups = runs.reset_index(drop=True).groupby(METHOD, dropna=False, sort=False)
    methods = [
        dict(zip(METHOD, name, strict=True))
        | {
            "n_features_used": int(own["n_features_used"].median()),
            "runs": dict(zip(own["seed"], own.index, strict=True)),
        }
        for name, own in groups
    ]
    pairs: list[dict[str, Any]] = []
    contrasts: list[NDArray[np.float64]] = []
    for a, b in _comparable(methods):
        shared = _shared_runs(a["runs"], b["runs"])
        if not shared:
            continue
        contrast = np.zeros(len(runs))
        for run_a, run_b in shared:
            contrast[run_a] += 1 / len(shared)
            contrast[run_b] -= 1 / len(shared)
        contrasts.append(contrast)
        row = {
            f"{name}_{side}": m[name] for side, m in (("a", a), ("b", b)) for name in (*METHOD[:4], "n_features_used")
        }
        pairs.append(row | {"budget": a["budget"], "n_seeds": len(shared)})
    if not pairs:
        return pd.DataFrame(columns=COLUMNS)
    found = paired_differences(
        y_true,
        predictions,
        np.stack(contrasts, axis=1),
        metric,
        n_resamples=max(n_resamples, min(100 * len(pairs), MAX_RESAMPLES)),
        seed=seed,
    )
    table = pd.concat([pd.DataFrame(pairs), pd.DataFrame(found)], axis=1)
    table["p_holm"] = holm(table["p"].to_numpy())
    return table[COLUMNS].astype({"k_a": "Int64", "k_b": "Int64", "budget": "Int64"})


def _comparable(methods: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for a, b in itertools.combinations(methods, 2):
        if pd.isna(a["budget"]) and pd.isna(b["budget"]):
            if pd.isna(a["k"]) or pd.isna(b["k"]) or a["k"] == b["k"]:
                yield a, b
        elif not pd.isna(a["budget"]) and not pd.isna(b["budget"]) and a["budget"] == b["budget"]:
            yield a, b


def _shared_runs(a: dict[Any, int], b: dict[Any, int]) -> list[tuple[int, int]]:
    """Runs of a and b with one seed; a method without seeds (its only one is NA) goes with each of the other."""
    if len(a) == 1 and pd.isna(next(iter(a))):
        return [(next(iter(a.values())), run) for run in b.values()]
    if len(b) == 1 and pd.isna(next(iter(b))):
        return [(run, next(iter(b.values()))) for run in a.values()]
    return [(run, b[seed]) for seed, run in a.items() if seed in b]
