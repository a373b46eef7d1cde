"""Controls that are made of the catalogue: photometry, mass and colour, nothing; and what such controls share."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Table, TableSpec, Task
from sfnetlab.methods.contract import BLACK, GREY, PURPLE, Given, Look, Planner, Reader, Traits
from sfnetlab.methods.decompositions import BaselineSpec
from sfnetlab.methods.readers import identity_of
from sfnetlab.settings import Target, require

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Photometry:
    """Control: catalogue magnitudes, the colours between neighbouring bands, and sizes."""

    traits: ClassVar[Traits] = Traits(
        label="photometry",
        noun="columns",
        role="control",
        supervised=False,
        can_be_decomposed=False,
        is_ordered=False,
        is_sparse=False,
        rank=20,
        look=Look(colors=(PURPLE, BLACK, GREY), markers=("X", "P", "*", "p"), linestyles=("--", "-.")),
    )

    name: str = "photometry"
    """Names its results, and its rows in every table."""
    kind: Literal["photometry"] = "photometry"
    magnitudes: tuple[str, ...] = ("modelMag_u", "modelMag_g", "modelMag_r", "modelMag_i", "modelMag_z")
    """Magnitude columns in order of wavelength; neighbours make the colours."""
    sizes: tuple[str, ...] = ("petroR50_r", "petroR90_r")
    """Size columns, in arcseconds."""

    def __post_init__(self) -> None:
        require(len(self.magnitudes) + len(self.sizes) > 0, "name at least one magnitude or size column")

    @property
    def catalogue_columns(self) -> tuple[str, ...]:
        """Return the magnitudes and sizes."""
        return (*self.magnitudes, *self.sizes)

    def check(self, given: Given) -> None:
        """Refer to nothing else of the experiment."""

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield the one table."""
        yield from survey_table(planner, BaselineSpec(baseline=self))

    def build(self, target: Target | None, task: Task) -> Metrics:  # noqa: ARG002
        """Write the feature table; return numbers about it."""
        return build_of_columns(self, task)

    def features(self, catalog: "pd.DataFrame") -> "pd.DataFrame":
        """Return magnitudes, the colours of neighbouring bands, and sizes, every value finite: see `filled_columns`."""
        features = filled_columns(catalog, self.catalogue_columns, self.name)
        return features.assign(**colours(features, self.magnitudes))

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return the identity: features are the columns themselves."""
        return identity_of(inputs)


@dataclass(frozen=True, kw_only=True)
class MassAndColour:
    """Control: stellar mass and colours, which any finding about a galaxy's image should go beyond."""

    traits: ClassVar[Traits] = Traits(
        label="mass and colour",
        noun="columns",
        role="control",
        supervised=False,
        can_be_decomposed=False,
        is_ordered=False,
        is_sparse=False,
        rank=15,
        look=Look(colors=(GREY, PURPLE, BLACK), markers=("h", "X", "*", "p"), linestyles=("--", ":")),
    )

    name: str = "mass_and_colour"
    """Names its results, and its rows in every table."""
    kind: Literal["mass_and_colour"] = "mass_and_colour"
    mass: str = "lgm_tot_p50"
    """Column of the stellar mass, as a logarithm."""
    magnitudes: tuple[str, ...] = ("modelMag_g", "modelMag_r", "modelMag_i")
    """Magnitude columns in order of wavelength; neighbours make the colours, which alone are taken."""

    def __post_init__(self) -> None:
        require(len(self.magnitudes) >= 2, "name at least two magnitude columns, for their colour")

    @property
    def catalogue_columns(self) -> tuple[str, ...]:
        """Return the mass and the magnitudes."""
        return (self.mass, *self.magnitudes)

    def check(self, given: Given) -> None:
        """Raise ValueError if the mass is a label: the control would be told what it is to find."""
        named = [name for name, target in given.targets.items() if self.mass in target.columns]
        require(
            not named,
            f"features {self.name!r}: its mass {self.mass!r} is a column of targets {named}; leave this control out",
        )

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield the one table."""
        yield from survey_table(planner, BaselineSpec(baseline=self))

    def build(self, target: Target | None, task: Task) -> Metrics:  # noqa: ARG002
        """Write the feature table; return numbers about it."""
        return build_of_columns(self, task)

    def features(self, catalog: "pd.DataFrame") -> "pd.DataFrame":
        """Return the mass and the colours of neighbouring bands, every value finite: see `filled_columns`."""
        columns = filled_columns(catalog, self.catalogue_columns, self.name)
        return columns[[self.mass]].assign(**colours(columns, self.magnitudes))

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return the identity: features are the columns themselves."""
        return identity_of(inputs)


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Control: no features at all, so that every probe predicts the mean of the training rows."""

    traits: ClassVar[Traits] = Traits(
        label="mean",
        noun="features",
        role="control",
        supervised=False,
        can_be_decomposed=False,
        is_ordered=False,
        is_sparse=False,
        rank=10,
        look=Look(colors=(BLACK, GREY, PURPLE), markers=("*", "X", "d", "h"), linestyles=("-", ":")),
    )

    name: str = "mean"
    """Names its results, and its rows in every table."""
    kind: Literal["mean"] = "mean"

    def check(self, given: Given) -> None:
        """Refer to nothing else of the experiment."""

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield the one table."""
        yield from survey_table(planner, BaselineSpec(baseline=self))

    def build(self, target: Target | None, task: Task) -> Metrics:  # noqa: ARG002
        """Write a feature table without columns; return that number."""
        import numpy as np

        from sfnetlab.artifacts import read_survey, write_dense_features, write_rows

        catalog = read_survey(task.inputs["survey"]).catalog
        write_rows(task.work, catalog)
        write_dense_features(task.work, np.empty((len(catalog), 0)))
        return {"n_features": 0}

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return the identity: features are nothing at all."""
        return identity_of(inputs)


def survey_table(planner: Planner, baseline: BaselineSpec) -> Iterator[Table]:
    """Yield the one table of a control that reads the survey alone."""
    settings = baseline.baseline
    spec = TableSpec(features=settings.name, kind=settings.kind, k=None, seed=None)
    yield Table(spec=spec, job=planner.job("fit-baselines", spec.name, baseline, {"survey": planner.survey}))


def build_of_columns(settings: "Photometry | MassAndColour", task: Task) -> Metrics:
    """Write the feature table of a control that is made of columns; return numbers about it."""
    from sfnetlab.artifacts import read_survey

    catalog = read_survey(task.inputs["survey"]).catalog
    n_filled = int(catalog[list(settings.catalogue_columns)].isna().any(axis=1).sum())
    return {**write_control(task.work, catalog, settings.features(catalog)), "n_filled": n_filled}


def write_control(work: Path, catalog: "pd.DataFrame", features: "pd.DataFrame") -> Metrics:
    """Write the feature table of a control, and what its columns are called; return how many these are."""
    from sfnetlab.artifacts import FORMAT, write_dense_features, write_rows

    (work / "model.json").write_text(json.dumps({"format": FORMAT, "columns": list(features.columns)}))
    write_rows(work, catalog)
    write_dense_features(work, features.to_numpy())
    return {"n_features": features.shape[1]}


def filled_columns(catalog: "pd.DataFrame", columns: tuple[str, ...], name: str) -> "pd.DataFrame":
    """Return columns of the catalogue for the features `name`, as numbers of which every one is finite.

    Where one was not measured, it is the median of the train galaxies that have it. Their number is warned of, and
    stands as `n_filled` in the result's metrics.

    Raises
    ------
    DataError
        If a column is missing, text, or known for no train galaxy.
    """
    import pandas as pd

    from sfnetlab.surveys.catalog import columns_as_floats

    where = f"features {name!r}"
    values = columns_as_floats(catalog, columns, where)
    features = pd.DataFrame(dict(zip(columns, values, strict=True)), index=catalog.index)
    medians = features[catalog["split"] == "train"].median()
    if unknown := medians.index[medians.isna()].tolist():
        raise DataError(f"{where}: no train galaxy has a value of {', '.join(unknown)}; leave such columns out")
    n_filled = features.isna().sum()
    if n_filled.any():
        counts = ", ".join(f"{column} {n:,}" for column, n in n_filled[n_filled > 0].items())
        log.warning(
            "%s: of %d galaxies some lack photometry, which gets the median of train galaxies: %s",
            where, len(features), counts,
        )  # fmt: skip
    return features.fillna(medians)


def colours(features: "pd.DataFrame", magnitudes: tuple[str, ...]) -> "dict[str, pd.Series[float]]":
    """Return the differences of neighbouring magnitudes, by names such as "g - r"."""
    return {f"{blue} - {red}": features[blue] - features[red] for blue, red in pairwise(magnitudes)}
