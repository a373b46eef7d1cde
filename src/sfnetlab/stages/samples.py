"""The galaxies on which probes are fitted and scored, and their features: shared by the parts of fit-probes."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import FeatureTable
from sfnetlab.methods import TRAITS
from sfnetlab.metrics.effective import EffectiveNumber, effective_number
from sfnetlab.metrics.selection import alive_features, features_of_budgets
from sfnetlab.metrics.tables import FeatureMatrix, Mapped, checked_table, columns_of, evenly, in_memory, rows_of
from sfnetlab.metrics.tidy import PARTS
from sfnetlab.plan import ProbeSpec
from sfnetlab.probes.common import Classifier, Probe
from sfnetlab.surveys.catalog import FOR_PROBES, taught_rows

N_LEAST = 10
"""Galaxies in each part of the split, of classes of each class, so that no resample is of a single one."""
SEED = 0
"""Of resamples and of XGBoost: the same for every method, so that differences between methods are paired."""

SEEN = "seen"
"""Train galaxies whose labels the features have learnt, where others are left to probes."""

NamedRows = tuple[str, pd.DataFrame]
"""Rows for one of the stage's files, by its stem."""


MAPPED_VALUES = 2**26
"""Dense features of more values are read in blocks where a probe allows it: 256 MiB."""
SELECTION_ROWS = 2**20
"""Train rows by which the features of a budget are chosen, at most, spread evenly over all."""
EFFECTIVE_ROWS = 2**14
"""Train rows by which near copies among features are found, at most, spread evenly over all."""


SCORED_ROWS = 2**15
"""Train galaxies that classifiers are scored on, at most, spread evenly over all: neighbours of each take long."""


def features_of(table: FeatureTable, ids: "pd.Series[str]") -> FeatureMatrix:
    """Return the features of the named galaxies, in their order: dense, CSR, or `Mapped` where they are many."""
    if isinstance(table.values, np.ndarray) and len(ids) * table.n_features > MAPPED_VALUES:
        return cast(FeatureMatrix, Mapped(table.values, table.places(ids)))
    return table.of(ids)


def parts_of(rows: pd.DataFrame, spec: ProbeSpec) -> NDArray[np.str_]:
    """Return the part of the split of each galaxy (n,); of features that have learnt from labels, `SEEN` apart.

    Their "train" galaxies are those that were left to probes, if some were.
    """
    split = rows["split"].to_numpy(dtype=np.str_)
    if not spec.has_seen_labels or FOR_PROBES not in rows:
        return split
    return np.where(taught_rows(rows), SEEN, split)


@dataclass(frozen=True)
class Sample:
    """Galaxies for which a target or a set of classes means something."""

    X: FeatureMatrix
    """(n, d), their features."""
    split: NDArray[np.str_]
    """(n,), the part of the split that each is in."""
    is_control: bool = False
    """Whether the features are those of a control."""

    def rows(self, part: str) -> NDArray[np.intp]:
        """Places of the galaxies of one part, rising."""
        return np.flatnonzero(self.split == part)

    @cached_property
    def scored(self) -> NDArray[np.bool_]:
        """Which galaxies classifiers are scored on, (n,): all, of train galaxies at most `SCORED_ROWS`."""
        train = self.rows("train")
        is_scored = np.ones(len(self.split), dtype=bool)
        is_scored[train] = False
        is_scored[evenly(train, SCORED_ROWS)] = True
        return is_scored

    @cached_property
    def alive(self) -> NDArray[np.intp]:
        """Columns that are not zero on some train row: what a probe may use."""
        return alive_features(rows_of(self.X, self.rows("train")))

    @cached_property
    def all_effective(self) -> EffectiveNumber:
        """How many features those that are alive effectively are."""
        return self.effective(self.alive)

    def effective(self, columns: NDArray[np.integer]) -> EffectiveNumber:
        """Return how many features some columns effectively are, on train rows.

        A control's columns of the catalogue have units that differ, and so no participation ratio.
        """
        train = rows_of(self.X, evenly(self.rows("train"), EFFECTIVE_ROWS))
        found = effective_number(in_memory(checked_table(columns_of(train, columns))))
        return found._replace(participation=float("nan")) if self.is_control else found

    def budgets(self, spec: ProbeSpec, Y: NDArray[np.floating]) -> Iterator[NDArray[np.integer]]:
        """Yield the features of each budget: the first components, else the best for the train rows of labels Y (n, m).

        Controls have none: their few columns are what is compared with.
        """
        traits = TRAITS[spec.table.kind]
        if traits.role != "control":
            train = evenly(self.rows("train"), SELECTION_ROWS)
            yield from features_of_budgets(
                rows_of(self.X, train), Y[train], self.alive, spec.probes.budgets, is_ordered=traits.is_ordered
            )

    def fit(self, probe: Probe, chosen: FeatureMatrix, Y: NDArray[np.float64], *, on: str = "train") -> Probe:
        """Fit a probe to the rows of one part of `chosen` features and labels Y, its choices made on valid rows."""
        rows, valid = self.rows(on), self.rows("valid")
        return probe.fit(rows_of(chosen, rows), Y[rows], rows_of(chosen, valid), Y[valid])

    def fit_classifier(self, classifier: Classifier, chosen: FeatureMatrix, y: NDArray[np.intp]) -> Classifier:
        """Fit a classifier to the train rows of `chosen` features and class numbers y, choices made on valid rows."""
        rows, valid = self.rows("train"), self.rows("valid")
        return classifier.fit(rows_of(chosen, rows), y[rows], rows_of(chosen, valid), y[valid])


def too_few(target: str, split: NDArray[np.str_]) -> str | None:
    """Return a message where a part of the split has fewer than `N_LEAST` of a target's galaxies; else None.

    Parameters
    ----------
    split : ndarray of shape (n,)
        The part of each galaxy that has the target.
    """
    counts = {part: int(np.count_nonzero(split == part)) for part in PARTS}
    few = ", ".join(f"{n} {part}" for part, n in counts.items() if n < N_LEAST)
    if not few:
        return None
    return (
        f"target {target!r}: only {few} galaxies have it, and an interval needs at least {N_LEAST}; use more galaxies, "
        f"another cut or other split.fractions"
    )
