"""Which features follow what a galaxy is not about (distance, apparent size, seeing), and what is left of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.errors import DataError
from sfnetlab.interpret.table import NOTHING, Answer, DescribedTable, known_columns, usable_labels
from sfnetlab.metrics.association import (
    MIN_ROWS,
    correlation_interval,
    held_out_r2,
    labels_as_predictors,
    partial_correlation,
    spearman,
)
from sfnetlab.metrics.tables import FeatureMatrix, checked_table

R2_WARNING = 0.25
RHO_WARNING = 0.5
"""A feature is flagged when nuisances together explain more than a quarter of its variance on rows that were not
fitted, or one has a |Spearman rho| above one half with it (a quarter of the variance of the ranks) on these."""


class Confounders(NamedTuple):
    """What features have to do with nuisance columns and targets."""

    features: pd.DataFrame
    """A row a feature: `feature`, `r2_nuisances`, `worst_nuisance`, `worst_rho`, `is_confounded`, `warning` ("" for
    none)."""
    nuisances: pd.DataFrame
    """A row a feature and nuisance: `feature, nuisance, n, rho, low, high` (Spearman, test galaxies)."""
    targets: pd.DataFrame
    """A row a feature and target: `feature, target, n, rho, low, high`, and of the same galaxies with the given
    columns held fixed `partial_rho, partial_low, partial_high`."""


def ask(table: DescribedTable) -> Answer:
    """Return the tables `nuisances` and `partial`, and of each feature whether it follows a nuisance.

    Nothing where the catalogue has no usable column of [interpretation] nuisances.
    """
    nuisances = usable_labels(table, table.nuisances, "columns of [interpretation] nuisances")
    if nuisances is None:
        return NOTHING
    labels = table.test.labels
    held_fixed = known_columns_of(labels, table.held_fixed)
    targets = sorted({name for target in table.targets.values() for name in target.columns})
    found = find_confounders(
        table.valid.values, nuisances[0], table.test.values, nuisances[1], labels[targets], held_fixed
    )
    return Answer(tables={"nuisances": found.nuisances, "partial": found.targets}, of_features=found.features)


def find_confounders(
    values_valid: FeatureMatrix,
    nuisances_valid: pd.DataFrame,
    values_test: FeatureMatrix,
    nuisances_test: pd.DataFrame,
    targets_test: pd.DataFrame,
    held_fixed_test: pd.DataFrame,
) -> Confounders:
    """Return what nuisances explain of each feature, and how it goes with the targets where other columns are fixed.

    `r2_nuisances` is that of a ridge regression of the feature on the ranks of all nuisances and their squares, so that
    what rises and falls again is seen; fitted on valid, scored on test galaxies. A missing nuisance becomes the mean
    rank, and which are missing is a predictor too. The rule of the warning is that of `R2_WARNING` and `RHO_WARNING`.

    Parameters
    ----------
    values_valid, values_test : (n_valid, d), (n_test, d)
    nuisances_valid, nuisances_test : DataFrame, n_valid and n_test rows
        The same numeric columns; NaN where not measured. Those known for fewer than `association.MIN_ROWS` galaxies of
        either part are left out.
    targets_test : DataFrame, n_test rows
        Numeric; NaN where not measured.
    held_fixed_test : DataFrame, n_test rows
        What is held fixed, for example mass and colour; a galaxy without one of them is left out of `targets`. Without
        columns, partial correlations are plain ones.

    Returns
    -------
    Confounders
        NaN where a feature is constant, or fewer than `association.MIN_ROWS` galaxies are known.

    Raises
    ------
    ValueError
        If the nuisance columns differ, or none is known for enough galaxies.
    """
    names = list(known_columns(nuisances_valid, nuisances_test, "nuisances"))
    valid, test = (part[names].to_numpy(dtype=np.float64) for part in (nuisances_valid, nuisances_test))

    d = checked_table(values_test, "values_test").shape[1]
    predictors, predictors_test = _curved(valid, test)
    r2 = held_out_r2(values_valid, predictors, values_test, predictors_test)
    rho = spearman(values_test, test)
    n = np.count_nonzero(~np.isnan(test), axis=0)
    strength = np.nan_to_num(np.abs(rho), nan=-1.0)
    worst = strength.argmax(axis=1)
    worst_rho = rho[np.arange(d), worst]
    is_varying = strength.max(axis=1) >= 0
    is_confounded = (np.nan_to_num(r2) > R2_WARNING) | (np.nan_to_num(np.abs(worst_rho)) > RHO_WARNING)
    features = pd.DataFrame(
        {
            "feature": np.arange(d),
            "r2_nuisances": r2,
            "worst_nuisance": np.where(is_varying, np.array(names)[worst], None),
            "worst_rho": np.where(is_varying, worst_rho, np.nan),
            "is_confounded": is_confounded,
        }
    )
    features["warning"] = [
        f"follows {row.worst_nuisance} (rho {row.worst_rho:+.2f}); all nuisances: R² {row.r2_nuisances:.2f}"
        if row.is_confounded
        else ""
        for row in features.itertuples()
    ]
    low, high = correlation_interval(rho, n, "spearman")
    long = {"rho": rho, "low": low, "high": high}
    nuisances = pd.DataFrame(
        {
            "feature": np.repeat(np.arange(d), len(names)),
            "nuisance": np.tile(names, d),
            "n": np.tile(n, d),
            **{name: numbers.ravel() for name, numbers in long.items()},
        }
    )
    parts = [_target_rows(values_test, targets_test[[name]], held_fixed_test) for name in targets_test]
    return Confounders(features, nuisances, pd.concat(parts, ignore_index=True) if parts else pd.DataFrame())


def known_columns_of(catalog: pd.DataFrame, texts: Sequence[str]) -> pd.DataFrame:
    """Return those of some columns, or differences of two, that the catalogue has, a row a galaxy, in float64."""
    known = [text for text in texts if set(text.split(" - ")) <= set(catalog)]
    return pd.DataFrame({text: column_or_difference(catalog, text) for text in known}, index=catalog.index)


def column_or_difference(catalog: pd.DataFrame, text: str) -> pd.Series:
    """Return the column of that name, or for "a - b" the difference of two, in float64 and named by the text.

    Raises
    ------
    DataError
        If a column is missing or holds no numbers.
    """
    parts = [text] if text in catalog else [part.strip() for part in text.split(" - ")]
    missing = [part for part in parts if part not in catalog or not pd.api.types.is_numeric_dtype(catalog[part])]
    if missing or len(parts) > 2:
        raise DataError(
            f"{text!r}: expected a numeric column of the catalogue or a difference 'a - b' of two; "
            f"not such columns: {missing or parts}; numeric are {list(catalog.select_dtypes('number').columns)}"
        )
    columns = [catalog[part].astype(np.float64) for part in parts]
    return (columns[0] if len(columns) == 1 else columns[0] - columns[1]).rename(text)


def _curved(valid: NDArray[np.float64], test: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predictors of valid and test rows: the ranks of the nuisances among valid rows, and these squared."""
    ranked_valid, ranked_test = np.full(valid.shape, np.nan), np.full(test.shape, np.nan)
    for j in range(valid.shape[1]):
        known = np.sort(valid[~np.isnan(valid[:, j]), j])
        for part, ranked in ((valid, ranked_valid), (test, ranked_test)):
            is_known = ~np.isnan(part[:, j])
            places = [np.searchsorted(known, part[is_known, j], side) for side in ("left", "right")]
            ranked[is_known, j] = (places[0] + places[1]) / (2 * len(known)) - 0.5
    curved_valid, curved_test = (np.column_stack([part, part**2]) for part in (ranked_valid, ranked_test))
    return labels_as_predictors(curved_valid, curved_test)


def _target_rows(values: FeatureMatrix, target: pd.DataFrame, held_fixed: pd.DataFrame) -> pd.DataFrame:
    known = (target.notna().all(axis=1) & held_fixed.notna().all(axis=1)).to_numpy()
    n, d, n_fixed = int(known.sum()), checked_table(values, "values").shape[1], held_fixed.shape[1]
    label = np.where(known, target.iloc[:, 0].to_numpy(dtype=np.float64), np.nan)
    rho, partial = np.full((2, d), np.nan)
    if n >= MIN_ROWS:
        rho = spearman(values, label[:, None])[:, 0]
        partial = partial_correlation(values, label, held_fixed.to_numpy(dtype=np.float64))
    low, high = correlation_interval(rho, n, "spearman")
    partial_low, partial_high = correlation_interval(partial, n, "spearman", n_held_fixed=n_fixed)
    return pd.DataFrame(
        {
            "feature": np.arange(d),
            "target": target.columns[0],
            "n": n,
            "rho": rho,
            "low": low,
            "high": high,
            "partial_rho": partial,
            "partial_low": partial_low,
            "partial_high": partial_high,
        }
    )
