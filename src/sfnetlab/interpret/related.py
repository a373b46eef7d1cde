"""What feature tables are held against each other by: several of them, of the same galaxies.

A relation is a file with its computation on arrays and `relate(related)`, which returns tidy tables by name;
`sfnetlab.interpret.RELATIONS` lists them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.table import GalaxyIds
from sfnetlab.jobs import TableSpec
from sfnetlab.methods import TRAITS, Reader, Traits
from sfnetlab.metrics.tables import FeatureMatrix, checked_table, column_mean_sd

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RelatedTable:
    """One of the feature tables.

    Attributes
    ----------
    spec
        Which table it is.
    embedding
        Identifies the embedding that the features decompose; of features that decompose none, the table itself.
    values_of
        From ids to features, dense or CSR.
    load_reader
        Returns what reads the features in the embedding.
    """

    spec: TableSpec
    embedding: str
    values_of: Callable[[GalaxyIds], FeatureMatrix]
    load_reader: Callable[[], Reader]

    @property
    def traits(self) -> Traits:
        """What the table's kind is."""
        return TRAITS[self.spec.kind]

    @cached_property
    def reader(self) -> Reader:
        """What reads the features in the embedding."""
        return self.load_reader()


@dataclass(frozen=True, kw_only=True)
class RelatedTables:
    """The feature tables.

    Attributes
    ----------
    catalog
        A row a galaxy, with `id_str` and `split`.
    tables
        By name, in the order of the configuration.
    untrained
        Names of the tables that are features of an untrained network.
    trivial : DataFrame
        What any network sees of the galaxies, a row a row of the catalogue; NaN where not measured. Without columns
        nothing is known.
    rare
        For each kind of rare galaxies a value a row of the catalogue: 1 rare, 0 not, NaN not known.
    """

    catalog: pd.DataFrame
    tables: dict[str, RelatedTable]
    untrained: Sequence[str]
    trivial: pd.DataFrame
    rare: Mapping[str, NDArray[np.float64]]

    def ids(self, *parts: Literal["train", "valid", "test"]) -> GalaxyIds:
        """Return the ids of the galaxies of some parts of the split, in the order of the catalogue."""
        return self.catalog.loc[self.catalog["split"].isin(parts), "id_str"]

    @cached_property
    def varying(self) -> dict[str, RelatedTable]:
        """The tables with a feature that varies on train and on test galaxies; the log names the others."""
        train, test = self.ids("train"), self.ids("test")
        kept: dict[str, RelatedTable] = {}
        for name, table in self.tables.items():
            sd = [column_mean_sd(checked_table(table.values_of(ids)))[1] for ids in (train, test)]
            if ((sd[0] > 0) & (sd[1] > 0)).any():
                kept[name] = table
            else:
                log.info("%s is not held against others: none of its features varies on train and test galaxies", name)
        return kept

    @property
    def first_seeds(self) -> dict[str, str]:
        """The name of the first of the `varying` tables of each method, by the name of its [[features]]."""
        return {table.spec.features: name for name, table in reversed(self.varying.items())}
