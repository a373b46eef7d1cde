"""How many features of a table go with what galaxies look like, beside an untrained network's: at equal numbers."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.confounders import known_columns_of
from sfnetlab.interpret.shared import at_fixed_labels
from sfnetlab.interpret.table import NOTHING, SEED, Answer, DescribedTable, usable_labels
from sfnetlab.metrics.association import pearson, spearman
from sfnetlab.metrics.nulls import ALIKE, MAX_ROWS, draws
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureMatrix, checked_table, columns_of, evenly, rows_of, varying_columns

N_COMPARED = 64
"""Features that are compared, the most frequent, as the Euclid paper has it."""


class Aligned(NamedTuple):
    """How strongly features go with labels."""

    share_alike: float
    """Share of features with a |Spearman rho| above `nulls.ALIKE` with their label."""
    mean_rho: float
    """Mean of |rho| over features."""


def ask(table: DescribedTable) -> Answer:
    """Return the table `alignment_nulls`, a row; nothing where the catalogue has no usable morphology label.

    Columns are `n_features`, `share_alike` and `mean_rho` (see `Aligned`) of the `N_COMPARED` most frequent features,
    and the same with the beginnings `permuted_` (galaxies permuted), `untrained_` (as many features of an untrained
    network; NaN without one), `held_fixed_` (features from which label, mass, colour and size are projected out, by
    Pearson's correlation; NaN where these are not known) and `excess_` (less the untrained).
    """
    labels = usable_labels(table, table.morphology, "labels of [interpretation] morphology")
    if labels is None:
        return NOTHING
    valid, test = (part.to_numpy(dtype=np.float64) for part in labels)
    parts = (table.train.values, table.valid.values, table.test.values)
    alive = varying_columns(*parts[1:])
    if len(alive) == 0:
        return NOTHING
    frequency = activation_frequency(columns_of(parts[1], alive))
    chosen = alive[np.argsort(-frequency, kind="stable")[:N_COMPARED]]
    values = [columns_of(part, chosen) for part in parts]
    found = {"": aligned(values[1:], valid, test), "permuted_": aligned(_permuted(values[1:]), valid, test)}
    nothing = Aligned(float("nan"), float("nan"))
    found |= {"untrained_": nothing, "held_fixed_": nothing}
    if table.untrained is not None:
        others = [table.untrained(part.rows["id_str"]) for part in (table.valid, table.test)]
        varying = varying_columns(*others)
        drawn = [
            aligned([columns_of(part, varying[some]) for part in others], valid, test)
            for some in draws(len(varying), len(chosen), SEED)
        ]
        found["untrained_"] = Aligned(*np.mean(drawn, axis=0).tolist())
    trivial = [known_columns_of(part.labels, table.trivial) for part in (table.train, table.valid, table.test)]
    left = at_fixed_labels({"": values}, trivial)
    if left is not None:
        few = [evenly(np.arange(len(part)), MAX_ROWS) for part in (valid, test)]
        # what is left of the many zeros of a sparse feature follows the labels in rank, and in value it does not
        found["held_fixed_"] = aligned(left[""][1:], valid[few[0]], test[few[1]], pearson)
    own, null = found[""], found["untrained_"]
    found["excess_"] = Aligned(*(a - b for a, b in zip(own, null, strict=True)))
    row = {f"{name}{number}": value for name, each in found.items() for number, value in each._asdict().items()}
    return Answer(tables={"alignment_nulls": pd.DataFrame([{"n_features": len(chosen)} | row])})


def _permuted(values: Sequence[FeatureMatrix]) -> list[FeatureMatrix]:
    """The same features, of other galaxies of the same part."""
    rng = np.random.default_rng(SEED)
    return [rows_of(part, rng.permutation(checked_table(part).shape[0])) for part in values]


def aligned(
    values: Sequence[FeatureMatrix],
    valid: NDArray[np.float64],
    test: NDArray[np.float64],
    correlate: Callable[[FeatureMatrix, NDArray[np.float64]], NDArray[np.float64]] = spearman,
) -> Aligned:
    """Return how strongly features go with the label that fits each best on valid galaxies, on test galaxies.

    Parameters
    ----------
    values
        Features of the valid and of the test galaxies; one that does not vary goes with no label.
    valid, test : ndarray of shape (n, m)
        Their labels; NaN where not measured.
    correlate
        `spearman` or `pearson`.
    """
    strength = np.nan_to_num(np.abs(correlate(values[0], valid)), nan=-1.0)
    rho = np.nan_to_num(np.abs(correlate(values[1], test)))
    of_best = rho[np.arange(len(rho)), strength.argmax(axis=1)] * (strength.max(axis=1) >= 0)
    return Aligned(float((of_best > ALIKE).mean()), float(of_best.mean()))
