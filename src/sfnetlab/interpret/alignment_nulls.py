"""How well the features of a table go with what galaxies look like, beside an untrained network's: at equal numbers."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.confounders import known_columns_of
from sfnetlab.interpret.shared import at_fixed_labels
from sfnetlab.interpret.table import NOTHING, SEED, Answer, DescribedTable, usable_labels
from sfnetlab.metrics.alignment import align, mean_score
from sfnetlab.metrics.nulls import ALIKE, MAX_ROWS, draws
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureMatrix, checked_table, columns_of, evenly, rows_of, varying_columns

NUMBERS = (16, 64, 256)
"""Numbers of features that are compared, the most frequent: methods with more or fewer are compared at equal ones."""
N_PERMUTATIONS = 20
"""Permutations of the galaxies, of which the null is the mean."""
N_RESAMPLES = 200
"""Resamples of the galaxies for the interval of a mean over so many features."""


class Aligned(NamedTuple):
    """How well features go with labels."""

    share_alike: float
    """Share of features with a score above `nulls.ALIKE`."""
    score: float
    """Mean score over features, see `metrics.alignment.align`."""


def ask(table: DescribedTable) -> Answer:
    """Return the table `alignment_nulls`, a row a number of features; nothing without a usable morphology label.

    Of `NUMBERS` there are those that the table has, and the number of all its features if it has fewer than the
    largest. Columns are `n_features`, `share_alike` and `score` (see `Aligned`) of so many features, the most frequent,
    `low` and `high` (the 95 % interval of the score over galaxies), and the same two with the beginnings `permuted_`
    (galaxies permuted, the mean of `N_PERMUTATIONS`), `untrained_` (as many features of an untrained network; NaN
    without one), `held_fixed_` (with what label, mass, colour and size leave of the morphology; NaN where these are not
    known) and `excess_` (less the untrained).
    """
    usable = usable_labels(table, table.morphology, "labels of [interpretation] morphology")
    if usable is None:
        return NOTHING
    valid, test = (part.to_numpy(dtype=np.float64) for part in usable)
    parts = (table.valid.values, table.test.values)
    alive = varying_columns(*parts)
    if len(alive) == 0:
        return NOTHING
    labels = _Labels(valid, test, _at_fixed_labels(table, usable[0].columns))
    frequency = activation_frequency(columns_of(parts[0], alive))
    ranked = alive[np.argsort(-frequency, kind="stable")]
    most = min(len(ranked), NUMBERS[-1])
    numbers = [*(n for n in NUMBERS if n < most), most]
    rows = [_row(table, [columns_of(part, ranked[:n]) for part in parts], labels) for n in numbers]
    return Answer(tables={"alignment_nulls": pd.DataFrame(rows)})


class _Labels(NamedTuple):
    """Labels of morphology, (n, m); NaN where not measured."""

    valid: NDArray[np.float64]
    test: NDArray[np.float64]
    held_fixed: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    """What label, mass, colour and size leave of them, of at most `MAX_ROWS` valid and test galaxies."""


def _at_fixed_labels(
    table: DescribedTable, names: "pd.Index[str]"
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Project what is trivial out of the labels: what is left of a sparse feature's zeros is no longer its galaxies."""
    parts = (table.train, table.valid, table.test)
    left = at_fixed_labels(
        {"labels": [part.labels[names].to_numpy(dtype=np.float64) for part in parts]},
        [known_columns_of(part.labels, table.trivial) for part in parts],
    )
    return None if left is None else (left["labels"][1], left["labels"][2])


def _row(table: DescribedTable, values: Sequence[FeatureMatrix], labels: _Labels) -> dict[str, float]:
    """The row of some features of valid and test galaxies."""
    valid, test = labels.valid, labels.test
    n = checked_table(values[0]).shape[1]
    few = [evenly(np.arange(len(part)), MAX_ROWS) for part in (valid, test)]
    own = align(values[0], valid, rows_of(values[1], few[1]), test[few[1]])
    _, low, high = mean_score(own, test[few[1]], n_resamples=N_RESAMPLES, seed=SEED)
    permuted = [aligned(each, valid, test) for each in _permuted(values)]
    found = {"": aligned(values, valid, test), "permuted_": Aligned(*np.mean(permuted, axis=0).tolist())}
    nothing = Aligned(float("nan"), float("nan"))
    found |= {"untrained_": nothing, "held_fixed_": nothing}
    if table.untrained is not None:
        others = [table.untrained(part.rows["id_str"]) for part in (table.valid, table.test)]
        varying = varying_columns(*others)
        drawn = [
            aligned([columns_of(part, varying[some]) for part in others], valid, test)
            for some in draws(len(varying), n, SEED)
        ]
        found["untrained_"] = Aligned(*np.mean(drawn, axis=0).tolist())
    if labels.held_fixed is not None:
        seen = [rows_of(part, chosen) for part, chosen in zip(values, few, strict=True)]
        found["held_fixed_"] = aligned(seen, *labels.held_fixed)
    found["excess_"] = Aligned(*(a - b for a, b in zip(found[""], found["untrained_"], strict=True)))
    row = {f"{name}{number}": value for name, each in found.items() for number, value in each._asdict().items()}
    return {"n_features": n, "low": low, "high": high} | row


def _permuted(values: Sequence[FeatureMatrix]) -> Iterator[list[FeatureMatrix]]:
    """Yield the same features, of other galaxies of the same part, `N_PERMUTATIONS` times.

    Features of one table are active in the same galaxies, so that one permutation moves the scores of all together.
    """
    rng = np.random.default_rng(SEED)
    for _ in range(N_PERMUTATIONS):
        yield [rows_of(part, rng.permutation(checked_table(part).shape[0])) for part in values]


def aligned(values: Sequence[FeatureMatrix], valid: NDArray[np.float64], test: NDArray[np.float64]) -> Aligned:
    """Return how well features go with the label that fits each best on valid galaxies, on test galaxies.

    Parameters
    ----------
    values
        Features of the valid and of the test galaxies; one that does not vary goes with no label.
    valid, test : ndarray of shape (n, m)
        Their labels; NaN where not measured.
    """
    score = np.nan_to_num(align(values[0], valid, values[1], test).score)
    return Aligned(float((score > ALIKE).mean()), float(score.mean()))
