"""Controls: what is known of a galaxy without looking at its image."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
        yield from catalogue_table(planner, self)

    def build(self, target: Target | None, task: Task) -> Metrics:  # noqa: ARG002
        """Write the feature table; return numbers about it."""
        from sfnetlab.artifacts import FORMAT, read_survey, write_dense_features, write_rows

        catalog = read_survey(task.inputs["survey"]).catalog
        features = self.features(catalog)
        (task.work / "model.json").write_text(json.dumps({"format": FORMAT, "columns": list(features.columns)}))
        write_rows(task.work, catalog)
        write_dense_features(task.work, features.to_numpy())
        n_filled = int(catalog[list(self.catalogue_columns)].isna().any(axis=1).sum())
        return {"n_features": features.shape[1], "n_filled": n_filled}

    def features(self, catalog: "pd.DataFrame") -> "pd.DataFrame":
        """Return magnitudes, the colours of neighbouring bands, and sizes, every value finite.

        Where a magnitude or size was not measured, it is the median of the train galaxies that have it. Their number is
        warned of, and stands as `n_filled` in the result's metrics.

        Raises
        ------
        DataError
            If a column is missing, text, or known for no train galaxy.
        """
        import pandas as pd

        from sfnetlab.surveys.catalog import columns_as_floats

        where = f"features {self.name!r}"
        values = columns_as_floats(catalog, self.catalogue_columns, where)
        features = pd.DataFrame(dict(zip(self.catalogue_columns, values, strict=True)), index=catalog.index)
        medians = features[catalog["split"] == "train"].median()
        if unknown := medians.index[medians.isna()].tolist():
            raise DataError(f"{where}: no train galaxy has a value of {', '.join(unknown)}; leave such columns out")
        n_filled = features.isna().sum()
        if n_filled.any():
            counts = ", ".join(f"{name} {n:,}" for name, n in n_filled[n_filled > 0].items())
            log.warning(
                "%s: of %d galaxies some lack photometry, which gets the median of train galaxies: %s",
                where, len(features), counts,
            )  # fmt: skip
        features = features.fillna(medians)
        for blue, red in zip(self.magnitudes, self.magnitudes[1:], strict=False):
            features[f"{blue} - {red}"] = features[blue] - features[red]
        return features

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
        yield from catalogue_table(planner, self)

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


def catalogue_table(planner: Planner, settings: Photometry | Mean) -> Iterator[Table]:
    """Yield the table of a control that reads the catalogue alone."""
    spec = TableSpec(features=settings.name, kind=settings.kind, k=None, seed=None)
    baseline = BaselineSpec(baseline=settings)
    yield Table(spec=spec, job=planner.job("fit-baselines", spec.name, baseline, {"survey": planner.survey}))
