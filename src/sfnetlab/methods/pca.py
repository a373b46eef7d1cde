"""Principal components of an embedding."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Table, TableSpec, Task
from sfnetlab.methods.contract import (
    GREEN,
    GREY,
    SKY,
    Given,
    Look,
    Planner,
    Reader,
    Traits,
    WidthOf,
    require_embedding,
)
from sfnetlab.methods.decompositions import (
    Fitted,
    Moments,
    build_decomposition,
    decomposition_tables,
    too_many_components,
)
from sfnetlab.methods.readers import affine_of
from sfnetlab.settings import Target, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sfnetlab.artifacts import SurveyTable


@dataclass(frozen=True, kw_only=True)
class PCA:
    """Principal components of an encoder's embeddings, fitted on train rows. Unsupervised."""

    traits: ClassVar[Traits] = Traits(
        label="PCA",
        noun="components",
        role="decomposition",
        supervised=False,
        can_be_decomposed=False,
        is_ordered=True,
        is_sparse=False,
        rank=60,
        look=Look(colors=(GREEN, GREY, SKY), markers=("s", "P", "X", "p"), linestyles=(":", "-.")),
    )

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["pca"] = "pca"
    on: str
    """The encoder, or the external embeddings, to decompose."""
    n_components: int = 32
    """Components kept; the probes use the first k of them."""

    def __post_init__(self) -> None:
        require(self.n_components >= 1, f"n_components must be at least 1, got {self.n_components}")

    def check(self, given: Given) -> None:
        """Raise ValueError unless the experiment has the embedding."""
        require_embedding(self.name, self.on, given)

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield a table for each embedding."""
        yield from decomposition_tables(planner, self, self.on)

    def build(self, target: Target | None, task: Task) -> Metrics:
        """Write the feature table of all rows; return numbers about it."""
        return build_decomposition(self, target, task)

    def fit(self, x: "NDArray[np.float64]", y: "NDArray[np.float64] | None") -> Fitted:  # noqa: ARG002
        """Return the components of train rows x (n, d), by a full singular value decomposition.

        Of more than `decompositions.LARGE` values `fit_moments` is asked instead.

        Raises
        ------
        DataError
            If there are more components than rows or dimensions.
        """
        from sklearn import decomposition

        self._require_enough(*x.shape)
        pca = decomposition.PCA(self.n_components, svd_solver="full").fit(x)
        model = {"components": pca.components_, "mean": pca.mean_, "explained_variance": pca.explained_variance_}
        return Fitted(model, {"explained_variance_ratio": float(pca.explained_variance_ratio_.sum())})

    def fit_moments(self, moments: Moments) -> Fitted:
        """Return the same components from the moments of the train rows; they differ by rounding alone.

        Raises
        ------
        DataError
            As `fit`.
        """
        import numpy as np
        from scipy.linalg import eigh

        n, mean, covariance = moments
        self._require_enough(n, len(mean))
        variances, vectors = eigh(covariance)
        components = np.asarray(vectors)[:, ::-1].T[: self.n_components]
        # scikit-learn's signs: the largest entry of each component is positive
        largest = np.abs(components).argmax(axis=1)
        components = components * np.sign(components[np.arange(len(components)), largest])[:, None]
        explained = np.maximum(np.asarray(variances)[::-1][: self.n_components], 0)
        model = {"components": components, "mean": mean, "explained_variance": explained}
        return Fitted(model, {"explained_variance_ratio": float(explained.sum() / np.trace(covariance))})

    def _require_enough(self, n: int, d: int) -> None:
        if self.n_components > min(n, d):
            raise DataError(
                f"features {self.name!r}: n_components must be at most {min(n, d)} "
                f"({n} train rows of {d} dimensions), got {self.n_components}"
            )

    def lacking(self, survey: "SurveyTable", width_of: WidthOf) -> Iterator[str]:
        """Yield what a survey lacks: as many train rows and dimensions as components."""
        n_rows = int((survey.catalog["split"] == "train").sum())
        yield from too_many_components(self, self.on, n_rows, width_of)

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return what projects embeddings on the components."""
        return affine_of(inputs)
