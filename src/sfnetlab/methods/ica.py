"""Independent components of an embedding."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Table, TableSpec, Task
from sfnetlab.methods.contract import (
    GREEN,
    PURPLE,
    SKY,
    Given,
    Look,
    Planner,
    Reader,
    Traits,
    WidthOf,
    require_embedding,
    require_runs,
)
from sfnetlab.methods.decompositions import Fitted, build_decomposition, decomposition_tables, too_many_components
from sfnetlab.methods.readers import affine_of
from sfnetlab.settings import Target, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sfnetlab.artifacts import SurveyTable

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ICA:
    """Independent components of an encoder's embeddings (FastICA), fitted on train rows. Unsupervised."""

    traits: ClassVar[Traits] = Traits(
        label="ICA",
        noun="components",
        role="decomposition",
        supervised=False,
        can_be_decomposed=False,
        is_ordered=False,
        is_sparse=False,
        rank=65,
        look=Look(colors=(SKY, GREEN, PURPLE), markers=("p", "X", "P", "s"), linestyles=("-.", ":")),
    )

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["ica"] = "ica"
    on: str
    """The encoder, or the external embeddings, to decompose."""
    n_components: int = 32
    """Components: of as many principal components the rotation that makes them least Gaussian."""
    max_iterations: int = 1000
    """Steps of FastICA at most."""
    runs: int = field(default=1, compare=False)
    """Fits on the encoder of each seed, from starts drawn at random; an encoder without seeds has one."""

    def __post_init__(self) -> None:
        require_runs(self.runs)
        require(self.n_components >= 1, f"n_components must be at least 1, got {self.n_components}")
        require(self.max_iterations >= 1, f"max_iterations must be at least 1, got {self.max_iterations}")

    def check(self, given: Given) -> None:
        """Raise ValueError unless the experiment has the embedding."""
        require_embedding(self.name, self.on, given)

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield a table for each run and embedding."""
        for number in range(self.runs):
            restarted = RestartedICA(**asdict(self), start=number) if number else self
            yield from decomposition_tables(planner, restarted, self.on, number)

    def build(self, target: Target | None, task: Task) -> Metrics:
        """Write the feature table of all rows; return numbers about it."""
        return build_decomposition(self, target, task)

    def fit(self, x: "NDArray[np.float64]", y: "NDArray[np.float64] | None") -> Fitted:  # noqa: ARG002
        """Return the components of train rows x (n, d): FastICA with log cosh (Hyvarinen & Oja 2000).

        Components have unit variance on the train rows. Their sign is chosen such that their skewness is positive, and
        those that make more of the embedding's variance come first. The start is drawn with the run's number as seed.

        Raises
        ------
        DataError
            If there are more components than rows or dimensions.
        """
        import numpy as np
        from scipy.stats import skew
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning

        if self.n_components > min(x.shape):
            raise DataError(
                f"features {self.name!r}: n_components must be at most {min(x.shape)} "
                f"({x.shape[0]} train rows of {x.shape[1]} dimensions), got {self.n_components}"
            )
        start = self.start if isinstance(self, RestartedICA) else 0
        ica = FastICA(self.n_components, whiten="unit-variance", max_iter=self.max_iterations, random_state=start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # said below
            sources = ica.fit_transform(x)
        has_converged = ica.n_iter_ < self.max_iterations
        if not has_converged:
            log.warning(
                "features %r: FastICA has not converged after %d steps; raise max_iterations or lower n_components",
                self.name,
                self.max_iterations,
            )
        order = np.argsort(-np.square(ica.mixing_).sum(axis=0), kind="stable")
        signs = np.where(skew(sources, axis=0)[order] < 0, -1.0, 1.0)
        model = {
            "rotations": ica.components_.T[:, order] * signs,
            "components": (ica.mixing_[:, order] * signs).T,
            "mean": ica.mean_,
        }
        return Fitted(model, {"n_iterations": int(ica.n_iter_), "has_converged": int(has_converged)})

    def lacking(self, survey: "SurveyTable", width_of: WidthOf) -> Iterator[str]:
        """Yield what a survey lacks: as many train rows and dimensions as components."""
        n_rows = int((survey.catalog["split"] == "train").sum())
        yield from too_many_components(self, self.on, n_rows, width_of)

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return what projects embeddings on the components."""
        return affine_of(inputs)


@dataclass(frozen=True, kw_only=True)
class RestartedICA(ICA):
    """Independent components from another start."""

    start: int
    """Seed of the start, 1 or more."""
