"""What is gained by predicting more than once: test-time augmentation, and ensembles over seeds."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import paired_differences
from sfnetlab.metrics.regression import rmse

GAINS = {"augmentation": "8 symmetries", "ensemble": "mean over seeds", "both": "8 symmetries and seeds"}
"""Each way of predicting more than once, in words."""


class Gain(NamedTuple):
    """RMSE of combined predictions minus the mean RMSE of the single ones, over galaxies, and its interval."""

    gain: str
    """One of `GAINS`."""
    n_seeds: int
    rmse_single: float
    rmse: float
    difference: float
    low: float
    high: float
    p: float


def gains(
    y_true: NDArray[np.floating],
    single: NDArray[np.floating],
    augmented: NDArray[np.floating] | None,
    *,
    n_resamples: int,
    seed: int,
) -> list[Gain]:
    """Each gain that the predictions allow, paired over the same galaxies; networks are taken as trained.

    Parameters
    ----------
    y_true : ndarray of shape (n,)
    single : ndarray of shape (n, n_seeds)
        Predictions of each seed's network.
    augmented : ndarray of shape (n, n_seeds), optional
        The same, each the mean over the symmetries of the cutout. Its gain is that of a single seed, on average.
    """
    n_seeds = single.shape[1]
    combined: dict[str, NDArray[np.floating]] = {}
    if augmented is not None:
        combined["augmentation"] = augmented
    if n_seeds > 1:
        combined["ensemble"] = single.mean(axis=1, keepdims=True)
    if augmented is not None and n_seeds > 1:
        combined["both"] = augmented.mean(axis=1, keepdims=True)
    if not combined:
        return []
    columns = np.hstack([single, *combined.values()])
    contrasts = np.zeros((columns.shape[1], len(combined)))
    contrasts[:n_seeds] = -1 / n_seeds
    start = n_seeds
    for i, values in enumerate(combined.values()):
        contrasts[start : start + values.shape[1], i] = 1 / values.shape[1]
        start += values.shape[1]
    differences = paired_differences(y_true, columns, contrasts, "rmse", n_resamples=n_resamples, seed=seed)
    alone = float(np.mean([rmse(y_true, column) for column in single.T]))
    return [
        Gain(name, n_seeds, alone, alone + found.difference, *found)
        for name, found in zip(combined, differences, strict=True)
    ]


def format_gains(table: pd.DataFrame) -> str:
    """The gains as text, a line each: of heads, and of one probe where there is no head.

    Parameters
    ----------
    table : DataFrame
        `Gain` with `features`, `k`, `probe`, `target` and `column`.
    """
    lines = ["predicting more than once: change of the test RMSE [95 % interval over galaxies]; less than 0 is better"]
    for row in table[table["probe"] == "head"].to_dict("records"):
        k = "" if pd.isna(row["k"]) else f" k={row['k']}"
        seeds = f"{row['n_seeds']} {'seed' if row['n_seeds'] == 1 else 'seeds'}"
        lines.append(
            f"  {row['features']}{k}, {row['column']} (target {row['target']}), {GAINS[row['gain']]} ({seeds}): "
            f"{row['rmse_single']:.4f} -> {row['rmse']:.4f}, {row['difference']:+.4f} "
            f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        )
    return "\n".join(lines) if len(lines) > 1 else ""
