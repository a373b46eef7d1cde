"""A feature table made by hand, to ask questions of."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from sfnetlab.interpret.table import DescribedTable
from sfnetlab.jobs import TableSpec
from sfnetlab.methods.readers import IdentityReader
from sfnetlab.settings import Target

TARGETS = {"size": Target(columns=("size",))}


@pytest.fixture
def described() -> Callable[..., DescribedTable]:
    """From labels of galaxies and their features to a table, with whatever else it has; a third is of each part."""

    def make(labels: pd.DataFrame, values, kind: str = "encoder", **more) -> DescribedTable:
        n = len(labels)
        ids = pd.Index([f"{i:04d}" for i in range(n)])
        split = np.resize(["train", "valid", "test"], n)
        settings = {
            "spec": TableSpec(features=kind, kind=kind, k=None, seed=0),
            "catalog": labels.assign(id_str=ids, split=split),
            "targets": TARGETS,
            "within": {"size": np.ones(n, dtype=bool)},
            "morphology": ("*_fraction",),
            "nuisances": ("z",),
            "held_fixed": (),
            "n_permutations": 20,
            "values_of": lambda of: values[ids.get_indexer(of)],
            "load_reader": lambda: IdentityReader(values.shape[1]),
        }
        return DescribedTable(**(settings | more))

    return make
