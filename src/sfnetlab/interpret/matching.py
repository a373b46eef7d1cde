"""Which features of any two methods are the same feature: every pair of feature tables on the same galaxies."""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from sfnetlab.metrics.matching import match_features, summarise_match
from sfnetlab.metrics.tables import FeatureMatrix

NULL_LEVELS = np.linspace(0, 1, 101)
"""Quantiles by which a null distribution is kept."""


class MatchedTables(NamedTuple):
    """What every two tables share."""

    pairs: pd.DataFrame
    """A row a matched pair: `table_a`, `table_b` and the columns of `metrics.matching.FeatureMatch.pairs`."""
    summary: pd.DataFrame
    """A row every two tables: `table_a`, `table_b` and what `metrics.matching.summarise_match` returns."""
    null: pd.DataFrame
    """`table_a`, `table_b`, `level` (0 to 1), `correlation`: quantiles of |test correlation| of permuted tables."""


def match_tables(
    tables: Mapping[str, tuple[FeatureMatrix, FeatureMatrix]], n_permutations: int, seed: int
) -> MatchedTables:
    """Match the features of every two tables on the fit rows and measure the pairs on the test rows.

    Parameters
    ----------
    tables : mapping
        Name to the rows (fit, test) of a table; the same galaxies in the same order in all of them.

    Raises
    ------
    ValueError
        As `match_features` does, with the names of the two tables, and for fewer than two tables.
    """
    if len(tables) < 2:
        raise ValueError(f"matching needs two tables or more, got {list(tables)}")
    pairs: list[pd.DataFrame] = []
    summaries: list[dict[str, str | float]] = []
    nulls: list[pd.DataFrame] = []
    for (name_a, a), (name_b, b) in combinations(tables.items(), 2):
        try:
            match = match_features(a[0], b[0], a[1], b[1], n_permutations, seed)
        except ValueError as error:
            raise ValueError(f"{name_a} (a) and {name_b} (b): {error}") from None
        names = {"table_a": name_a, "table_b": name_b}
        pairs.append(pd.DataFrame(names, index=match.pairs.index).join(match.pairs))
        summaries.append(names | summarise_match(match))
        levels = np.quantile(match.null["correlation_test"].abs(), NULL_LEVELS)
        nulls.append(pd.DataFrame(names | {"level": NULL_LEVELS, "correlation": levels}))
    return MatchedTables(
        pd.concat(pairs, ignore_index=True), pd.DataFrame(summaries), pd.concat(nulls, ignore_index=True)
    )
