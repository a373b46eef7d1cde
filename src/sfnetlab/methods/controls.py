"""Controls: what is known of a galaxy without looking at its image."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Table, TableSpec, Task
from sfnetlab.methods.contract import BLACK, GREY, PURPLE, Given, Look, Planner, Reader, Traits, WidthOf
from sfnetlab.methods.decompositions import BaselineSpec
from sfnetlab.methods.readers import identity_of
from sfnetlab.settings import Target, require

if TYPE_CHECKING:
    import pandas as pd

    from sfnetlab.artifacts import SurveyTable


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
        return {"n_features": features.shape[1]}

    def lacking(self, survey: "SurveyTable", width_of: WidthOf) -> Iterator[str]:  # noqa: ARG002
        """Yield what is wrong with the columns of the catalogue."""
        try:
            self.features(survey.catalog)
        except DataError as error:
            yield str(error)

    def features(self, catalog: "pd.DataFrame") -> "pd.DataFrame":
        """Return magnitudes, the colours of neighbouring bands, and sizes; every value must be finite.

        Raises
        ------
        DataError
            If a column is missing or holds a value that is not finite.
        """
        import numpy as np

        wanted = [*self.magnitudes, *self.sizes]
        absent = [name for name in wanted if name not in catalog]
        if absent:
            raise DataError(
                f"features {self.name!r}: the catalogue has no column {', '.join(absent)}; "
                f"name its own with magnitudes = [...] and sizes = [...]"
            )
        features = catalog[wanted].astype(np.float64)
        bad = ~np.isfinite(features.to_numpy())
        if bad.any():
            worst = int(bad.sum(axis=0).argmax())
            raise DataError(
                f"features {self.name!r}: {int(bad.any(axis=1).sum())} of {len(catalog)} galaxies have photometry that "
                f"is not finite (most in {wanted[worst]}: {int(bad[:, worst].sum())}); leave such columns or galaxies "
                f"out"
            )
        for blue, red in zip(self.magnitudes, self.magnitudes[1:], strict=False):
            features[f"{blue} - {red}"] = catalog[blue] - catalog[red]
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
