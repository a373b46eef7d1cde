"""Control: what can be measured on an image without a network."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Table, TableSpec, Task
from sfnetlab.methods.contract import BLACK, GREY, PURPLE, Given, Look, Planner, Reader, Traits, WidthOf
from sfnetlab.methods.controls import survey_table, write_control
from sfnetlab.methods.decompositions import BaselineSpec
from sfnetlab.methods.readers import identity_of
from sfnetlab.settings import Target

if TYPE_CHECKING:
    from sfnetlab.artifacts import SurveyTable


@dataclass(frozen=True, kw_only=True)
class PixelStatistics:
    """Control: thirty numbers of each cutout: fluxes and colours in rings, sizes, concentrations, asymmetry, Gini."""

    traits: ClassVar[Traits] = Traits(
        label="pixel statistics",
        noun="statistics",
        role="control",
        supervised=False,
        can_be_decomposed=False,
        is_ordered=False,
        is_sparse=False,
        needs_images=True,
        rank=25,
        look=Look(colors=(PURPLE, GREY, BLACK), markers=("p", "*", "X", "P"), linestyles=(":", "-.")),
    )

    name: str = "pixel_statistics"
    """Names its results, and its rows in every table."""
    kind: Literal["pixel_statistics"] = "pixel_statistics"

    def check(self, given: Given) -> None:
        """Refer to nothing else of the experiment."""

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield the one table."""
        yield from survey_table(planner, BaselineSpec(baseline=self))

    def lacking(self, survey: "SurveyTable", width_of: WidthOf) -> Iterator[str]:  # noqa: ARG002
        """Yield what a survey lacks: square cutouts that are large enough."""
        from sfnetlab.metrics.pixel_statistics import SMALLEST_SIDE

        height, width = survey.cutouts.shape[1:3]
        if height != width or width < SMALLEST_SIDE:
            yield (
                f"features {self.name!r}: cutouts must be square, of at least {SMALLEST_SIDE} px a side; these have "
                f"{width} x {height} px: store larger ones, or leave this control out"
            )

    def build(self, target: Target | None, task: Task) -> Metrics:  # noqa: ARG002
        """Write the feature table: see `metrics.pixel_statistics`.

        Raises
        ------
        DataError
            If cutouts are not square, or too small.
        """
        import pandas as pd

        from sfnetlab.artifacts import read_survey
        from sfnetlab.metrics.pixel_statistics import NAMES, pixel_statistics

        survey = read_survey(task.inputs["survey"])
        for problem in self.lacking(survey, lambda _: None):
            raise DataError(problem)
        features = pd.DataFrame(pixel_statistics(survey.cutouts), columns=list(NAMES))
        return write_control(task.work, survey.catalog, features)

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return the identity: features are the statistics themselves."""
        return identity_of(inputs)
