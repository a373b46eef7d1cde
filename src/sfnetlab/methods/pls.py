"""Partial least squares of an embedding on a target: PCA's supervised control."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Table, TableSpec, Task
from sfnetlab.methods.contract import (
    GREEN,
    GREY,
    PURPLE,
    Given,
    Look,
    Planner,
    Reader,
    Traits,
    WidthOf,
    require_embedding,
    require_target,
)
from sfnetlab.methods.decompositions import Fitted, build_decomposition, decomposition_tables, too_many_components
from sfnetlab.methods.readers import affine_of
from sfnetlab.settings import Target, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sfnetlab.artifacts import SurveyTable


@dataclass(frozen=True, kw_only=True)
class PLS:
    """Partial least squares of an encoder's embeddings on a target, fitted on train rows: PCA's supervised control."""

    traits: ClassVar[Traits] = Traits(
        label="PLS",
        noun="components",
        role="decomposition",
        supervised=True,
        can_be_decomposed=False,
        is_ordered=True,
        is_sparse=False,
        rank=70,
        look=Look(colors=(PURPLE, GREEN, GREY), markers=("P", "s", "p", "X"), linestyles=("-.", ":")),
    )

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["pls"] = "pls"
    on: str
    """The encoder, or the external embeddings, to decompose."""
    target: str
    """Which of [targets] the components are to covary with."""
    n_components: int = 8
    """Components kept; the probes use the first k of them."""

    def __post_init__(self) -> None:
        require(self.n_components >= 1, f"n_components must be at least 1, got {self.n_components}")

    def check(self, given: Given) -> None:
        """Raise ValueError unless the experiment has the target and the embedding."""
        require_target(self.name, self.target, given)
        require_embedding(self.name, self.on, given)

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield a table for each embedding."""
        yield from decomposition_tables(planner, self, self.on, target=self.target)

    def build(self, target: Target | None, task: Task) -> Metrics:
        """Write the feature table of all rows; return numbers about it."""
        return build_decomposition(self, target, task)

    def fit(self, x: "NDArray[np.float64]", y: "NDArray[np.float64] | None") -> Fitted:
        """Return the rotations (d, n_components) of PLS2 regression of labels y (n, m) on train rows x (n, d).

        As for PCA, embeddings are centred and not scaled. Labels are brought to unit variance, for otherwise the unit
        of one would decide. Components are in the order in which they are found, and the first k are those of a PLS
        of k components.

        Raises
        ------
        DataError
            If there are not as many components: more than rows or dimensions, a constant label, or nothing left to
            explain.
        """
        import numpy as np
        from sklearn.cross_decomposition import PLSRegression

        assert y is not None, "the plan gives PLS a target"
        where = f"features {self.name!r}"
        if self.n_components > min(x.shape):
            raise DataError(
                f"{where}: n_components must be at most {min(x.shape)} ({x.shape[0]} train rows with target "
                f"{self.target!r}, of {x.shape[1]} dimensions), got {self.n_components}"
            )
        spread = y.std(axis=0)
        if np.any(spread == 0):
            raise DataError(f"{where}: target {self.target!r} is constant on the {len(y)} train rows")
        pls = PLSRegression(self.n_components, scale=False, max_iter=5000)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "y residual is constant")  # said below, as an error
            pls.fit(x, (y - y.mean(axis=0)) / spread)
        n_found = int(np.count_nonzero(np.any(pls.x_weights_ != 0, axis=0)))
        if n_found < self.n_components or not np.isfinite(pls.x_rotations_).all():
            raise DataError(
                f"{where}: after {n_found} components nothing is left to explain of target {self.target!r}; "
                f"set n_components = {n_found}"
            )
        model = {"rotations": pls.x_rotations_, "mean": x.mean(axis=0)}
        return Fitted(model, {"n_features": self.n_components, "n_train": len(x)})

    def lacking(self, survey: "SurveyTable", width_of: WidthOf) -> Iterator[str]:
        """Yield what a survey lacks: as many train rows and dimensions as components."""
        n_rows = int((survey.catalog["split"] == "train").sum())
        yield from too_many_components(self, self.on, n_rows, width_of)

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return what projects embeddings on the rotations."""
        return affine_of(inputs)
