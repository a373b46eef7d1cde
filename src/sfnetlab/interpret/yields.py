"""How many rare galaxies an inspection finds: the strongest galaxies of one feature against other ways of searching.

Whatever is chosen is chosen on the galaxies whose rarity is known (train and valid), and scored on test galaxies.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.errors import DataError
from sfnetlab.interpret.related import RelatedTables
from sfnetlab.interpret.table import SEED
from sfnetlab.metrics.bootstrap import resample_counts
from sfnetlab.metrics.tables import FeatureMatrix, Table, checked_table
from sfnetlab.surveys.catalog import measured_labels

log = logging.getLogger(__name__)

MIN_RARE = 5
"""Rare galaxies among those known, and among those to find; with fewer nothing is said."""
N_NEIGHBOURS = 5
"""Known rare galaxies to which the distance counts, as the mean over the nearest."""
NEIGHBOURS, FOREST, RANDOM = "nearest neighbours", "isolation forest", "random order"
INSPECTED = (10, 20, 50, 100, 200)
"""Numbers of galaxies that an inspection looks at."""
N_RESAMPLES = 500
"""Resamples of the test galaxies for intervals."""


class Choice(NamedTuple):
    """The feature that finds the rare galaxies best among those known."""

    feature: int
    sign: int
    """1: its largest values are looked at first; -1: its smallest."""
    average_precision: float


def relate(related: RelatedTables) -> dict[str, pd.DataFrame]:
    """Return `yield`: for each kind of rare galaxies what the first table of each method and other searches find.

    The rows are those of `find_rare`, with the kind in `rare`. Outliers are sought in the first embedding; a VAE counts
    as one where there is no other. Kinds with fewer than `MIN_RARE` galaxies are left out. Nothing where no kind is
    asked for or has enough galaxies, or where there is no embedding.
    """
    tables, known, test = related.tables, related.ids("train", "valid"), related.ids("test")
    embeddings = [name for name, table in tables.items() if table.traits.role == "embedding"]
    embeddings += [name for name, table in tables.items() if table.traits.can_be_decomposed]
    if not related.rare or not embeddings:
        return {}
    searched = tables[embeddings[0]]
    embedding = np.asarray(searched.values_of(known)), np.asarray(searched.values_of(test))
    values = {
        features: (tables[name].values_of(known), tables[name].values_of(test))
        for features, name in related.first_seeds.items()
        if tables[name].traits.role != "embedding"
    }
    is_test = (related.catalog["split"] == "test").to_numpy()
    parts: list[pd.DataFrame] = []
    for name, flags in related.rare.items():
        if few := too_few_rare(name, flags, is_test):
            log.info("%s: left out", few)
            continue
        rare = flags[~is_test], flags[is_test]
        found = find_rare(values, embedding, rare, INSPECTED, n_bootstrap=N_RESAMPLES, seed=SEED)
        parts.append(found.assign(rare=name))
    return {"yield": pd.concat(parts, ignore_index=True)} if parts else {}


def too_few_rare(name: str, flags: NDArray[np.float64], is_test: NDArray[np.bool_]) -> str | None:
    """Return a message where too few galaxies are rare, or none is not, for a search to be judged; else None.

    Parameters
    ----------
    name
        What the configuration calls these rare galaxies.
    flags, is_test : (n,)
        `rare_flags`, and which galaxies are to be found, the others being known.
    """
    n_rare = [np.count_nonzero(flags[part] == 1) for part in (~is_test, is_test)]
    n_others = [np.count_nonzero(flags[part] == 0) for part in (~is_test, is_test)]
    if min(n_rare) >= MIN_RARE and min(n_others) >= 1:
        return None
    return (
        f"[rare.{name}]: {n_rare[0]} of {n_rare[0] + n_others[0]} train and valid galaxies and {n_rare[1]} of "
        f"{n_rare[1] + n_others[1]} test galaxies are rare, and a search needs {MIN_RARE} rare ones and another in "
        f"either; use another limit or more galaxies"
    )


def rare_flags(
    catalog: pd.DataFrame, column: str, *, above: float | None, below: float | None, where: str
) -> NDArray[np.float64]:
    """Return which galaxies lie beyond a limit of a catalogue column, (n,): 1 rare, 0 not, NaN where it is not known.

    Parameters
    ----------
    above, below
        The limit, one of the two: rare are galaxies with a greater, or with a smaller value.
    where
        The place in the configuration, for the message.

    Raises
    ------
    DataError
        If the catalogue has no such numeric column.
    """
    labels = measured_labels(catalog)
    if column not in labels:
        raise DataError(f"{where}: no numeric column {column!r} in the catalogue; it has {', '.join(map(str, labels))}")
    values = labels[column].to_numpy()
    beyond = values > above if above is not None else values < below
    return np.where(np.isnan(values), np.nan, beyond.astype(np.float64))


def find_rare(
    tables: Mapping[str, tuple[FeatureMatrix, FeatureMatrix]],
    embedding: tuple[NDArray[np.floating], NDArray[np.floating]],
    rare: tuple[NDArray[np.floating], NDArray[np.floating]],
    budgets: Sequence[int],
    *,
    n_bootstrap: int,
    seed: int,
) -> pd.DataFrame:
    """Return purity and recall of the first N test galaxies of each way of searching, with 95 % intervals.

    Intervals are over galaxies. Of each table the one feature is used that has the largest average precision on the
    known galaxies; tables with negative values (principal components) may be read from either end. Beside them stand
    `NEIGHBOURS` (mean distance in the embedding to the `N_NEIGHBOURS` nearest known rare galaxies), `FOREST` (isolation
    forest of the embedding, which knows no rare galaxy; Liu, Ting & Zhou 2008) and `RANDOM`. Galaxies of equal score,
    such as the zeros of a sparse feature, are taken in random order: what is given is the expectation over it.

    Parameters
    ----------
    tables : mapping
        From names to the rows (known, test) of a feature table.
    embedding : (n_known, d_in) and (n_test, d_in)
    rare : (n_known,) and (n_test,)
        1 rare, 0 not; NaN where it is not known, such galaxies are left out.
    budgets
        Numbers of galaxies to inspect; those larger than the number of test galaxies are left out.
    n_bootstrap, seed
        Resamples of the test galaxies for the intervals, and their seed, which the isolation forest has too.

    Returns
    -------
    DataFrame
        `method` (name of the table, or one of the three), `feature` and `sign` (of tables), `n_inspected`, `metric`
        ("purity": share of the inspected that are rare; "recall": share of the rare that were inspected), `value`,
        `low`, `high`, `n_rare` and `n` (test galaxies).

    Raises
    ------
    ValueError
        If rows differ, a flag is neither 0, 1 nor NaN, no budget fits, or either sample has fewer than `MIN_RARE`
        rare galaxies or none that is not rare.
    """
    flags = [_checked_flags(values, part) for values, part in zip(rare, ("known", "test"), strict=True)]
    known, new = ((~np.isnan(values)).nonzero()[0] for values in flags)
    is_rare, truth = flags[0][known] == 1, flags[1][new] == 1
    budgets = sorted({n for n in budgets if 1 <= n <= len(new)})
    if not budgets:
        raise ValueError(f"no budget lies in [1, {len(new)}], the number of test galaxies whose rarity is known")
    scores: dict[str, NDArray[np.float64]] = {}
    choices: dict[str, Choice] = {}
    for name, parts in tables.items():
        fit, test = (_rows(part, flag, rows, name) for part, flag, rows in zip(parts, flags, (known, new), strict=True))
        choices[name] = choice = _best_feature(fit, is_rare)
        scores[name] = choice.sign * _column(test, choice.feature)
    fit, test = (
        _rows(part, flag, rows, "embedding") for part, flag, rows in zip(embedding, flags, (known, new), strict=True)
    )
    scores |= _searches(np.asarray(fit), np.asarray(test), is_rare, seed)
    counts = list(resample_counts(len(truth), n_bootstrap, seed))
    table = []
    for name, score in scores.items():
        ranking = _Ranking(score, truth)
        resampled = np.stack([ranking.found(weights, budgets) for weights in counts])
        n_rare = np.array([np.sum(weights[truth]) for weights in counts])[:, None]
        found = ranking.found(np.ones(len(truth)), budgets)
        recalls = np.divide(resampled, n_rare, out=np.full_like(resampled, np.nan), where=n_rare > 0)
        choice = choices.get(name)
        for metric, value, samples in (
            ("purity", found / budgets, resampled / budgets),
            ("recall", found / truth.sum(), recalls),
        ):
            low, high = np.nanquantile(samples, [0.025, 0.975], axis=0)
            numbers = {"n_inspected": budgets, "metric": metric, "value": value, "low": low, "high": high}
            what = {"method": name, "feature": choice and choice.feature, "sign": choice and choice.sign}
            table.append(pd.DataFrame(what | numbers | {"n_rare": int(truth.sum()), "n": len(truth)}))
    return pd.concat([part.astype({"feature": "Int64", "sign": "Int64"}) for part in table], ignore_index=True)


def _best_feature(table: Table, is_rare: NDArray[np.bool_]) -> Choice:
    smallest = table.min(initial=0.0) if isinstance(table, np.ndarray) else table.data.min(initial=0.0)
    by_column = table if isinstance(table, np.ndarray) else table.tocsc()
    best = Choice(0, 1, -1.0)
    for feature in range(table.shape[1]):
        column = _column(by_column, feature)
        for sign in (1, -1) if smallest < 0 else (1,):
            precision = average_precision(sign * column, is_rare)
            if precision > best.average_precision:
                best = Choice(feature, sign, precision)
    return best


def average_precision(score: NDArray[np.floating], is_rare: NDArray[np.bool_]) -> float:
    """Return the mean over rare galaxies of the precision at their score; galaxies of equal score come in together."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    found = np.cumsum(is_rare[order])[ends]
    return float(np.sum(np.diff(found, prepend=0) * found / (ends + 1)) / found[-1])


