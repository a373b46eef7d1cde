"""Error bars of the metrics of one run by resampling galaxies; what runs add, `metrics.runs` knows.

The n galaxies and the seed alone decide the resamples, so that every run is scored on the same ones.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics import classification, regression
from sfnetlab.runtime import compiled

ColumnMetric = Literal["rmse", "nmad", "r2", "bias"]
Metric = Literal[ColumnMetric, "pooled_rmse"]
Score = Literal["rmse", "auc", "average_precision", "f1", "accuracy", "balanced_accuracy"]
"""Metrics that are compared between methods."""

COLUMN_METRICS: tuple[ColumnMetric, ...] = ("rmse", "nmad", "r2", "bias")
CONFUSION = ("true_positive", "false_positive", "true_negative", "false_negative")
CLASS_METRICS = ("accuracy", "f1", "auc", "average_precision", "balanced_accuracy", *CONFUSION)

BLOCK_RESAMPLES = 256
"""Resamples that are weighed in one matrix product."""
LARGE_SAMPLE = 2**16
"""Up to so many galaxies the moments of regression metrics are summed a resample at a time, as they always were: many
at once are faster, but round otherwise."""
BLOCK_WEIGHTS = 2**25
"""Weights of resamples held at a time, 256 MiB: of large samples fewer resamples are weighed at once."""
LEAST_DEFINED = 0.5
"""Share of the resamples in which a metric must be defined; where it is in fewer, its interval is NaN."""


class Interval(NamedTuple):
    """A metric on all rows and its bootstrap interval; NaN where it is not defined."""

    column: int | None
    """Position of the label column; None for `pooled_rmse`, which is over all of them."""
    metric: Metric
    value: float
    low: float
    high: float
    n_undefined: int
    """Resamples in which it is not defined: R² where all labels are equal. They do not count for the interval."""


class ClassInterval(NamedTuple):
    """A metric of a column of scores on all rows and its bootstrap interval; confusion counts are metrics too."""

    column: int
    metric: str
    value: float
    low: float
    high: float
    n_undefined: int
    """Resamples without one of the classes: they do not count for the interval."""


def bootstrap_intervals(
    y_true: NDArray[np.floating],
    y_pred: NDArray[np.floating],
    *,
    n_resamples: int,
    seed: int,
    level: float = 0.95,
) -> list[Interval]:
    """Return each regression metric of each column with its percentile interval over galaxies.

    Percentile rather than BCa: BCa's acceleration comes from a jackknife, which is not consistent for the median in
    NMAD. Galaxies are drawn with replacement, all columns of a galaxy together.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n,) or (n, m)
        Labels and predictions in label units. With m > 1 `pooled_rmse` is added; its columns must share a unit. Where
        all labels of a column are equal its R² is NaN.

    Raises
    ------
    ValueError
        As the metrics do.

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
        bounds = percentile_interval(resampled[metric], level)
        for column, (value, low, high, n_undefined) in enumerate(zip(values[metric], *bounds, strict=True)):
            position = None if metric == "pooled_rmse" else column
            intervals.append(Interval(position, metric, float(value), float(low), float(high), int(n_undefined)))
    return intervals


