"""The catalogue of features: how often each is active, how strongly, with which labels it goes, where it peaks."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sfnetlab.metrics.association import spearman
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureTable, columns_of


def describe_features(
    values: FeatureTable, labels: pd.DataFrame, weights: Mapping[str, NDArray[np.float64]]
) -> pd.DataFrame:
    """A row for each feature that is active in at least one of the given galaxies.

    Parameters
    ----------
    values : (n, d)
        Activations as the head sees them, not negative.
    labels : DataFrame, n rows
        Numeric labels; NaN where a label was not measured, such rows are left out for that label.
    weights : mapping of label column to (d,)
        Weights of a linear head, in label units; may be empty.

    Returns
    -------
    DataFrame
        `feature` (column of `values`), `frequency` (share of galaxies in which it is active), `mean_activation` (over
        the galaxies in which it is active), `max_activation`, `weight_<column>`, `best_label` and `rho` (the label of
        largest |Spearman rho|; a maximum over labels, so its null is not zero), sorted by falling frequency.
    """
    frequency = activation_frequency(values)
    alive = np.flatnonzero(frequency > 0)
    active = sparse.csc_array(columns_of(values, alive))
    table = pd.DataFrame(
        {
            "feature": alive,
            "frequency": frequency[alive],
            "mean_activation": active.sum(axis=0) / active.count_nonzero(axis=0),
            "max_activation": active.max(axis=0).toarray().ravel(),
        }
    )
    for column, weight in weights.items():
        table[f"weight_{column}"] = weight[alive]
    rho = spearman(columns_of(values, alive), labels.to_numpy(dtype=np.float64))
    strength = np.nan_to_num(np.abs(rho), nan=-1.0)
    best = strength.argmax(axis=1)
    table["best_label"] = labels.columns.to_numpy()[best]
    table["rho"] = rho[np.arange(len(alive)), best]
    return table.sort_values(["frequency", "feature"], ascending=[False, True], ignore_index=True)


def strongest_galaxies(values: FeatureTable, features: NDArray[np.intp], n_examples: int) -> pd.DataFrame:
    """The galaxies in which each feature is most active: `feature, rank, row, activation`, ties by row.

    Galaxies in which a feature is not active are never its examples, so a rare feature has fewer.
    """
    columns = sparse.csc_array(columns_of(values, features))
    parts = []
    for place, feature in enumerate(features):
        rows = columns.indices[columns.indptr[place] : columns.indptr[place + 1]]
        activations = columns.data[columns.indptr[place] : columns.indptr[place + 1]]
        order = np.lexsort((rows, -activations))[:n_examples]
        order = order[activations[order] > 0]
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
    return pd.concat(parts, ignore_index=True)
