"""What affine decompositions of an embedding share: the jobs that fit them, and how they are fitted and written."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Table, TableSpec, Task
from sfnetlab.methods.contract import Baseline, Planner, WidthOf
from sfnetlab.methods.readers import AffineReader, affine_reader
from sfnetlab.settings import Target

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class BaselineSpec:
    """Make features that need no network of ours."""

    baseline: Baseline
    target: Target | None = None
    """What supervised components are to covary with."""


class Fitted(NamedTuple):
    """Arrays of a fitted decomposition, as `readers.affine_reader` wants them, and numbers about the fit."""

    model: "dict[str, NDArray[np.float64]]"
    metrics: Metrics


class Decomposition(Baseline, Protocol):
    """A method that fits an affine map to train rows."""

    @property
    def n_components(self) -> int:
        """How many features it has."""
        ...

    def fit(self, x: "NDArray[np.float64]", y: "NDArray[np.float64] | None") -> Fitted:
        """Return the model of train rows x (n, d), and of their labels y (n, m) if it has a target."""
        ...


def decomposition_tables(
    planner: Planner, settings: Decomposition, on: str, target: str | None = None
) -> Iterator[Table]:
    """Yield a table for each table of the embedding `on`; the survey is read only for a target."""
    spec = BaselineSpec(baseline=settings, target=None if target is None else planner.target(target))
    for embedding in planner.embedding(on):
        table = TableSpec(features=settings.name, kind=settings.kind, k=None, seed=embedding.spec.seed)
        inputs = {"embedding": embedding.job}
        if target is not None:
            inputs = {"survey": planner.survey} | inputs
        yield Table(spec=table, job=planner.job("fit-baselines", table.name, spec, inputs), on=embedding)


def too_many_components(settings: Decomposition, on: str, n_rows: int, width_of: WidthOf) -> Iterator[str]:
    """Yield a sentence where there are more components than train rows, or than columns of the embedding `on`."""
    width = width_of(on)
    most = n_rows if width is None else min(n_rows, width)
    if settings.n_components > most:
        columns = "" if width is None else f" of {width} dimensions"
        yield (
            f"features {settings.name!r}: n_components must be at most {most} ({n_rows} train rows{columns}), "
            f"got {settings.n_components}"
        )


def build_decomposition(settings: Decomposition, target: Target | None, task: Task) -> Metrics:
    """Fit to the train rows, those that have the target if there is one, and write the features of all rows.

    `model.safetensors` gets the model, `reconstruction.parquet` the fraction of variance unexplained by part of the
    split and number of components, where components make the embedding again.

    Raises
    ------
    DataError
        If all train rows are the same, or the method cannot be fitted to them.
    """
    import numpy as np
    from safetensors.numpy import save

    from sfnetlab.artifacts import FORMAT, read_embedding, write_dense_features, write_rows

    rows, embedding = read_embedding(task.inputs["embedding"])
    if target is None:
        train, y = embedding[np.flatnonzero(rows["split"] == "train")].astype(np.float64), None
    else:
        train, y = _labelled(target, task, rows, embedding)
    if len(train) and (train == train[0]).all():
        raise DataError(
            f"features {settings.name!r}: all {len(train)} train rows of the embedding are the same: there is nothing "
            f"to decompose"
        )
    fitted = settings.fit(train, y)
    reader = affine_reader(fitted.model)
    scores = reader.encode(embedding)
    write_rows(task.work, rows)
    write_dense_features(task.work, scores)
    # Arrays in column order would be written as if they were in rows.
    model = {name: np.ascontiguousarray(values) for name, values in fitted.model.items()}
    (task.work / "model.safetensors").write_bytes(save(model))
    (task.work / "model.json").write_text(json.dumps({"format": FORMAT, "n_components": settings.n_components}))
    if reader.components is not None:
        reconstruction = _reconstruction(reader, rows["split"].to_numpy(), embedding, scores)
        reconstruction.to_parquet(task.work / "reconstruction.parquet", index=False)
    return fitted.metrics


def _labelled(
    target: Target, task: Task, rows: "pd.DataFrame", embedding: "NDArray[np.float32]"
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Embeddings and labels of the train rows that have the target."""
    import numpy as np

    from sfnetlab.artifacts import FeatureTable, read_survey
    from sfnetlab.surveys.catalog import target_rows

    catalog = read_survey(task.inputs["survey"]).catalog
    labelled = catalog[target_rows(catalog, target, str(task.inputs["survey"])) & (catalog["split"] == "train")]
    train = np.asarray(FeatureTable(rows, embedding).of(labelled["id_str"]), dtype=np.float64)
    return train, labelled[list(target.columns)].to_numpy(dtype=np.float64, na_value=np.nan)


def _reconstruction(
    reader: AffineReader,
    split: "NDArray[np.str_]",
    embedding: "NDArray[np.float32]",
    scores: "NDArray[np.floating]",
) -> "pd.DataFrame":
    """FVU against the number of components kept: powers of two, and all."""
    import numpy as np
    import pandas as pd

    from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained

    components = reader.components
    assert components is not None
    counts = sorted({2**power for power in range(len(components).bit_length())} | {len(components)})
    table = []
    for part in ("train", "valid", "test"):
        chosen = np.flatnonzero(split == part)
        x = np.asarray(embedding[chosen], dtype=np.float64)
        for k in counts:
            x_hat = scores[chosen, :k] @ components[:k] + reader.mean
            table.append({"k": k, "split": part, "fvu": fraction_of_variance_unexplained(x, x_hat)})
    return pd.DataFrame(table)
