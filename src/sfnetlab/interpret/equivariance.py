"""How features change when the picture of the same galaxy does: which ones are not about the galaxy.

Takes the features of the same galaxies under every transform; how pictures are changed is `surveys/perturb.py`'s.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sfnetlab.interpret.table import NOTHING, SEED, Answer, DescribedTable
from sfnetlab.metrics.bootstrap import sample_and_resamples
from sfnetlab.metrics.tables import CONSTANT_SPREAD, FeatureMatrix, Table, checked_table, column_mean_sd

Array = NDArray[np.float64]

MAX_CHANGE = 1.0
"""Changes are in standard deviations between galaxies. Half the mean squared change is the variance between views of
one galaxy: at 1 it is half of all variance, and beyond, the feature says more about the view than about the galaxy.
Two unrelated galaxies differ by 1.41."""
N_LEAST_ACTIVE = 10
"""Galaxies in which a feature must be active as they are, lest its change be that of a handful."""


def ask(table: DescribedTable) -> Answer:
    """Return the table `changes`, and of each feature whether it is about the galaxy.

    Nothing where the network behind the table was not run over changed cutouts.
    """
    if table.load_perturbed is None:
        return NOTHING
    embeddings, transforms = table.load_perturbed()
    changes = feature_changes([table.reader.encode(np.asarray(each)) for each in embeddings], transforms, seed=SEED)
    summary = summarise_changes(changes).rename(columns={"warning": "equivariance_warning"})
    wanted = ["feature", "worst_symmetry", "symmetry_change", "is_equivariant", "equivariance_warning"]
    return Answer(tables={"changes": changes}, of_features=summary[wanted])


def feature_changes(
    activations: Sequence[FeatureMatrix], transforms: pd.DataFrame, *, n_resamples: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Return how much each feature changes under each transform.

    Parameters
    ----------
    activations : sequence of ndarray or CSR of shape (n, d)
        One for each transform, rows the same galaxies in the same order; the first is of the galaxies as they are.
    transforms : DataFrame
        A row for each: `name, level, label, is_symmetry`; the first is called "identity".
    n_resamples, seed
        Resamples of the galaxies for the 95 % percentile intervals, and their seed.

    Returns
    -------
    DataFrame
        A row for each feature and transform: `feature, n_active` (galaxies, as they are), the columns of `transforms`,
        `change` = rms(b - a) / sd(a) with `low` and `high`, `correlation` of a with b, `jaccard` = galaxies active in
        both over those active in either, and `mean_change` = mean(b - a) / sd(a), for a as is and b transformed. Not
        for the identity. NaN where the feature is constant or active in fewer than `N_LEAST_ACTIVE` galaxies;
        `correlation` also where b is constant.

    Raises
    ------
    ValueError
        If shapes differ, the first transform is not the identity, or there are fewer than two galaxies.
    """
    if len(activations) != len(transforms) or transforms["name"].iloc[0] != "identity":
        raise ValueError(
            f"expected one array for each transform, the identity first; got {len(activations)} arrays "
            f"and the transforms {transforms['name'].tolist()}"
        )
    tables = [checked_table(values, str(name)) for values, name in zip(activations, transforms["name"], strict=True)]
    a = _as_float64(tables[0])
    n, d = a.shape
    if n < 2 or any(table.shape != (n, d) for table in tables):
        raise ValueError(f"expected arrays of one shape and two rows or more, got {[t.shape for t in tables]}")
    mean_a, sd_a = column_mean_sd(tables[0])
    n_active = np.asarray(_column_sum(a != 0), dtype=np.int64)
    sd = np.where((n_active >= N_LEAST_ACTIVE) & (sd_a > 0), sd_a, np.nan)
    weights = np.vstack(list(sample_and_resamples(n, n_resamples, seed)))[1:]
    measured = np.flatnonzero(np.isfinite(sd))
    resampled_sd = _resampled_sd(weights, a[:, measured])
    parts = []
    for table, transform in zip(tables[1:], transforms.to_dict("records")[1:], strict=True):
        b = _as_float64(table)
        mean_b, sd_b = column_mean_sd(table)
        squared_change = _product(b - a, b - a)
        rms_change, mean_change = np.sqrt(_column_sum(squared_change) / n), mean_b - mean_a
        n_both = _column_sum(_product(a, b) != 0)
        n_either = n_active + _column_sum(b != 0) - n_both
        low, high = np.full((2, d), np.nan)
        resampled = np.sqrt(weights @ squared_change[:, measured]) / resampled_sd
        low[measured], high[measured] = np.quantile(resampled, (0.025, 0.975), axis=0)
        covariance = (sd_a**2 + sd_b**2 - rms_change**2 + mean_change**2) / 2
        part = {
            "feature": np.arange(d),
            "n_active": n_active,
            **transform,
            "change": rms_change / sd,
            "low": low,
            "high": high,
            "correlation": np.clip(covariance / (sd * np.where(sd_b > 0, sd_b, np.nan)), -1, 1),
            "jaccard": np.where(np.isnan(sd), np.nan, n_both / np.maximum(n_either, 1)),
            "mean_change": mean_change / sd,
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def summarise_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """Return whether each feature is about the galaxy, and how it takes worse pictures.

    Parameters
    ----------
    changes : DataFrame
        From `feature_changes`.

    Returns
    -------
    DataFrame
        A row a feature: `feature, n_active`; `worst_symmetry` ("rotation 90°"), the symmetry under which it changes
        most, with its `symmetry_change`, `low`, `high`; `change_<name>` for each other transform, the largest over its
        levels; `is_equivariant` (nullable boolean): False where `low` is above `MAX_CHANGE`, True where `high` is not,
        missing where neither can be said or nothing was measured; `warning`, empty unless False.
    """
    measured = changes.dropna(subset="change")
    symmetries = measured[measured["is_symmetry"]]
    worst = symmetries.loc[symmetries.groupby("feature")["change"].idxmax()].set_index("feature")
    summary = changes.groupby("feature")[["n_active"]].first()
    summary[["worst_symmetry", "symmetry_change", "low", "high"]] = worst[["label", "change", "low", "high"]]
    others = changes[~changes["is_symmetry"]].pivot_table(
        index="feature", columns="name", values="change", aggfunc="max", sort=False, dropna=False
    )
    summary = summary.join(others.add_prefix("change_"))
    verdict = pd.Series(pd.NA, index=summary.index, dtype="boolean")
    verdict[summary["low"] > MAX_CHANGE] = False
    verdict[summary["high"] <= MAX_CHANGE] = True
    summary["is_equivariant"] = verdict
    summary["warning"] = [
        f"{transform} changes it by {change:.2f} sd between galaxies: not about the galaxy" if is_bad else ""
        for transform, change, is_bad in zip(
            summary["worst_symmetry"], summary["symmetry_change"], verdict.eq(False).fillna(False), strict=True
        )
    ]
    return summary.reset_index()


def _as_float64(table: Table) -> Any:
    return table.astype(np.float64)


def _column_sum(values: Any) -> Array:
    return np.asarray(values.sum(axis=0)).ravel()


def _product(a: Any, b: Any) -> Any:
    return a.multiply(b).tocsr() if sparse.issparse(a) else a * b


def _resampled_sd(weights: Array, a: Any) -> Array:
    """Standard deviation of each column in each resample, (n_resamples, d); NaN where it is constant there."""
    first, second = weights @ a, weights @ _product(a, a)
    variance = second - first**2
    return np.sqrt(np.where(variance > CONSTANT_SPREAD**2 * second, variance, np.nan))
