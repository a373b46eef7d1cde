"""Error bars of the regression metrics by resampling galaxies, alone or as a paired difference of two methods.

The n galaxies and the seed alone decide the resamples, so that every method is scored on the same ones.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics import regression

ColumnMetric = Literal["rmse", "nmad", "r2", "bias"]
Metric = Literal[ColumnMetric, "pooled_rmse"]

COLUMN_METRICS: tuple[ColumnMetric, ...] = ("rmse", "nmad", "r2", "bias")


class Interval(NamedTuple):
    """A metric on all rows and its bootstrap interval."""

    column: int | None
    """Position of the label column; None for `pooled_rmse`, which is over all of them."""
    metric: Metric
    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A metric of method a minus that of method b, its interval and two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


def bootstrap_intervals(
    y_true: NDArray[np.floating],
    y_pred: NDArray[np.floating],
    *,
    n_resamples: int,
    seed: int,
    level: float = 0.95,
) -> list[Interval]:
    """Each regression metric of each column with its percentile interval over galaxies.

    Percentile rather than BCa: BCa's acceleration comes from a jackknife, which is not consistent for the median in
    NMAD. Galaxies are drawn with replacement, all columns of a galaxy together.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n,) or (n, m)
        Labels and predictions in label units. With m > 1 `pooled_rmse` is added; its columns must share a unit.

    Raises
    ------
    ValueError
        As the metrics do, and where a resample has a single distinct label, so that its R² is undefined.

    References
    ----------
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    truth, prediction = _as_columns(y_true), _as_columns(y_pred)
    metrics: tuple[Metric, ...] = (*COLUMN_METRICS, "pooled_rmse") if truth.shape[1] > 1 else COLUMN_METRICS
    values = {metric: _values(metric, truth, prediction) for metric in metrics}
    resampled = _resampled_values(metrics, truth, prediction, n_resamples, seed)
    intervals: list[Interval] = []
    for metric in metrics:
        low, high = np.quantile(resampled[metric], [(1 - level) / 2, (1 + level) / 2], axis=0)
        for column, value in enumerate(values[metric]):
            position = None if metric == "pooled_rmse" else column
            intervals.append(Interval(position, metric, float(value), float(low[column]), float(high[column])))
    return intervals


def paired_difference(
    y_true: NDArray[np.floating],
    pred_a: NDArray[np.floating],
    pred_b: NDArray[np.floating],
    metric: Metric,
    *,
    n_resamples: int,
    seed: int,
    level: float = 0.95,
) -> Difference:
    """A metric of predictions a minus the same of b on the same galaxies, with percentile interval and p-value.

    p is twice the smaller share of resamples on either side of zero, each count plus one, so never 0. Bias keeps its
    sign: a difference of biases says nothing about which is the larger.

    Parameters
    ----------
    y_true, pred_a, pred_b : ndarray of shape (n,), or (n, m) for `pooled_rmse`
        Label units; rows are the same galaxies in the same order.

    References
    ----------
    Davison & Hinkley 1997, Bootstrap Methods and their Application, equation 4.11 (the plus one).
    """
    truth, columns_a, columns_b = _as_columns(y_true), _as_columns(pred_a), _as_columns(pred_b)
    if metric != "pooled_rmse" and truth.shape[1] != 1:
        raise ValueError(f"{metric} compares one column, got y_true of shape {truth.shape}; pass one column at a time")
    difference = float(_values(metric, truth, columns_a)[0] - _values(metric, truth, columns_b)[0])
    resampled = (
        _resampled_values((metric,), truth, columns_a, n_resamples, seed)[metric]
        - _resampled_values((metric,), truth, columns_b, n_resamples, seed)[metric]
    )
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    n_one_side = min(np.count_nonzero(resampled <= 0), np.count_nonzero(resampled >= 0))
    return Difference(difference, float(low), float(high), min(1.0, 2 * (n_one_side + 1) / (n_resamples + 1)))


def _as_columns(y: NDArray[np.floating]) -> NDArray[np.float64]:
    columns = np.asarray(y, dtype=np.float64)
    return columns[:, None] if columns.ndim == 1 else columns


def _values(metric: Metric, truth: NDArray[np.float64], prediction: NDArray[np.float64]) -> list[float]:
    pooled = regression.pooled_rmse(truth, prediction)  # which also checks shapes and values
    if metric == "pooled_rmse":
        return [pooled]
    function = getattr(regression, metric)
    return [function(truth[:, column], prediction[:, column]) for column in range(truth.shape[1])]


def _resample_counts(n: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each of n galaxies is drawn, one resample at a time: small enough to stay in the processor's cache."""
    rng = np.random.default_rng(seed)
    for _ in range(n_resamples):
        yield np.bincount(rng.integers(n, size=n), minlength=n)


def _resampled_values(
    metrics: tuple[Metric, ...],
    truth: NDArray[np.float64],
    prediction: NDArray[np.float64],
    n_resamples: int,
    seed: int,
) -> dict[Metric, NDArray[np.float64]]:
    """Metric -> (n_resamples, m), for `pooled_rmse` (n_resamples, 1); moments are products of counts with columns."""
    n, m = truth.shape
    residuals = prediction - truth
    labels = truth - truth.mean(axis=0)
    columns = np.hstack([residuals, residuals**2, labels, labels**2])
    order = np.argsort(residuals, axis=0)
    ordered = np.take_along_axis(residuals, order, axis=0)
    moments = np.empty((n_resamples, 4 * m))
    nmads = np.empty((n_resamples, m))
    for i, counts in enumerate(_resample_counts(n, n_resamples, seed)):
        moments[i] = counts @ columns
        if "nmad" in metrics:
            for j in range(m):
                nmads[i, j] = _nmad_of_sorted(np.repeat(ordered[:, j], counts[order[:, j]]))
    first, second, label, label_squared = np.split(moments / n, 4, axis=1)
    values: dict[Metric, NDArray[np.float64]] = {
        "rmse": np.sqrt(second),
        "bias": first,
        "nmad": nmads,
        "pooled_rmse": np.sqrt(second.mean(axis=1, keepdims=True)),
    }
    if "r2" in metrics:
        total = label_squared - label**2
        if n_bad := np.count_nonzero(np.any(total <= 1e-12 * label_squared, axis=1)):
            raise ValueError(f"R² is undefined in {n_bad} of {n_resamples} resamples of {n} rows: all labels are equal")
        values["r2"] = 1 - second / total
    return values


def _nmad_of_sorted(residuals: NDArray[np.float64]) -> float:
    """NMAD of sorted residuals without sorting their distances to the median.

    The h values nearest to the median are neighbours in the sorted array: the h-th smallest distance is the least,
    over all windows of h neighbours, of the distance to the window's farther end.
    """
    n = residuals.size
    halves = ((n + 1) // 2, n // 2 + 1)
    median = np.mean([residuals[h - 1] for h in halves])
    distances = [np.min(np.maximum(median - residuals[: n - h + 1], residuals[h - 1 :] - median)) for h in set(halves)]
    return float(regression.NMAD_SCALE * np.mean(distances))