def percentile_interval(
    resampled: NDArray[np.float64], level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Return low and high end of the central interval of each column, and how many resamples are NaN in it; all (m,).

    What is NaN does not count; both ends are NaN where fewer than `LEAST_DEFINED` of the resamples are left.

    Parameters
    ----------
    resampled : ndarray of shape (n_resamples, m)
        Values of m metrics; NaN where one is not defined.
    """
    levels = [(1 - level) / 2, (1 + level) / 2]
    n_undefined = np.count_nonzero(np.isnan(resampled), axis=0)
    low, high = np.full((2, resampled.shape[1]), np.nan)
    is_known = (len(resampled) - n_undefined >= LEAST_DEFINED * len(resampled)) & (n_undefined < len(resampled))
    if is_known.any():
        quantile = np.nanquantile if n_undefined.any() else np.quantile
        low[is_known], high[is_known] = quantile(resampled[:, is_known], levels, axis=0)
    return low, high, n_undefined


def class_intervals(
    y_true: NDArray[np.number],
    scores: NDArray[np.floating],
    *,
    n_resamples: int,
    seed: int,
    level: float = 0.95,
) -> list[ClassInterval]:
    """Return each of `CLASS_METRICS` of each column of scores with its percentile interval over galaxies.

    The AUC of a resample is the linear part of its U-statistic, a mean of `classification.placements`: what is left out
    is of order 1/n, and a thousand resamples of many methods become matrix products. Resamples without one of the
    classes are left out.

    Parameters
    ----------
    y_true : ndarray of shape (n,)
        0 or 1, both present.
    scores : ndarray of shape (n, m)
        A column a method; positive where > 0.
    """
    values, resampled = _resampled_classes(y_true, scores, n_resamples, seed)
    intervals: list[ClassInterval] = []
    for metric in CLASS_METRICS:
        bounds = percentile_interval(resampled[metric], level)
        for column, (value, low, high, n_undefined) in enumerate(zip(values[metric].ravel(), *bounds, strict=True)):
            intervals.append(ClassInterval(column, metric, float(value), float(low), float(high), int(n_undefined)))
    return intervals


def resampled_scores(
    metric: Score, y_true: NDArray[np.floating], predictions: NDArray[np.floating], *, n_resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a metric of every column of predictions on all galaxies, (m,), and on resamples, (n_resamples, m).

    Resamples are the same for all columns; NaN where the metric is not defined in one.

    Parameters
    ----------
    y_true : ndarray of shape (n,)
        Labels; for metrics of classes 0 or 1, both present.
    predictions : ndarray of shape (n, m)
        A column a run: predictions in label units, for classes scores, positive where > 0.
    """
    if metric == "rmse":
        return _resampled_rmse(y_true, predictions, n_resamples, seed)
    if metric == "auc":
        return _resampled_auc(*classification.checked_classes(y_true, predictions), n_resamples, seed)
    if metric == "average_precision":
        return _resampled_precision(*classification.checked_classes(y_true, predictions), n_resamples, seed)
    values, resampled = _resampled_classes(y_true, predictions, n_resamples, seed)
    return values[metric].ravel(), resampled[metric]


def holm(p: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return p-values (n,) after Holm's step-down correction: those below 0.05 hold together with a 5 % risk of error.

    What is NaN was not tested: it stays NaN and does not count.

    References
    ----------
    Holm 1979, Scandinavian Journal of Statistics 6, 65.
    """
    every = np.asarray(p, dtype=np.float64)
    order = np.argsort(every)[: np.count_nonzero(~np.isnan(every))]
    stepped = np.maximum.accumulate(every[order] * np.arange(len(order), 0, -1))
    adjusted = np.full(len(every), np.nan)
    adjusted[order] = np.minimum(1.0, stepped)
    return adjusted


def _as_columns(y: NDArray[np.floating]) -> NDArray[np.float64]:
    columns = np.asarray(y, dtype=np.float64)
    return columns[:, None] if columns.ndim == 1 else columns


def _values(metric: Metric, truth: NDArray[np.float64], prediction: NDArray[np.float64]) -> list[float]:
    pooled = regression.pooled_rmse(truth, prediction)  # which also checks shapes and values
    if metric == "pooled_rmse":
        return [pooled]
    function = getattr(regression, metric)
    return [function(truth[:, column], prediction[:, column]) for column in range(truth.shape[1])]


def resample_counts(n: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each of n galaxies is drawn, a resample at a time, so that it stays in the processor's cache."""
    rng = np.random.default_rng(seed)
    for _ in range(n_resamples):
        yield np.bincount(rng.integers(n, size=n), minlength=n)


def sample_and_resamples(n: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield weights that sum to 1, (1 + n_resamples, n) in all, in blocks of at most `BLOCK_WEIGHTS` values.

    The first row is the sample itself, the others are those of `resample_counts`.
    """
    draws = chain([np.ones(n, dtype=np.int64)], resample_counts(n, n_resamples, seed))
    for block in _in_blocks(draws, n, 1 + n_resamples, 1 + n_resamples):
        block /= n
        yield block


def _weight_blocks(n: int, n_resamples: int, seed: int, n_rows: int = BLOCK_RESAMPLES) -> Iterator[NDArray[np.float64]]:
    """The counts of `resample_counts` as matrices of at most so many rows."""
    return _in_blocks(resample_counts(n, n_resamples, seed), n, n_resamples, n_rows)


def _in_blocks(
    draws: Iterator[NDArray[np.int64]], n: int, n_draws: int, most_rows: int
) -> Iterator[NDArray[np.float64]]:
    """Draws (n,), `n_draws` of them, as matrices of at most so many rows and `BLOCK_WEIGHTS` values (or a row)."""
    n_rows = min(most_rows, max(1, BLOCK_WEIGHTS // n))
    for start in range(0, n_draws, n_rows):
        block = np.empty((min(n_rows, n_draws - start), n))
        for row in block:
            row[:] = next(draws)
        yield block


def _resampled_rmse(
    y_true: NDArray[np.floating], predictions: NDArray[np.floating], n_resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """RMSE of every column of predictions on all rows, (m,), and on resamples, (n_resamples, m)."""
    truth, columns = np.asarray(y_true, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    values = np.array([regression.rmse(truth, column) for column in columns.T])
    squared = (columns - truth[:, None]) ** 2
    blocks = [np.sqrt(weights @ squared / truth.size) for weights in _weight_blocks(truth.size, n_resamples, seed)]
    return values, np.vstack(blocks)


def _resampled_auc(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], n_resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUC of every column of scores on all rows, (m,), and on resamples, (n_resamples, m), NaN without both classes."""
    shares, values = _placements(truth, scores)
    blocks = []
    for weights in _weight_blocks(truth.size, n_resamples, seed):
        means = []
        for is_class in (truth, ~truth):
            n_drawn = weights[:, is_class].sum(axis=1, keepdims=True)
            total = weights[:, is_class] @ shares[is_class]
            means.append(np.divide(total, n_drawn, out=np.full_like(total, np.nan), where=n_drawn > 0))
        blocks.append(means[0] + means[1] - values)
    return values, np.vstack(blocks)


def _resampled_precision(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], n_resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision of every column of scores, (m,), and on resamples, (n_resamples, m), NaN without positives."""
    m = scores.shape[1]
    orders = np.argsort(-scores, axis=0, kind="stable")
    ordered = np.take_along_axis(scores, orders, axis=0)
    is_last = np.vstack([ordered[1:] != ordered[:-1], np.ones((1, m), dtype=np.bool_)])

    def of(weights: NDArray[np.float64]) -> list[float]:
        return [_average_precision(truth, weights, orders[:, j], is_last[:, j]) for j in range(m)]

    values = np.array(of(np.ones(truth.size)))
    blocks = [of(weights) for block in _weight_blocks(truth.size, n_resamples, seed) for weights in block]
    return values, np.array(blocks).reshape(-1, m)


@compiled()
def _average_precision(
    truth: NDArray[np.bool_], weights: NDArray[np.float64], order: NDArray[np.integer], is_last: NDArray[np.bool_]
) -> float:
    """Mean over positives of the precision among those that score as much or more; of equal scores `is_last` is one.

    It is scikit-learn's `average_precision_score`, which does not interpolate.
    """
    n_positive, n_found, n_positive_before, total = 0.0, 0.0, 0.0, 0.0
    for place in range(len(order)):
        row = order[place]
        n_found += weights[row]
        if truth[row]:
            n_positive += weights[row]
        if is_last[place] and n_positive > n_positive_before:
            total += (n_positive - n_positive_before) * n_positive / n_found
            n_positive_before = n_positive
    return total / n_positive if n_positive > 0 else np.nan


def _resampled_classes(
    y_true: NDArray[np.number], scores: NDArray[np.floating], n_resamples: int, seed: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Each of `CLASS_METRICS` of every column of scores on all rows, (1, m), and on resamples, (n_resamples, m)."""
    truth, columns = classification.checked_classes(y_true, scores)
    counts_of = classification.outcomes(truth[:, None], columns)
    shares, auc = _placements(truth, columns)
    parts = np.hstack([*(counts_of[name] for name in CONFUSION), shares * truth[:, None], shares * ~truth[:, None]])
    sums = np.vstack([weights @ parts for weights in _weight_blocks(truth.size, n_resamples, seed)])
    values = _class_values(*np.hsplit(parts.sum(axis=0)[None], 6), auc=auc)
    resampled = _class_values(*np.hsplit(sums, 6), auc=auc)
    precision, of_resamples = _resampled_precision(truth, columns, n_resamples, seed)
    return values | {"average_precision": precision[None]}, resampled | {"average_precision": of_resamples}


def _placements(
    truth: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`classification.placements` of every column of scores (n, m), and the AUC of each, (m,)."""
    shares = np.stack([classification.placements(truth, column) for column in scores.T], axis=1)
    return shares, shares[truth].mean(axis=0)


def _class_values(
    tp: NDArray[np.float64],
    fp: NDArray[np.float64],
    tn: NDArray[np.float64],
    fn: NDArray[np.float64],
    of_positives: NDArray[np.float64],
    of_negatives: NDArray[np.float64],
    *,
    auc: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Metrics from confusion counts and sums of placements, all of one shape; NaN without both classes."""
    has_both = (tp + fn > 0) & (tn + fp > 0)

    def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.divide(part, whole, out=np.full_like(part, np.nan), where=has_both)

    return {
        "accuracy": share(tp + tn, tp + fp + tn + fn),
        "f1": share(2 * tp, 2 * tp + fp + fn),
        # Linear in the placements, so that with few galaxies it could pass the ends of its scale.
        "auc": np.clip(share(of_positives, tp + fn) + share(of_negatives, tn + fp) - auc, 0, 1),
        "balanced_accuracy": (share(tp, tp + fn) + share(tn, tn + fp)) / 2,
        **{name: np.where(has_both, counts, np.nan) for name, counts in zip(CONFUSION, (tp, fp, tn, fn), strict=True)},
    }


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
    ordered = np.ascontiguousarray(np.take_along_axis(residuals, order, axis=0).T)
    order = np.ascontiguousarray(order.T)
    moments = np.empty((n_resamples, 4 * m))
    nmads = np.empty((n_resamples, m))
    done = 0
    for block in _weight_blocks(n, n_resamples, seed, BLOCK_RESAMPLES if n > LARGE_SAMPLE else 1):
        moments[done : done + len(block)] = block @ columns
        if "nmad" in metrics:
            for i, j in np.ndindex(len(block), m):
                nmads[done + i, j] = regression.NMAD_SCALE * _mad_of_sorted(ordered[j], block[i], order[j])
        done += len(block)
    first, second, label, label_squared = np.split(moments / n, 4, axis=1)
    values: dict[Metric, NDArray[np.float64]] = {
        "rmse": np.sqrt(second),
        "bias": first,
        "nmad": nmads,
        "pooled_rmse": np.sqrt(second.mean(axis=1, keepdims=True)),
    }
    if "r2" in metrics:
        total = label_squared - label**2
        is_defined = total > 1e-12 * label_squared
        values["r2"] = 1 - np.divide(second, total, out=np.full_like(total, np.nan), where=is_defined)
    return values


@compiled()
def _mad_of_sorted(residuals: NDArray[np.float64], counts: NDArray[np.float64], order: NDArray[np.integer]) -> float:
    """Median distance to the median of sorted residuals (n,), n of them drawn: the i-th counts[order[i]] times.

    With an even n either median is the mean of the two in the middle. From the median on, the nearer neighbour on the
    left or right comes next, so that nothing is repeated or sorted.
    """
    n = len(residuals)
    halves = ((n + 1) // 2, n // 2 + 1)
    middle = np.empty(2)
    place, n_seen = -1, 0.0
    for i, half in enumerate(halves):
        while n_seen < half:
            place += 1
            n_seen += counts[order[place]]
        middle[i] = residuals[place]
    median = (middle[0] + middle[1]) / 2
    right = place
    while right > 0 and residuals[right - 1] >= median:
        right -= 1
    left = right - 1
    distance, n_seen = 0.0, 0.0
    for i, half in enumerate(halves):
        while n_seen < half:
            if right == n or (left >= 0 and median - residuals[left] < residuals[right] - median):
                distance = median - residuals[left]
                n_seen += counts[order[left]]
                left -= 1
            else:
                distance = residuals[right] - median
                n_seen += counts[order[right]]
                right += 1
        middle[i] = distance
    return (middle[0] + middle[1]) / 2
