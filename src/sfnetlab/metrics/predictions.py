"""What probes predict, and its scores with their intervals, as rows of the tidy tables of fit-probes."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import (
    bootstrap_intervals,
    class_intervals,
    percentile_interval,
    sample_and_resamples,
)
from sfnetlab.metrics.classification import confusion_matrix, label_scores
from sfnetlab.metrics.quantiles import quantile_scores
from sfnetlab.metrics.tidy import CALIBRATED, HEAD, PARTS, TRAINING

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """The predictions of one probe for every galaxy of a sample."""

    probe: str
    n_features_used: int
    values: NDArray[np.float64]
    """(n, n_columns): values in label units; for two classes a score, > 0 for class 1; for many the class number."""
    n_effective: float = float("nan")
    participation: float = float("nan")
    """How many features the used ones effectively are, see `metrics.effective`; NaN where that is not known."""

    @property
    def used(self) -> dict[str, str | float]:
        """What was predicted with, as columns of tidy tables."""
        return {
            "probe": self.probe, "n_features_used": self.n_features_used, "n_effective": self.n_effective,
            "participation": self.participation,
        }  # fmt: skip


def typed_identity(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with k, seed and training, where they have these, as nullable integers."""
    return rows.astype({name: "Int64" for name in ("k", "seed", TRAINING) if name in rows})


def value_scores(
    columns: Sequence[str],
    Y: NDArray[np.float64],
    prediction: Prediction,
    split: NDArray[np.str_],
    *,
    n_resamples: int,
    seed: int,
    parts: Sequence[str] = PARTS,
) -> pd.DataFrame:
    """Return errors of predicted label values in each part of the split, of each column and of all pooled ("pooled").

    Parameters
    ----------
    columns
        Names of the label columns.
    Y : ndarray of shape (n, n_columns)
        Labels in their units; finite.
    split : ndarray of shape (n,)
        The part of each galaxy.

    Returns
    -------
    DataFrame
        `column, split, metric, value, low, high, n` and `Prediction.used`: metrics of `bootstrap_intervals`.
    """
    rows = []
    for part in parts:
        chosen = split == part
        for interval in bootstrap_intervals(Y[chosen], prediction.values[chosen], n_resamples=n_resamples, seed=seed):
            if interval.column is not None:
                about = (columns[interval.column], part, interval.metric)
            elif len(columns) > 1:
                about = ("pooled", part, "rmse")
            else:
                continue  # pooled over one column: the same number
            if interval.n_undefined:
                _say(
                    f"R² of {about[0]!r} is undefined in {interval.n_undefined} of {n_resamples} resamples of the "
                    f"{int(chosen.sum())} {part} galaxies, where all labels are equal: they do not count"
                )
            rows.append(_row(prediction, *about, interval[2:5], int(chosen.sum())))
    return pd.DataFrame(rows)


@cache
def _say(what: str) -> None:
    """Write a line of the log, the same one once: labels are those of every probe."""
    log.info(what)


