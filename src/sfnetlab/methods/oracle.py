"""Control for mock surveys: what the true factors of a galaxy tell of a label."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Table, TableSpec, Task
from sfnetlab.methods.contract import BLACK, GREY, PURPLE, Given, Look, Planner, Reader, Traits, require_target
from sfnetlab.methods.controls import survey_table, write_control
from sfnetlab.methods.readers import identity_of
from sfnetlab.settings import Target, require

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingRegressor

FACTOR = "factor_"
"""Columns of a mock survey that begin so are what made the image."""


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """Control: labels as gradient boosting predicts them from the true factors of mock galaxies. Supervised.

    The boosting is fitted to a large draw of other galaxies of the mock population, so its predictions are as good as
    those of any method that reads all factors off the image without an error.
    """

    traits: ClassVar[Traits] = Traits(
        label="oracle",
        noun="predictions",
        role="control",
        supervised=True,
        can_be_decomposed=False,
        is_ordered=False,
        is_sparse=False,
        rank=28,
        look=Look(colors=(BLACK, GREY, PURPLE), markers=("h", "d", "X", "P"), linestyles=(":", "-")),
    )

    name: str = "oracle"
    """Names its results, and its rows in every table."""
    kind: Literal["oracle"] = "oracle"
    target: str
    """One of [targets]: the labels that are predicted, a feature each."""
    n_galaxies: int = 36_000
    """How many galaxies are drawn to learn from; no image of them is made."""
    seed: int = 1_000_003
    """Seed of this draw, another one than the survey's."""

    def __post_init__(self) -> None:
        require(self.n_galaxies >= 100, f"n_galaxies must be at least 100, got {self.n_galaxies}")

    def check(self, given: Given) -> None:
        """Raise ValueError unless the experiment has the target, and mock galaxies."""
        require(
            not given.is_real,
            f"features {self.name!r}: nobody knows the true factors of real galaxies; leave it out, or use survey "
            f'kind = "mock"',
        )
        require_target(self.name, self.target, given)

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield the one table."""
        yield from survey_table(planner, self, self.target)

    def build(self, target: Target | None, task: Task) -> Metrics:
        """Write the feature table; return numbers about it.

        Raises
        ------
        DataError
            If the survey was drawn with the same seed, or the target cannot be learnt of the draw.
        """
        import pandas as pd

        from sfnetlab.artifacts import read_survey

        assert target is not None, "the plan gives the oracle a target"
        survey = read_survey(task.inputs["survey"])
        catalog = survey.catalog
        assert survey.pixel_scale_arcsec is not None, "a mock survey knows its scale"
        fresh = self._draw(survey.pixel_scale_arcsec * survey.cutouts.shape[1], target)
        if set(fresh["id_str"]) & set(catalog["id_str"]):
            raise DataError(f"features {self.name!r}: seed {self.seed} is that of the survey; choose another one")
        names = [name for name in catalog.columns if name.startswith(FACTOR)]
        predictions = {
            column: boosting().fit(fresh[names], fresh[column]).predict(catalog[names]) for column in target.columns
        }
        metrics = write_control(task.work, catalog, pd.DataFrame(predictions, index=catalog.index))
        return {**metrics, "n_train": len(fresh)}

    def _draw(self, field_arcsec: float, target: Target) -> "pd.DataFrame":
        """Other galaxies that have the target."""
        from sfnetlab.settings import CatalogColumns
        from sfnetlab.surveys.catalog import add_line_logs, target_rows
        from sfnetlab.surveys.columns import measured
        from sfnetlab.surveys.mock_population import make_population

        drawn, _ = measured(make_population(self.n_galaxies, self.seed, field_arcsec), CatalogColumns(), "fresh draw")
        drawn = add_line_logs(drawn)
        return drawn[target_rows(drawn, target, f"features {self.name!r}: {self.n_galaxies:,} other galaxies")]

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return the identity: features are the predictions themselves."""
        return identity_of(inputs)


def boosting() -> "HistGradientBoostingRegressor":
    """Return the regressor of the oracle: boosted trees, flexible enough for interactions of several factors."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=400, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=30, random_state=0
    )
