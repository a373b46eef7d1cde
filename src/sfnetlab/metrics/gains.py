"""What is gained by predicting more than once: test-time augmentation, and ensembles over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.method_scores import by_run
from sfnetlab.metrics.predictions import Prediction, typed_identity, value_scores
from sfnetlab.metrics.regression import rmse
from sfnetlab.metrics.runs import NEEDS_RUNS, nesting_of, scores_of
from sfnetlab.metrics.tidy import AUGMENTED, ENSEMBLE, HEAD

GAINS = {"augmentation": "8 symmetries", "ensemble": "mean over seeds", "both": "8 symmetries and seeds"}
"""Each way of predicting more than once, in words."""


class Gain(NamedTuple):
    """RMSE of combined predictions minus the mean RMSE of the single ones, and its interval.

    The interval of augmentation is over galaxies and runs. Of ensembles there is one, so theirs is over galaxies alone:
    it is about these networks.
    """

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
    """Return each gain that the predictions allow, paired over the same galaxies.

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
    seeds = [*range(n_seeds), *([*range(n_seeds)] if augmented is not None else [])]
    seeds += [0] * (columns.shape[1] - len(seeds))  # ensembles do not count for augmentation
    of_runs, as_trained = (nesting_of(["network"] * len(seeds), of) for of in (seeds, [None] * len(seeds)))
    contrasts = np.zeros((columns.shape[1], len(combined)))
    contrasts[:n_seeds] = -1 / n_seeds
    start = n_seeds
    for i, values in enumerate(combined.values()):
        contrasts[start : start + values.shape[1], i] = 1 / values.shape[1]
        start += values.shape[1]
    alone = float(np.mean([rmse(y_true, column) for column in single.T]))
    found: list[Gain] = []
    for name, contrast in zip(combined, contrasts.T, strict=True):
        nesting = of_runs if name == "augmentation" else as_trained
        (score,) = scores_of(y_true, columns, contrast[:, None], nesting, "rmse", n_resamples=n_resamples, seed=seed)
        found.append(Gain(name, n_seeds, alone, alone + score.value, *score[:4]))
    return found


def combine_predictions(
    predictions: pd.DataFrame, columns_of: Mapping[str, Sequence[str]], *, n_resamples: int, seed: int
) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Return scores of means over seeds, and what these and test-time augmentation gain.

    Combined are heads and probes on all features.
    A method that has no seeds and is not augmented gains nothing and has no row.

    Parameters
    ----------
    predictions : DataFrame
        Test predictions of every run of every method: `prediction_rows` with `IDENTITY` and `target`.
    columns_of
        The label columns of each target; rows of what is no target are left out.

    Returns
    -------
    scores : list of DataFrame
        `value_scores` of "<probe>_ensemble" with `IDENTITY` and `target`; the seed is <NA>.
    gained : list of DataFrame
        `Gain` with `features, kind, k, probe, target` and `column`.
    """
    every = predictions[predictions["target"].isin(list(columns_of))]
    of_run = every.groupby(["features", "k", "seed", "target"], dropna=False)["n_features_used"]
    every = every[every["n_features_used"] == of_run.transform("max")]
    is_augmented = every["probe"].str.endswith(AUGMENTED)
    every = every.assign(is_augmented=is_augmented, probe=every["probe"].str.removesuffix(AUGMENTED))
    scores: list[pd.DataFrame] = []
    gained: list[pd.DataFrame] = []
    by = ["features", "kind", "k", "probe", "target"]
    for identity, rows in every.groupby(by, dropna=False, sort=False):
        about = dict(zip(by, identity, strict=True))
        columns = columns_of[str(about["target"])]
        truth, single = by_run(rows[~rows["is_augmented"]], columns)[1:]
        augmented = by_run(rows[rows["is_augmented"]], columns)[2] if rows["is_augmented"].any() else None
        for i, column in enumerate(columns):
            turned = None if augmented is None else augmented[:, i]
            if found := gains(truth[:, i], single[:, i], turned, n_resamples=n_resamples, seed=seed):
                gained.append(typed_identity(pd.DataFrame(found).assign(column=column, **about)))
        if single.shape[2] > 1:
            n_used = int(rows.drop_duplicates("seed")["n_features_used"].median())
            mean = Prediction(f"{about['probe']}{ENSEMBLE}", n_used, single.mean(axis=2))
            split = np.full(len(truth), "test")
            table = value_scores(columns, truth, mean, split, n_resamples=n_resamples, seed=seed, parts=("test",))
            scores.append(typed_identity(table.assign(**(about | {"probe": mean.probe}), seed=None)))
    return scores, gained


def format_gains(table: pd.DataFrame) -> str:
    """Return the gains of heads as text, a line each; empty where there is no head.

    Parameters
    ----------
    table : DataFrame
        `Gain` with `features`, `k`, `probe`, `target` and `column`.
    """
    lines = [
        "predicting more than once: change of the test RMSE [95 % interval over galaxies and runs, of means over seeds "
        "over galaxies alone]; less than 0 is better"
    ]
    for row in table[table["probe"] == HEAD].to_dict("records"):
        k = "" if pd.isna(row["k"]) else f" k={row['k']}"
        seeds = f"{row['n_seeds']} {'seed' if row['n_seeds'] == 1 else 'seeds'}"
        interval = NEEDS_RUNS if pd.isna(row["low"]) else f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        lines.append(
            f"  {row['features']}{k}, {row['column']} (target {row['target']}), {GAINS[row['gain']]} ({seeds}): "
            f"{row['rmse_single']:.4f} -> {row['rmse']:.4f}, {row['difference']:+.4f} {interval}"
        )
    return "\n".join(lines) if len(lines) > 1 else ""
