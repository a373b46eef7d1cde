"""What feature tables are held against each other by: several of them, of the same galaxies.

A relation is a file with its computation on arrays and `relate(related)`, which returns tidy tables by name;
`sfnetlab.interpret.RELATIONS` lists them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.table import GalaxyIds
from sfnetlab.jobs import TableSpec
from sfnetlab.methods import TRAITS, Reader, Traits
from sfnetlab.metrics.tables import FeatureMatrix


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
    rare
        For each kind of rare galaxies a value a row of the catalogue: 1 rare, 0 not, NaN not known.
    """

    catalog: pd.DataFrame
    tables: dict[str, RelatedTable]
    rare: Mapping[str, NDArray[np.float64]]

    def ids(self, *parts: Literal["train", "valid", "test"]) -> GalaxyIds:
        """Return the ids of the galaxies of some parts of the split, in the order of the catalogue."""
        return self.catalog.loc[self.catalog["split"].isin(parts), "id_str"]

    @property
    def first_seeds(self) -> dict[str, str]:
        """The name of the first table of each method, by the name of its [[features]]."""
        return {table.spec.features: name for name, table in reversed(self.tables.items())}
