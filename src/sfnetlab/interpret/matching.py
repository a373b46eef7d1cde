"""Which features of any two tables are the same feature, and whether they point the same way in an embedding."""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from sfnetlab.interpret.related import RelatedTable, RelatedTables
from sfnetlab.interpret.shared import beside_matches
from sfnetlab.interpret.table import SEED
from sfnetlab.metrics.matching import match_features, pair_cosines, summarise_match
from sfnetlab.metrics.tables import FeatureMatrix

NULL_LEVELS = np.linspace(0, 1, 101)
"""Quantiles by which a null distribution is kept."""
N_PERMUTATIONS = 20
"""Permutations of the galaxies for the null of matched correlations, each of which is a matching of its own."""


class MatchedTables(NamedTuple):
    """What every two tables share."""

    pairs: pd.DataFrame
    """A row a matched pair: `table_a`, `table_b` and the columns of `metrics.matching.FeatureMatch.pairs`."""
    summary: pd.DataFrame
    """A row every two tables: `table_a`, `table_b` and what `metrics.matching.summarise_match` returns."""
    null: pd.DataFrame
    """`table_a`, `table_b`, `level` (0 to 1), `correlation`: quantiles of |test correlation| of permuted tables."""


def relate(related: RelatedTables) -> dict[str, pd.DataFrame]:
    """Return `pairs`, `matching` and `null` of every two tables, see `MatchedTables`; nothing for fewer than two.

    `matching` has what stands beside matches too, see `shared.beside_matches`.
    `pairs` has a column `cosine` too: that of the two features' directions in the embedding, NaN where the tables
    share none.
    """
    if len(related.varying) < 2:
        return {}
    fit, test = related.ids("train"), related.ids("test")
    values = {name: (table.values_of(fit), table.values_of(test)) for name, table in related.varying.items()}
    matched = match_tables(values, N_PERMUTATIONS, SEED)
    pairs = _with_cosines(matched.pairs, related.tables)
    beside = beside_matches(related)
    summary = matched.summary.merge(beside, on=["table_a", "table_b"], validate="one_to_one")
    return {"pairs": pairs, "matching": summary, "null": matched.null}


def _with_cosines(pairs: pd.DataFrame, tables: Mapping[str, RelatedTable]) -> pd.DataFrame:
    cosine = pd.Series(np.nan, index=pairs.index)
    for (name_a, name_b), of_two in pairs.groupby(["table_a", "table_b"], sort=False):
        a, b = tables[str(name_a)], tables[str(name_b)]
        if a.embedding != b.embedding or a.reader.directions is None or b.reader.directions is None:
            continue
        cosine[of_two.index] = pair_cosines(of_two, a.reader.directions, b.reader.directions)
    return pairs.assign(cosine=cosine)


def match_tables(
    tables: Mapping[str, tuple[FeatureMatrix, FeatureMatrix]], n_permutations: int, seed: int
) -> MatchedTables:
    """Return the features of every two tables matched on the fit rows, the pairs measured on the test rows.

    Parameters
    ----------
    tables : mapping
        From names to the rows (fit, test) of a table; the same galaxies in the same order in all of them.
    n_permutations, seed
        Permutations of the galaxies for the null, and their seed.

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
