"""Which features figures show of networks that are trained for a target, and what these are called."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.figures.findings import Findings, TableFindings, rows_of
from sfnetlab.figures.kinds import NETWORKS
from sfnetlab.interpret.equations import activation_scales, normalised_activations

N_ON_DIAGRAMS = 4
"""Features on diagrams of galaxies, a panel each."""


def networks(findings: Findings) -> Sequence[TableFindings]:
    """Return the typical table of each network whose features are learnt for a target, where some are active."""
    chosen = [table for table in findings.typical() if table.spec.kind in NETWORKS]
    return [table for table in chosen if (features := table.read("features")) is not None and len(features)]


def feature_names(table: TableFindings) -> dict[int, str]:
    """Return what the table's features are called, the most used first."""
    features = table.need("features")
    return dict(zip(features["feature"], features["name"], strict=True))


def name_prefix(table: TableFindings) -> str:
    """Return what the names of the table's features begin with, such as "Z" of "Z61"."""
    feature, name = next(iter(feature_names(table).items()))
    return name.removesuffix(str(feature))


@dataclass(frozen=True)
class OnDiagram:
    """The most used features of a network on the test galaxies.

    Attributes
    ----------
    names : dict of feature to str
    activations : (n_galaxies, n_features)
        Normalised: `interpret.equations.normalised_activations`.
    test : DataFrame
        The galaxies' rows of the catalogue.
    """

    names: dict[int, str]
    activations: NDArray[np.float64]
    test: pd.DataFrame


def on_diagram(findings: Findings, table: TableFindings) -> OnDiagram | None:
    """Return the features that diagrams of galaxies show; None where none is active in train galaxies."""
    train, test = (rows_of(findings.catalog, part) for part in ("train", "test"))
    names = feature_names(table)
    most_used = np.array(list(names)[:N_ON_DIAGRAMS], dtype=np.intp)
    scales = activation_scales(table.values(train["id_str"]), most_used)
    is_shown = np.isfinite(scales)
    if not is_shown.any():
        return None
    shown = most_used[is_shown]
    activations = normalised_activations(table.values(test["id_str"]), shown, scales[is_shown])
    return OnDiagram({int(feature): names[feature] for feature in shown}, activations, test)
