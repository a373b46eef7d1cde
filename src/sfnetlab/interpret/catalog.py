"""The catalogue of features: how often each is active, how strongly, with which labels it goes, where it peaks."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import stdtr

from sfnetlab.interpret.table import POSITION, Answer, DescribedTable
from sfnetlab.metrics.association import benjamini_hochberg, closest_feature, correlation_interval, pearson, spearman
from sfnetlab.metrics.sparsity import activation_frequency, n_alive, usage_entropy
from sfnetlab.metrics.tables import FeatureMatrix, checked_table, columns_of, transpose_product

COMMON_FREQUENCY = 0.01
"""A feature active in more than this share of the galaxies is common."""
N_EXAMPLES = 10
LETTERS = {"metallicity": "Z", "lines": "SL"}
"""What features of networks for these targets are called, as in the SFNet paper; others are called F."""


def ask(table: DescribedTable) -> Answer:
    """Return a row for each feature that is active in a test galaxy, and the tables `examples` and `associations`."""
    weights = {} if table.head is None else dict(zip(table.head_columns, table.head[0], strict=True))
    values, labels = table.test.values, table.test.labels.drop(columns=list(POSITION), errors="ignore")
    features = describe_features(values, labels, weights, LETTERS.get(table.head_target or "", "F"))
    examples = strongest_galaxies(values, features["feature"].to_numpy(), N_EXAMPLES)
    examples["id_str"] = table.test.rows["id_str"].to_numpy()[examples.pop("row")]
    tables = {"examples": examples, "associations": associate_features(values, labels)}
    return Answer(tables=tables, of_features=features)


def describe_features(
    values: FeatureMatrix, labels: pd.DataFrame, weights: Mapping[str, NDArray[np.float64]], name_prefix: str = "F"
) -> pd.DataFrame:
    """Return how often and how strongly each feature is active, and with which label it goes.

    Parameters
    ----------
    values : (n, d)
        Activations as the head sees them, not negative.
    labels : DataFrame, n rows
        Numeric labels; NaN where a label was not measured, such rows are left out for that label.
    weights : mapping of label column to (d,)
        Weights of a linear head, in label units; may be empty.
    name_prefix : str
        What feature names begin with, such as "Z" or "SL".

    Returns
    -------
    DataFrame
        A row for each feature that is active in at least one of the galaxies, by falling frequency:

        - `feature` (column of `values`), `name` (such as "Z61"), `usage_rank` (0 is the most frequent), `frequency`
          (share of galaxies in which it is active).
        - `mean_activation`, `activation_q50`, `activation_q90`, `activation_q99` (over the galaxies in which it is
          active), `max_activation`.
        - `weight_<column>`, and `variance_share_<column>`: covariance of weight times activation with the head's
          prediction over the prediction's variance. Shares sum to 1 over features; one is negative where the feature
          works against the others, and NaN where the prediction is constant.
        - `redundancy`, `redundant_with`: the Pearson correlation of largest size with another feature, and which
          (-1: none varies).
        - `best_label`, `rho`: the label of largest |Spearman rho|; a maximum over labels, so its null is not zero. Both
          are NaN for a feature that does not vary.
    """
    frequency = activation_frequency(values)
    alive = np.flatnonzero(frequency > 0)
    of_alive = columns_of(values, alive)
    active = sparse.csc_array(of_alive)
    active.eliminate_zeros()
    quantiles = [np.quantile(active.data[start:end], (0.5, 0.9, 0.99)) for start, end in pairwise(active.indptr)]
    q50, q90, q99 = np.reshape(quantiles, (-1, 3)).T
    r, partner = closest_feature(of_alive)
    table = pd.DataFrame(
        {
            "feature": alive,
            "name": pd.Series([f"{name_prefix}{feature}" for feature in alive], dtype=object),
            "frequency": frequency[alive],
            "mean_activation": active.sum(axis=0) / active.count_nonzero(axis=0),
            "activation_q50": q50,
            "activation_q90": q90,
            "activation_q99": q99,
            "max_activation": active.max(axis=0).toarray().ravel() if alive.size else [],
            "redundancy": r,
            "redundant_with": np.where(partner >= 0, np.append(alive, -1)[partner], -1),
        }
    )
    for column, weight in weights.items():
        table[f"weight_{column}"] = weight[alive]
        table[f"variance_share_{column}"] = _variance_share(of_alive, weight[alive])
    rho = spearman(of_alive, labels.to_numpy(dtype=np.float64))
    strength = np.nan_to_num(np.abs(rho), nan=-1.0)
    best, is_known = strength.argmax(axis=1), strength.max(axis=1, initial=-1.0) >= 0
    table["best_label"] = pd.Series(labels.columns.to_numpy()[best], dtype=object).where(is_known)
    table["rho"] = rho[np.arange(len(alive)), best]
    table = table.sort_values(["frequency", "feature"], ascending=[False, True], ignore_index=True)
    table.insert(2, "usage_rank", np.arange(len(table)))
    return table


def associate_features(values: FeatureMatrix, labels: pd.DataFrame) -> pd.DataFrame:
    """Return the correlations of each feature with each label, with their 95 % intervals.

    `p` is that of Spearman's rho by Student's t (as SciPy's `spearmanr`: permutations of a few hundred could not pass
    the correction for so many pairs), `q` Benjamini-Hochberg over all pairs. Read Pearson's interval with care where a
    feature has a long tail (`metrics.association.correlation_interval`).

    Parameters
    ----------
    values : (n, d)
    labels : DataFrame, n rows
        Numeric labels; NaN where a label was not measured, such rows are left out for that label.

    Returns
    -------
    DataFrame
        A row for each feature and label: `feature, label, n, pearson, pearson_low, pearson_high, spearman,
        spearman_low, spearman_high, p, q`; n is the number of galaxies that have the label. NaN where the feature or
        the label is constant on these.
    """
    columns = labels.to_numpy(dtype=np.float64)
    d, m = checked_table(values, "values").shape[1], columns.shape[1]
    n = np.count_nonzero(~np.isnan(columns), axis=0)
    r, rho = pearson(values, columns), spearman(values, columns)
    p = _student_p(rho, n)
    numbers = {
        "pearson": r,
        **dict(zip(("pearson_low", "pearson_high"), correlation_interval(r, n, "pearson"), strict=True)),
        "spearman": rho,
        **dict(zip(("spearman_low", "spearman_high"), correlation_interval(rho, n, "spearman"), strict=True)),
        "p": p,
        "q": benjamini_hochberg(p),
    }
    names = {"feature": np.repeat(np.arange(d), m), "label": np.tile(labels.columns.to_numpy(), d), "n": np.tile(n, d)}
    return pd.DataFrame(names | {name: number.ravel() for name, number in numbers.items()})


def summarise_usage(values: FeatureMatrix) -> dict[str, float]:
    """Return how many of the features of (n, d) are used.

    Returns
    -------
    dict
        `n_features`, `n_alive` (active in at least one galaxy), `n_dead`, `n_common` (in more than 1 %),
        `usage_entropy` (nats) and `effective_number`, its exponential; both 0 where no feature is ever active.
    """
    frequency = activation_frequency(values)
    is_used = n_alive(frequency) > 0
    entropy = usage_entropy(frequency) if is_used else 0.0
    return {
        "n_features": frequency.size,
        "n_alive": n_alive(frequency),
        "n_dead": frequency.size - n_alive(frequency),
        "n_common": int(np.count_nonzero(frequency > COMMON_FREQUENCY)),
        "usage_entropy": entropy,
        "effective_number": float(np.exp(entropy)) if is_used else 0.0,
    }


def strongest_galaxies(values: FeatureMatrix, features: NDArray[np.intp], n_examples: int) -> pd.DataFrame:
    """Return the galaxies in which each feature is largest.

    Galaxies in which a feature is not active, 0, are never its examples, so a rare feature has fewer.

    Parameters
    ----------
    values : (n, d)
    features : (n_chosen,)
        Which features.
    n_examples
        Galaxies a feature, at most.

    Returns
    -------
    DataFrame
        `feature, rank` (0 is the strongest), `row` (of `values`), `activation`; of equals the lower row comes first.
    """
    columns = sparse.csc_array(columns_of(values, features))
    parts = []
    for place, feature in enumerate(features):
        rows = columns.indices[columns.indptr[place] : columns.indptr[place + 1]]
        activations = columns.data[columns.indptr[place] : columns.indptr[place + 1]]
        rows, activations = rows[activations != 0], activations[activations != 0]
        order = np.lexsort((rows, -activations))[:n_examples]
        parts.append(
            pd.DataFrame(
                {
                    "feature": feature,
                    "rank": np.arange(len(order)),
                    "row": rows[order],
                    "activation": activations[order],
                }
            )
        )
    nothing = pd.DataFrame({"feature": [], "rank": [], "row": [], "activation": []})
    whole = {"feature": np.int64, "rank": np.int64, "row": np.int64}
    return pd.concat(parts or [nothing], ignore_index=True).astype(whole)


def _variance_share(values: FeatureMatrix, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cov(w_f a_f, prediction) / Var(prediction) of every feature, (d,), for the prediction sum_f w_f a_f."""
    prediction = values @ weight
    centred = prediction - prediction.mean()
    total = float(centred @ centred)
    if not total > 1e-20 * float(prediction @ prediction):
        return np.full(len(weight), np.nan)
    return transpose_product(checked_table(values), centred) * weight / total


def _student_p(rho: NDArray[np.float64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    """Two-sided p-value of a rank correlation over n rows; NaN below three rows."""
    freedom = np.where(n > 2, n - 2.0, np.nan)
    with np.errstate(divide="ignore"):
        t = np.abs(rho) * np.sqrt(freedom / (1 - rho**2))
    return 2 * stdtr(freedom, -t)
