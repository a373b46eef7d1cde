"""How many features two tables share beyond what any two networks share: the nulls that stand beside matches."""

import logging
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.related import RelatedTables
from sfnetlab.interpret.table import SEED
from sfnetlab.metrics.matching import cross_correlations, varying_features
from sfnetlab.metrics.nulls import MAX_ROWS, curved_predictors, draws, residuals, share_alike
from sfnetlab.metrics.tables import FeatureMatrix, columns_of, evenly, rows_of

log = logging.getLogger(__name__)

LEAST_ROWS = 5
"""Train galaxies for each predictor below which nothing is projected out: least squares would tell anything."""


def beside_matches(related: RelatedTables) -> pd.DataFrame:
    """Return what stands beside the matches of every two tables: the same of an untrained network, and at fixed labels.

    Returns
    -------
    DataFrame
        `table_a`, `table_b`, `share_alike` (of the matched pairs, on test galaxies, see `metrics.nulls`),
        `untrained_alike` (the same of either table with as many features of an untrained network, whichever is larger)
        and `excess_alike` (their difference); and the same three of features from which the related `trivial` columns
        are projected out, called `held_fixed_*`. NaN where there is no untrained network, or no such column.
    """
    if not related.untrained:
        log.info(
            "no untrained network to hold matches against: add [[features]] with kind = 'encoder', weights = 'random'"
        )
    ids = [related.ids("train"), related.ids("test")]
    tables: dict[str, Sequence[FeatureMatrix]] = {}
    for name, table in related.varying.items():
        fit, test = (table.values_of(part) for part in ids)
        varying = varying_features(fit, test, name)
        tables[name] = columns_of(fit, varying), columns_of(test, varying)
    found = shares_alike(tables, related.untrained, SEED)
    held_fixed = at_fixed_labels(tables, [related.trivial.loc[part.index] for part in ids])
    about = ["table_a", "table_b"]
    if held_fixed is None:
        return found.assign(**{f"held_fixed_{name}": np.nan for name in found.columns.difference(about)})
    at_fixed = shares_alike(held_fixed, related.untrained, SEED).drop(columns=about)
    return found.join(at_fixed.add_prefix("held_fixed_"))


def at_fixed_labels(
    tables: Mapping[str, Sequence[FeatureMatrix]], labels: Sequence[pd.DataFrame]
) -> dict[str, list[NDArray[np.float64]]] | None:
    """Return what labels leave of the columns of each table, on `MAX_ROWS` galaxies of each part at most.

    Parameters
    ----------
    tables
        From names to the rows of the same parts, train rows first.
    labels
        Of the galaxies of each part; NaN where not measured.

    Returns
    -------
    dict or None
        None where there are no labels, or too few galaxies for them; the log says so.
    """
    rows = [evenly(np.arange(len(part)), MAX_ROWS) for part in labels]
    fit, *others = (part.to_numpy(dtype=np.float64)[chosen] for part, chosen in zip(labels, rows, strict=True))
    predictors = curved_predictors(fit, others)
    if predictors[0].shape[1] == 0 or len(fit) < LEAST_ROWS * predictors[0].shape[1]:
        log.info(
            "nothing is projected out of features: %d train galaxies with %d columns of [interpretation] trivial",
            len(fit), fit.shape[1],
        )  # fmt: skip
        return None
    return {
        name: residuals([rows_of(part, chosen) for part, chosen in zip(parts, rows, strict=True)], predictors)
        for name, parts in tables.items()
    }


def shares_alike(tables: Mapping[str, Sequence[FeatureMatrix]], untrained: Sequence[str], seed: int) -> pd.DataFrame:
    """Return which share of the matched features of every two tables is alike, and what an untrained network gives.

    Features are matched on train rows. An untrained network has its numbers of features drawn down to that of the table
    in whose place it stands (`metrics.nulls.draws`), for of more features some are alike more often.

    Parameters
    ----------
    tables : mapping
        From names to (train, test) rows, the same galaxies in all of them.
    untrained
        Names of the tables of untrained networks.

    Returns
    -------
    DataFrame
        `table_a`, `table_b`, `share_alike`, `untrained_alike`, `excess_alike`. Of an untrained network itself the null
        is another one, or what it is matched with if that is untrained: two untrained networks have no excess.
    """
    known: dict[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def correlations(a: str, b: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if (a, b) not in known:
            fit, test = (cross_correlations(x, y) for x, y in zip(tables[a], tables[b], strict=True))
            known[a, b] = fit, test
        return known[a, b]

    def of_untrained(name: str, n: int) -> float:
        """The mean share over untrained networks and draws of n of their features."""
        shares = [
            share_alike(fit[:, chosen], test[:, chosen])
            for other in untrained
            if other != name and other in tables
            for fit, test in [correlations(name, other)]
            for chosen in draws(fit.shape[1], n, seed)
        ]
        return float(np.mean(shares)) if shares else float("nan")

    rows: list[dict[str, str | float]] = []
    for a, b in combinations(tables, 2):
        fit, test = (cross_correlations(x, y) for x, y in zip(tables[a], tables[b], strict=True))
        share = share_alike(fit, test)
        null = float(np.fmax(of_untrained(a, fit.shape[1]), of_untrained(b, fit.shape[0])))
        alike = {"share_alike": share, "untrained_alike": null, "excess_alike": share - null}
        rows.append({"table_a": a, "table_b": b} | alike)
    return pd.DataFrame(rows)
