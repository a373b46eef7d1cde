"""What one method can read of another: ridge from all features of one table to each feature of the other."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.related import RelatedTables
from sfnetlab.interpret.shared import at_fixed_labels
from sfnetlab.interpret.table import SEED
from sfnetlab.metrics.nulls import draws
from sfnetlab.metrics.tables import (
    FeatureMatrix,
    Table,
    checked_table,
    column_mean_sd,
    columns_of,
    rows_of,
    varying_columns,
)
from sfnetlab.probes.paths import Decomposed
from sfnetlab.probes.ridge import PENALTIES, RidgeProbe

BLOCK_VALUES = 2**25
"""Values of ridge weights, or of target columns, held at a time: 256 MiB in float64."""
READ = 0.5
"""A feature is read where R² is larger: half of its variance, as two features share that are alike."""


class Parts(NamedTuple):
    """Rows of a feature table, dense or CSR; the same galaxies in the same order in both tables that are compared."""

    train: FeatureMatrix
    valid: FeatureMatrix
    test: FeatureMatrix


def relate(related: RelatedTables) -> dict[str, pd.DataFrame]:
    """Return `reading`, how well each method's features are read of each other's; nothing for fewer than two.

    A row every two tables, in both directions: `reader`, `target`, what `summarise_reading` returns, and beside
    `share_read` its nulls: `permuted_read` (galaxies of the target permuted), `untrained_read` (as many features of an
    untrained network as the reader has, in its place; NaN without one, or where it is the target), `excess_read`
    (`share_read` less that) and `held_fixed_read` (of both tables what label, mass, colour and size leave; NaN where
    none is known). Of a method with several seeds only the first is read and reads.
    """
    if len(related.first_seeds) < 2:
        return {}
    ids = [related.ids("train"), related.ids("valid"), related.ids("test")]
    parts = {
        name: Parts(*(related.tables[name].values_of(part) for part in ids)) for name in related.first_seeds.values()
    }
    left = at_fixed_labels(parts, [related.trivial.loc[part.index] for part in ids])
    fixed = None if left is None else {name: Parts(*each) for name, each in left.items()}
    untrained = next((parts[name] for name in related.untrained if name in parts), None)
    rows = []
    for reader, its_parts in parts.items():
        decomposed = Decomposed(checked_table(its_parts.train))
        null = None if untrained is None else _as_many(untrained, its_parts)
        null_decomposed = None if null is None else Decomposed(checked_table(null.train))
        for target in parts:
            if target == reader:
                continue
            read = summarise_reading(read_across(its_parts, parts[target], decomposed))
            n = read["n_features"]
            beside = {"permuted_read": _share_read(its_parts, _permuted(parts[target]), n, decomposed)}
            beside |= {"untrained_read": np.nan, "held_fixed_read": np.nan}
            if null is not None and target not in related.untrained:
                beside["untrained_read"] = _share_read(null, parts[target], n, null_decomposed)
            if fixed is not None:
                beside["held_fixed_read"] = _share_read(fixed[reader], fixed[target], n)
            beside["excess_read"] = read["share_read"] - beside["untrained_read"]
            rows.append({"reader": reader, "target": target} | read | beside)
    return {"reading": pd.DataFrame(rows)}


def _as_many(untrained: Parts, reader: Parts) -> Parts:
    """Some features of an untrained network, as many as the reader has that vary."""
    varying = [varying_columns(each.train) for each in (untrained, reader)]
    chosen = varying[0][next(draws(len(varying[0]), len(varying[1]), SEED))]
    return Parts(*(columns_of(part, chosen) for part in untrained))


def _permuted(target: Parts) -> Parts:
    """The same features, of other galaxies of the same part."""
    rng = np.random.default_rng(SEED)
    return Parts(*(rows_of(part, rng.permutation(checked_table(part).shape[0])) for part in target))


def _share_read(reader: Parts, target: Parts, n_features: float, decomposed: Decomposed | None = None) -> float:
    """The share of the target's `n_features` that are read; one of which nothing is left to vary is not."""
    if len(varying_columns(target.train, target.test)) == 0:
        return 0.0
    return float((read_across(reader, target, decomposed)["r2"] > READ).sum() / n_features)


def read_across(reader: Parts, target: Parts, decomposed: Decomposed | None = None) -> pd.DataFrame:
    """Return how well ridge on all features of the reader predicts each feature of the target, R² on test rows.

    Ridge is fitted to train rows, its penalty chosen for each target feature on valid rows. Target features are taken
    a block at a time, so that a wide CSR table is never held dense.

    Parameters
    ----------
    decomposed
        The train rows of the reader, where they were decomposed before, for another target. None: they are now.

    Returns
    -------
    DataFrame
        A row for each target feature that varies on train and on test rows: `feature`, `frequency` (share of the test
        rows on which it is not zero), `variance` (on test rows, feature units squared), `r2` (0: no better than
        the test mean; may be negative), `alpha` (the penalty).

    Raises
    ------
    ValueError
        If the two tables have not the same numbers of rows, a value is not finite, or no target feature varies.
    """
    tables = [(checked_table(a), checked_table(b)) for a, b in zip(reader, target, strict=True)]
    for name, (a, b) in zip(Parts._fields, tables, strict=True):
        if a.shape[0] != b.shape[0]:
            raise ValueError(f"{name}: reader and target have {a.shape[0]} and {b.shape[0]} rows, expected the same")
    (train, target_train), (valid, target_valid), (_, target_test) = tables
    sd_train, sd_test = (column_mean_sd(table)[1] for table in (target_train, target_test))
    varying = np.flatnonzero((sd_train > 0) & (sd_test > 0))
    if len(varying) == 0:
        raise ValueError(f"none of the {sd_train.size} target features varies on train and test rows")
    decomposed = Decomposed(train) if decomposed is None else decomposed
    rows = []
    for columns in _blocks(varying, max(*train.shape, len(PENALTIES) * train.shape[1])):
        y_train, y_valid, y_test = (_dense(table, columns) for table in (target_train, target_valid, target_test))
        probe = RidgeProbe().fit_decomposed(decomposed, y_train, valid, y_valid)
        residual = np.sum((probe.predict(reader.test) - y_test) ** 2, axis=0)
        variance = y_test.var(axis=0)
        rows.append(
            pd.DataFrame(
                {
                    "feature": columns,
                    "frequency": np.mean(y_test != 0, axis=0),
                    "variance": variance,
                    "r2": 1 - residual / (len(y_test) * variance),
                    "alpha": probe.alpha_,
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def summarise_reading(readings: pd.DataFrame) -> dict[str, float]:
    """Return one table read by another in a few numbers.

    Parameters
    ----------
    readings : DataFrame
        From `read_across`.

    Returns
    -------
    dict
        `r2_of_variance` (one minus residual over total variance, all features together: how much of the table's
        variance is read), `r2_median` (over features), `share_read` (features with R² above `READ`), `n_features`.
    """
    weights = readings["variance"] / readings["variance"].sum()
    return {
        "r2_of_variance": float((weights * readings["r2"]).sum()),
        "r2_median": float(readings["r2"].median()),
        "share_read": float((readings["r2"] > READ).mean()),
        "n_features": len(readings),
    }


def _blocks(columns: NDArray[np.int64], values_each: int) -> Iterator[NDArray[np.int64]]:
    width = max(1, BLOCK_VALUES // values_each)
    for start in range(0, len(columns), width):
        yield columns[start : start + width]


def _dense(table: Table, columns: NDArray[np.int64]) -> NDArray[np.float64]:
    block = table[:, columns]
    return (block if isinstance(block, np.ndarray) else block.toarray()).astype(np.float64)
