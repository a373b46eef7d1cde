"""Networks that see the same cutouts through different views: how well they predict, and which features survive."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from sfnetlab.metrics.matching import match_features
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureMatrix
from sfnetlab.metrics.tidy import AUGMENTED, HEAD

SCORES = ("rmse", "nmad")
AUGMENTED_HEAD = f"{HEAD}{AUGMENTED}"
"""The head's predictions averaged over the 8 symmetries of a cutout, in the metrics of fit-probes."""


class Seen(NamedTuple):
    """A feature table of a method through a view."""

    method: str
    k: int | None
    view: str
    seed: int | None


def view_scores(metrics: pd.DataFrame, views: pd.DataFrame) -> pd.DataFrame:
    """Return the test scores of the heads of networks with different views.

    Where predictions were averaged over the symmetries of a cutout, the scores are those of the averages.

    Parameters
    ----------
    metrics : DataFrame
        The tidy `metrics.parquet` of fit-probes, with the intervals of methods.
    views : DataFrame
        A row for each [[features]]: `features`, `method`, `view`, `side_px` (pixels a side that are left),
        `is_degraded` (whether that is all that the view does; full cutouts count too).

    Returns
    -------
    DataFrame
        `target, column, method, kind, k, view, side_px, is_degraded, seed, metric, value, low, high, n, probe`.
    """
    tests = metrics[(metrics["split"] == "test") & metrics["metric"].isin(SCORES)]
    augmented = tests[tests["probe"] == AUGMENTED_HEAD]
    heads = augmented if len(augmented) else tests[tests["probe"] == HEAD]
    rows = heads.merge(views, on="features", validate="many_to_one")
    columns = ["target", "column", "method", "kind", "k", "view", "side_px", "is_degraded", "seed", "metric", "value"]
    return rows[[*columns, "low", "high", "n", "probe"]].reset_index(drop=True)


def surviving_features(
    tables: Mapping[Seen, tuple[FeatureMatrix, FeatureMatrix]], n_permutations: int, seed: int
) -> pd.DataFrame:
    """Return what becomes of each feature of a network in networks of the same method with other views or seeds.

    The first table of each method and k is the reference; its features are matched one to one with those of every other
    table on the fit rows (`metrics.matching.match_features`) and the pairs measured on the test rows. What survives in
    another seed of the same view is the most that can be expected of another view.

    Parameters
    ----------
    tables : mapping
        From each table to its rows (fit, test), the same galaxies in the same order in all of them.
    n_permutations, seed
        Permutations of the galaxies for the null, and their seed.

    Returns
    -------
    DataFrame
        `method, k, view, seed`, `feature` (of the reference), `frequency` (share of fit rows that activate it),
        `correlation` (|Pearson| on test rows with its partner; 0 where it has none), `p`, and `null_95`, the 95 %
        quantile of what permuted galaxies give. Features that are constant are left out.
    """
    references: dict[tuple[str, int | None], Seen] = {}
    parts: list[pd.DataFrame] = []
    for seen, table in tables.items():
        first = references.setdefault((seen.method, seen.k), seen)
        if first == seen:
            continue
        reference = tables[first]
        frequency = activation_frequency(reference[0])
        try:
            match = match_features(reference[0], table[0], reference[1], table[1], n_permutations, seed)
            pairs, null = match.pairs.set_index("feature_a"), match.null["correlation_test"].abs()
        except ValueError as error:
            if "varies" not in str(error):
                raise
            # a network that has collapsed to constants: nothing survives in it
            pairs, null = pd.DataFrame({"correlation_test": [], "p": []}), pd.Series([0.0])
        used = np.flatnonzero(frequency > 0)
        part = pd.DataFrame({"feature": used, "frequency": frequency[used]})
        part["correlation"] = pairs["correlation_test"].abs().reindex(used).fillna(0.0).to_numpy()
        part["p"] = pairs["p"].reindex(used).fillna(1.0).to_numpy()
        parts.append(part.assign(null_95=float(null.quantile(0.95)), **seen._asdict()))
    if not parts:
        raise ValueError("no method has two tables: nothing can survive")
    columns = [*Seen._fields, "feature", "frequency", "correlation", "p", "null_95"]
    return pd.concat(parts, ignore_index=True)[columns].astype({"k": "Int64", "seed": "Int64"})
