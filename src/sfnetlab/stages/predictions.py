"""What a probe says of galaxies, from which features, and how that is scored: shared by the parts of fit-probes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import bootstrap_intervals
from sfnetlab.metrics.selection import select_forward
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureMatrix, rows_of
from sfnetlab.plan import ProbeSpec
from sfnetlab.settings import Target

N_LEAST = 10
"""Galaxies in each part of the split, of classes of each class, so that no resample is of a single one."""
PARTS = ("train", "valid", "test")
AUGMENTED = "_augmented"
"""Ends the names of predictions that are means over the 8 symmetries of a cutout."""
SEED = 0
"""Of resamples and of XGBoost: the same for every method, so that differences between methods are paired."""
COLUMNS = [
    "experiment", "features", "kind", "k", "seed", "probe", "n_features_used", "target", "column", "split", "metric",
    "value", "low", "high", "n",
]  # fmt: skip

NamedRows = tuple[str, pd.DataFrame]
"""Rows for one of the stage's files, by its stem."""


@dataclass(frozen=True)
class Prediction:
    """What a probe says of every usable galaxy: `values` (n, n_columns) in label units, of classifiers a score."""

    probe: str
    n_features_used: int
    values: NDArray[np.float64]


def alive_features(X: FeatureMatrix, train: NDArray[np.integer]) -> NDArray[np.integer]:
    """Columns with a value other than zero on some train row: what a probe may use."""
    return np.flatnonzero(activation_frequency(rows_of(X, train)) > 0)


def budgeted_features(
    spec: ProbeSpec, X: FeatureMatrix, Y: NDArray[np.float64], alive: NDArray[np.integer]
) -> Iterator[NDArray[np.integer]]:
    """The features of each budget, by the train rows X and Y: the first components, else the best features."""
    budgets = [budget for budget in spec.probes.budgets if budget < len(alive)]
    if not budgets or spec.table.kind == "photometry":
        return
    order = alive if spec.table.kind in ("pca", "pls") else select_forward(X, Y, max(budgets))
    yield from (order[:budget] for budget in budgets if budget <= len(order))


def score_predictions(
    target: Target,
    Y: NDArray[np.float64],
    prediction: Prediction,
    split: NDArray[np.str_],
    n_resamples: int,
    parts: tuple[str, ...] = PARTS,
) -> pd.DataFrame:
    """Rows of `metrics.parquet`: errors of each label column in each part, and their pooled RMSE, with intervals."""
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


def prediction_rows(
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