class _Ranking:
    """Galaxies by falling score, those of equal score in one group."""

    def __init__(self, score: NDArray[np.float64], is_rare: NDArray[np.bool_]) -> None:
        self._order = np.argsort(-score, kind="stable")
        self._rare = is_rare[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(score[self._order])), len(score) - 1)

    def found(self, weights: NDArray[np.number], budgets: Sequence[int]) -> NDArray[np.float64]:
        """Expected number of rare galaxies among the first N of a resample in which galaxies count `weights` times."""
        counts = weights[self._order]
        inspected = np.concatenate([[0], np.cumsum(counts)[self._ends]])
        found = np.concatenate([[0], np.cumsum(counts * self._rare)[self._ends]])
        # within a group of equals the rare ones come evenly
        return np.interp(budgets, inspected, found)


def _searches(
    fit: NDArray[np.floating], test: NDArray[np.floating], is_rare: NDArray[np.bool_], seed: int
) -> dict[str, NDArray[np.float64]]:
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=N_NEIGHBOURS, algorithm="brute").fit(fit[is_rare])
    forest = IsolationForest(random_state=seed).fit(fit)
    return {
        NEIGHBOURS: -neighbours.kneighbors(test)[0].mean(axis=1),
        FOREST: -forest.score_samples(test),
        RANDOM: np.zeros(len(test)),
    }


def _checked_flags(values: NDArray[np.floating], part: str) -> NDArray[np.float64]:
    flags = np.asarray(values, dtype=np.float64)
    if flags.ndim != 1 or not (np.isnan(flags) | (flags == 0) | (flags == 1)).all():
        raise ValueError(f"rare, {part} galaxies: expected one value each of 0, 1 or NaN, got shape {flags.shape}")
    n_rare, n_others = np.count_nonzero(flags == 1), np.count_nonzero(flags == 0)
    if n_rare < MIN_RARE or n_others < 1:
        raise ValueError(f"{part} galaxies: {n_rare} rare and {n_others} others, expected {MIN_RARE} and 1 at least")
    return flags


def _rows(values: FeatureMatrix, flags: NDArray[np.float64], rows: NDArray[np.int64], name: str) -> Table:
    table = checked_table(values, name)
    if table.shape[0] != len(flags):
        raise ValueError(f"{name}: expected {len(flags)} rows, one a flag, got {table.shape[0]}")
    return table[rows]


def _column(table: Table, feature: int) -> NDArray[np.float64]:
    column = table[:, [feature]]
    return (column if isinstance(column, np.ndarray) else column.toarray())[:, 0].astype(np.float64)
