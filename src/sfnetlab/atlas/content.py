"""What an atlas is made of: plain arrays and tables, whoever gathers them.

Rows of every array are the galaxies of the atlas, in its order.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.atlas.names import GivenName
from sfnetlab.jobs import TableSpec
from sfnetlab.metrics.tables import FeatureMatrix, checked_table

How = Literal["exact", "gradient"]
"""How activation maps are made: see maps.py."""


@dataclass(frozen=True, kw_only=True)
class Galaxies:
    """The galaxies that the atlas shows.

    Attributes
    ----------
    catalog : DataFrame, n rows
        `id_str`, `split` and whatever else the survey knows; `ra`, `dec` in degrees.
    labels : DataFrame, n rows
        Numbers; NaN: not measured.
    images : uint8 (m, side, side, 3) or None
        The survey's, maybe memory-mapped; None where it has none.
    places : (n,)
        The image of each galaxy.
    pixel_scale_arcsec
        None where it is not known: then there is no scale bar.
    is_real
        Whether ra and dec are places on the sky at which there is something.
    n_survey
        Galaxies of the survey, shown or not.
    """

    catalog: pd.DataFrame
    labels: pd.DataFrame
    images: NDArray[np.uint8] | None
    places: NDArray[np.intp]
    pixel_scale_arcsec: float | None
    is_real: bool
    n_survey: int

    @property
    def is_test(self) -> NDArray[np.bool_]:
        """Whether each galaxy is a test galaxy, (n,)."""
        return (self.catalog["split"] == "test").to_numpy()


@dataclass(frozen=True, kw_only=True)
class Head:
    """A linear head in label units: `values @ weights.T + bias`.

    Attributes
    ----------
    columns
        Labels that it predicts.
    weights : (n_outputs, d)
    bias : (n_outputs,)
    predictions : (n, n_outputs)
        What the network itself says, run from pixels to label.
    maps : (n, n_outputs, h, w) or None
        Where each prediction comes from: the mean of the network's own cells + bias is the prediction.
    is_of_interest : (n,)
        Galaxies within the cut of its target.
    """

    columns: tuple[str, ...]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    predictions: NDArray[np.float32]
    maps: NDArray[np.float32] | None
    is_of_interest: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class FeatureMaps:
    """Activation maps of pairs of a galaxy and a feature.

    Attributes
    ----------
    rows, features : (m,)
        Galaxy and feature of each map; the maps of a feature stand together.
    maps : (m, h, w)
        Cells in units of the feature: north up, east left, as the cutouts.
    how
        Whether the mean of a map's cells that are the network's own is the activation, or the map is a hint.
    """

    rows: NDArray[np.intp]
    features: NDArray[np.intp]
    maps: NDArray[np.float32]
    how: How


@dataclass(frozen=True)
class Stability:
    """How well other seeds have each feature: a value a feature, and a sentence that says how it is measured."""

    explanation: str
    values: "pd.Series[float]"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Tables of interpret-features and compare-features about one feature table; empty where there are none.

    `features` is the row a feature. `partners` has `feature, table, partner, correlation_fit, correlation_test, p`.
    """

    features: pd.DataFrame
    associations: pd.DataFrame
    alignment: pd.DataFrame = field(default_factory=pd.DataFrame)
    nuisances: pd.DataFrame = field(default_factory=pd.DataFrame)
    partial: pd.DataFrame = field(default_factory=pd.DataFrame)
    equations: pd.DataFrame = field(default_factory=pd.DataFrame)
    recovery: pd.DataFrame = field(default_factory=pd.DataFrame)
    localisation: pd.DataFrame = field(default_factory=pd.DataFrame)
    changes: pd.DataFrame = field(default_factory=pd.DataFrame)
    partners: pd.DataFrame = field(default_factory=pd.DataFrame)
    stability: Stability | None = None


@dataclass(frozen=True, kw_only=True)
class ShownTable:
    """A feature table as the atlas shows it.

    Attributes
    ----------
    spec
        Which table it is.
    values : (n, d), dense or CSR
        Its features of the galaxies.
    of_interest : (n,)
        The galaxies on which its features are described.
    residuals : (n,) or None
        How badly each galaxy is reconstructed: squared error over the embedding's variance.
    names
        What the user calls features, by number.
    """

    spec: TableSpec
    values: FeatureMatrix
    of_interest: NDArray[np.bool_]
    evidence: Evidence
    maps: FeatureMaps | None = None
    head: Head | None = None
    residuals: NDArray[np.floating] | None = None
    names: dict[int, GivenName] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called, such as `sae-k4-seed0`."""
        return self.spec.name

    @property
    def n_features(self) -> int:
        """Number of its features, active or not."""
        return checked_table(self.values).shape[1]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What methods predict of one label column.

    Attributes
    ----------
    y_true : (n,)
        What the catalogue says, in the label's unit.
    methods
        Names of feature tables, each with its probe.
    values : (n, n_methods)
        Predictions for test galaxies, in the label's unit; NaN for all others.
    """

    target: str
    column: str
    unit: str
    y_true: NDArray[np.floating]
    methods: tuple[str, ...]
    values: NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """All that an atlas shows.

    Attributes
    ----------
    comparison, classes
        The tables that report.comparison_table and report.class_table make; empty where there are none.
    claims
        A claim of the papers each, with `name, statement, source, what, verdict, why`.
    config_toml
        The settings of the experiment, as TOML.
    """

    experiment: str
    galaxies: Galaxies
    tables: tuple[ShownTable, ...]
    comparison: pd.DataFrame
    classes: pd.DataFrame
    predictions: tuple[Predictions, ...] = ()
    claims: tuple[dict[str, str], ...] = ()
    config_toml: str = ""