def two_class_scores(
    column: str,
    y: NDArray[np.integer],
    predictions: Sequence[Prediction],
    split: NDArray[np.str_],
    *,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return scores of predictions of two classes in each part of the split, in the columns of `value_scores`.

    Parameters
    ----------
    column
        Catalogue column that has the classes.
    y : ndarray of shape (n,)
        0 or 1.

    Returns
    -------
    DataFrame
        Metrics of `class_intervals`.
    """
    scores = np.hstack([prediction.values for prediction in predictions])
    rows = []
    for part in PARTS:
        chosen = split == part
        found = class_intervals(y[chosen], scores[chosen], n_resamples=n_resamples, seed=seed)
        for place, metric, *interval, n_undefined in found:
            if n_undefined:
                _say(
                    f"{n_undefined} of {n_resamples} resamples of the {int(chosen.sum())} {part} galaxies have one of "
                    f"the classes of {column!r} alone: they do not count"
                )
            rows.append(_row(predictions[place], column, part, metric, interval, int(chosen.sum())))
    return pd.DataFrame(rows)


def many_class_scores(
    column: str,
    y: NDArray[np.integer],
    predictions: Sequence[Prediction],
    split: NDArray[np.str_],
    *,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return scores of predictions among many classes in each part of the split, in the columns of `value_scores`.

    Parameters
    ----------
    column
        Catalogue column that has the classes.
    y : ndarray of shape (n,)
        Class numbers, from 0.

    Returns
    -------
    DataFrame
        Metrics of `label_scores`; resamples without one of the classes do not count for the interval.
    """
    found = np.hstack([prediction.values for prediction in predictions]).astype(np.intp)
    rows = []
    for part in PARTS:
        chosen = split == part
        n = int(chosen.sum())
        blocks = [
            label_scores(y[chosen], found[chosen], weights) for weights in sample_and_resamples(n, n_resamples, seed)
        ]
        for metric in blocks[0]:
            values = np.vstack([block[metric] for block in blocks])
            low, high, _ = percentile_interval(values[1:])
            for prediction, *interval in zip(predictions, values[0], low, high, strict=True):
                rows.append(_row(prediction, column, part, metric, interval, n))
    return pd.DataFrame(rows)


def confusion_rows(
    names: Sequence[str], y: NDArray[np.integer], prediction: Prediction, split: NDArray[np.str_]
) -> pd.DataFrame:
    """Return how many test galaxies of each class are called what.

    Returns
    -------
    DataFrame
        `y_true, y_pred, n, probe, n_features_used`, a row for each pair of the classes' names.
    """
    test = split == "test"
    counts = confusion_matrix(y[test], prediction.values[test, 0].astype(np.intp), len(names))
    index = pd.MultiIndex.from_product([list(names), list(names)], names=["y_true", "y_pred"])
    table = pd.DataFrame({"n": counts.ravel()}, index=index).reset_index()
    return table.assign(probe=prediction.probe, n_features_used=prediction.n_features_used)


def prediction_rows(
    columns: Sequence[str],
    ids: "pd.Series[str]",
    Y: NDArray[np.float64],
    prediction: Prediction,
    split: NDArray[np.str_],
) -> pd.DataFrame:
    """Return the predictions of the test galaxies beside their labels.

    Returns
    -------
    DataFrame
        `id_str, column, y_true, y_pred` and `Prediction.used`; of two classes `y_true` is 0 or 1 and `y_pred` a score,
        of many both are class numbers.
    """
    test = split == "test"
    tables = [
        pd.DataFrame(
            {"id_str": ids[test], "column": column, "y_true": Y[test, i], "y_pred": prediction.values[test, i]}
        )
        for i, column in enumerate(columns)
    ]
    return pd.concat(tables).assign(**prediction.used)


def quantile_tables(
    column: str,
    ids: "pd.Series[str]",
    y: NDArray[np.float64],
    quantiles: tuple[NDArray[np.float64], NDArray[np.float64]],
    levels: Sequence[float],
    split: NDArray[np.str_],
    *,
    n_resamples: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return scores of a head's predicted quantiles, and the quantiles of the test galaxies.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Labels in their unit.
    quantiles : two ndarrays of shape (n, n_levels)
        As predicted, and calibrated on the valid rows: those are scored on test rows alone.

    Returns
    -------
    scores : DataFrame
        `metric, value, low, high, probe, column, split, n`: metrics of `quantile_scores`.
    of_galaxies : DataFrame
        `id_str, y_true, level, raw, calibrated`, a row a galaxy and level.
    """
    raw, adjusted = quantiles
    scores = []
    for probe, values, parts in ((HEAD, raw, PARTS), (f"{HEAD}{CALIBRATED}", adjusted, ("test",))):
        for part in parts:
            chosen = split == part
            found = quantile_scores(y[chosen], values[chosen], levels, n_resamples=n_resamples, seed=seed)
            about = {"probe": probe, "column": column, "split": part, "n": int(chosen.sum())}
            scores.append(pd.DataFrame(found).assign(**about))
    test = split == "test"
    table = pd.DataFrame(
        {
            "id_str": np.repeat(ids.to_numpy()[test], len(levels)),
            "y_true": np.repeat(y[test], len(levels)),
            "level": np.tile(levels, test.sum()),
            "raw": raw[test].ravel(),
            "calibrated": adjusted[test].ravel(),
        }
    )
    return pd.concat(scores, ignore_index=True), table


def _row(
    prediction: Prediction, column: str, split: str, metric: str, interval: Iterable[float], n: int
) -> dict[str, object]:
    value, low, high = interval
    return {
        "column": column, "split": split, "metric": metric, "value": value, "low": low, "high": high, "n": n,
        **prediction.used,
    }  # fmt: skip
