"""Control for mock surveys: what the true factors of a galaxy tell of a label."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Table, TableSpec, Task
from sfnetlab.methods.contract import BLACK, GREY, PURPLE, Given, Look, Planner, Reader, Traits
from sfnetlab.methods.controls import survey_table, write_control
from sfnetlab.methods.decompositions import BaselineSpec
from sfnetlab.methods.readers import identity_of
from sfnetlab.settings import Target, require

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from sklearn.ensemble import HistGradientBoostingRegressor

FACTOR = "factor_"
"""Columns of a mock survey that begin so are what made the image."""


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """Control: the labels of all targets as gradient boosting predicts them from the true factors of mock galaxies.

    The boosting is fitted to a large draw of other galaxies of the mock population, so its predictions are as good as
    those of any method that reads all factors off the image without an error. It is a bound of methods, and no
    difference from it is tested.
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
    n_galaxies: int = 36_000
    """How many galaxies are drawn to learn from; no image of them is made."""
    seed: int = 1_000_003
    """Seed of this draw, another one than the survey's."""

    def __post_init__(self) -> None:
        require(self.n_galaxies >= 100, f"n_galaxies must be at least 100, got {self.n_galaxies}")

    def check(self, given: Given) -> None:
        """Raise ValueError unless the experiment has mock galaxies, and targets to predict."""
        require(
            not given.is_real,
            f"features {self.name!r}: nobody knows the true factors of real galaxies; leave it out, or use survey "
            f'kind = "mock"',
        )
        require(
            len(given.targets) > 0, f"features {self.name!r}: there are no [targets] to predict; leave this control out"
        )

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield the one table."""
        yield from survey_table(planner, OracleSpec(baseline=self, targets=planner.targets))

    def build(self, target: Target | None, task: Task) -> Metrics:  # noqa: ARG002
        """Write the feature table, a column for each label of each target; return numbers about it.

        Raises
        ------
        DataError
            If the survey was drawn with the same seed, or a target cannot be learnt of the draw.
        """
        import pandas as pd

        from sfnetlab.artifacts import read_survey
        from sfnetlab.surveys.catalog import target_rows

        assert isinstance(task.job.spec, OracleSpec), "the plan gives the oracle the targets"
        survey = read_survey(task.inputs["survey"])
        catalog = survey.catalog
        assert survey.pixel_scale_arcsec is not None, "a mock survey knows its scale"
        fresh = self._draw(survey.pixel_scale_arcsec * survey.cutouts.shape[1])
        if set(fresh["id_str"]) & set(catalog["id_str"]):
            raise DataError(f"features {self.name!r}: seed {self.seed} is that of the survey; choose another one")
        names = [name for name in catalog.columns if name.startswith(FACTOR)]
        predictions: dict[str, NDArray[np.float64]] = {}
        n_train: dict[str, int] = {}
        learnt = set()
        for name, each in task.job.spec.targets.items():
            rows = fresh[target_rows(fresh, each, f"features {self.name!r}: {self.n_galaxies:,} other galaxies")]
            n_train[f"n_train_{name}"] = len(rows)
            for column in each.columns:
                if (label := (column, each.cut, each.max_spreads)) not in learnt:  # what another target has is the same
                    learnt.add(label)
                    regressor = boosting().fit(rows[names], rows[column])
                    predictions[f"{name}: {column}"] = regressor.predict(catalog[names])
        metrics = write_control(task.work, catalog, pd.DataFrame(predictions, index=catalog.index))
        return {**metrics, **n_train}

    def _draw(self, field_arcsec: float) -> "pd.DataFrame":
        """Other galaxies."""
        from sfnetlab.settings import CatalogColumns
        from sfnetlab.surveys.catalog import add_line_logs
        from sfnetlab.surveys.columns import measured
        from sfnetlab.surveys.mock_population import make_population

        drawn, _ = measured(make_population(self.n_galaxies, self.seed, field_arcsec), CatalogColumns(), "fresh draw")
        return add_line_logs(drawn)

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return the identity: features are the predictions themselves."""
        return identity_of(inputs)


@dataclass(frozen=True, kw_only=True)
class OracleSpec(BaselineSpec):
    """Predict the labels of all targets from the true factors of mock galaxies."""

    targets: Mapping[str, Target]


def boosting() -> "HistGradientBoostingRegressor":
    """Return the regressor of the oracle: boosted trees, flexible enough for interactions of several factors."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=400, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=30, random_state=0
    )
