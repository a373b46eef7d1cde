"""What affine decompositions of an embedding share: the jobs that fit them, and how they are fitted and written."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Run, Table, TableSpec, Task
from sfnetlab.methods.contract import Baseline, Planner, WidthOf, runs_on
from sfnetlab.methods.readers import AffineReader, affine_reader
from sfnetlab.settings import Target

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from sfnetlab.artifacts import FeatureTable

log = logging.getLogger(__name__)

LARGE = 2**25
"""Values of train rows, (number of rows) x (width), above which they are not held together: PCA then takes their
covariance, which is summed in blocks, and other methods are fitted to as many rows as are allowed, spread evenly."""


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


class Moments(NamedTuple):
    """What principal components need to know of rows."""

    n: int
    mean: "NDArray[np.float64]"
    """(d,)"""
    covariance: "NDArray[np.float64]"
    """(d, d), with n - 1 as divisor."""


class Decomposition(Baseline, Protocol):
    """A method that fits an affine map to train rows."""

    @property
    def n_components(self) -> int:
        """How many features it has."""
        ...

    def fit(self, x: "NDArray[np.float64]", y: "NDArray[np.float64] | None") -> Fitted:
        """Return the model of train rows x (n, d), and of their labels y (n, m) if it has a target."""
        ...


@runtime_checkable
class FitsMoments(Protocol):
    """A decomposition that needs no more of the rows than their mean and covariance."""

    def fit_moments(self, moments: Moments) -> Fitted:
        """Return the model of train rows with these moments."""
        ...


def decomposition_tables(
    planner: Planner, settings: Decomposition, on: str, number: int = 0, *, target: str | None = None
) -> Iterator[Table]:
    """Yield a table for each table of the embedding `on`; the survey is read only for a target.

    Parameters
    ----------
    number
        Which of the runs on each encoder this is.

    Raises
    ------
    ConfigError
        If it is not the first and the encoder has no seeds, see `contract.runs_on`.
    """
    spec = BaselineSpec(baseline=settings, target=None if target is None else planner.target(target))
    for embedding in planner.embedding(on):
        runs_on(embedding, settings.name, number + 1)
        seed = embedding.spec.seed if embedding.spec.seed is None else Run(embedding.spec.seed, number).seed
        table = TableSpec(features=settings.name, kind=settings.kind, k=None, seed=seed)
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

    from sfnetlab.artifacts import FORMAT, FeatureTable, read_embedding, write_dense_features, write_rows
    from sfnetlab.files import create_array

    rows, embedding = read_embedding(task.inputs["embedding"])
    if target is None:
        train, y = np.flatnonzero(rows["split"] == "train"), None
    else:
        train, y = _labelled(target, task, FeatureTable(rows, embedding))
    if len(train) and all(
        (embedding[block] == embedding[train[0]]).all() for block in _blocks(train, embedding.shape[1])
    ):
        raise DataError(
            f"features {settings.name!r}: all {len(train)} train rows of the embedding are the same: there is nothing "
            f"to decompose"
        )
    fitted = _fitted(settings, task.job.name, embedding, train, y)
    reader = affine_reader(fitted.model)
    write_rows(task.work, rows)
    is_large = len(train) * embedding.shape[1] > LARGE
    if is_large:
        features = create_array(task.work / "features.npy", (len(rows), settings.n_components), "float32")
        for block in _blocks(np.arange(len(rows)), embedding.shape[1]):
            features[block] = reader.encode(embedding[block])
    else:
        scores = reader.encode(embedding)
        write_dense_features(task.work, scores)
    # Arrays in column order would be written as if they were in rows.
    model = {name: np.ascontiguousarray(values) for name, values in fitted.model.items()}
    (task.work / "model.safetensors").write_bytes(save(model))
    (task.work / "model.json").write_text(json.dumps({"format": FORMAT, "n_components": settings.n_components}))
    if reader.components is not None:
        split = rows["split"].to_numpy()
        fvus = _fvus_in_blocks(reader, split, embedding) if is_large else _fvus(reader, split, embedding, scores)
        fvus.to_parquet(task.work / "reconstruction.parquet", index=False)
    return fitted.metrics


def _labelled(target: Target, task: Task, table: "FeatureTable") -> "tuple[NDArray[np.intp], NDArray[np.float64]]":
    """Places in a table of the train rows that have the target, and their labels."""
    import numpy as np

    from sfnetlab.artifacts import read_survey
    from sfnetlab.surveys.catalog import target_rows, taught_rows

    catalog = read_survey(task.inputs["survey"]).catalog
    labelled = catalog[target_rows(catalog, target, str(task.inputs["survey"])) & taught_rows(catalog)]
    y = labelled[list(target.columns)].to_numpy(dtype=np.float64, na_value=np.nan)
    return table.places(labelled["id_str"]), y


def _fitted(
    settings: Decomposition,
    name: str,
    embedding: "NDArray[np.float32]",
    train: "NDArray[np.intp]",
    y: "NDArray[np.float64] | None",
) -> Fitted:
    """The model of the train rows: see `LARGE`."""
    import numpy as np

    from sfnetlab.metrics.tables import evenly

    d = embedding.shape[1]
    if len(train) * d > LARGE and isinstance(settings, FitsMoments):
        return settings.fit_moments(_moments(embedding, train))
    chosen = evenly(np.arange(len(train)), LARGE // d)
    if len(chosen) < len(train):
        log.warning("%s: fitted to %d of %d train rows, spread evenly over all", name, len(chosen), len(train))
        train, y = train[chosen], None if y is None else y[chosen]
    return settings.fit(embedding[train].astype(np.float64), y)


def _blocks(places: "NDArray[np.intp]", d: int) -> "Iterator[NDArray[np.intp]]":
    from sfnetlab.metrics.tables import row_slices

    yield from (places[rows] for rows in row_slices((len(places), d)))


def _moments(embedding: "NDArray[np.float32]", places: "NDArray[np.intp]") -> Moments:
    """Moments of some rows, in two passes, so that a large mean costs no digits."""
    import numpy as np

    n, d = len(places), embedding.shape[1]
    mean = sum((embedding[block].sum(axis=0, dtype=np.float64) for block in _blocks(places, d)), np.zeros(d)) / n
    products = np.zeros((d, d))
    for block in _blocks(places, d):
        centred = embedding[block] - mean
        products += centred.T @ centred
    return Moments(n, mean, products / (n - 1))


def _fvus(
    reader: AffineReader,
    split: "NDArray[np.str_]",
    embedding: "NDArray[np.float32]",
    scores: "NDArray[np.floating]",
) -> "pd.DataFrame":
    """FVU against the number of components kept."""
    import numpy as np
    import pandas as pd

    from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained

    components = reader.components
    assert components is not None
    table = []
    for part in ("train", "valid", "test"):
        chosen = np.flatnonzero(split == part)
        x = np.asarray(embedding[chosen], dtype=np.float64)
        for k in _counts(len(components)):
            x_hat = scores[chosen, :k] @ components[:k] + reader.mean
            table.append({"k": k, "split": part, "fvu": fraction_of_variance_unexplained(x, x_hat)})
    return pd.DataFrame(table)


def _fvus_in_blocks(
    reader: AffineReader, split: "NDArray[np.str_]", embedding: "NDArray[np.float32]"
) -> "pd.DataFrame":
    """What `_fvus` returns, with a few rows held at a time."""
    import numpy as np
    import pandas as pd

    from sfnetlab.metrics.dictionary import fvu_of_blocks

    components = reader.components
    assert components is not None
    counts = _counts(len(components))

    def nested(x: "NDArray[np.float32]", components: "NDArray[np.float64]") -> "NDArray[np.float64]":
        scores = reader.encode(x)
        return np.stack([scores[:, :k] @ components[:k] + reader.mean for k in counts], axis=1)

    table: list[dict[str, object]] = []
    for part in ("train", "valid", "test"):
        blocks = _blocks(np.flatnonzero(split == part), len(counts) * embedding.shape[1])
        fvus = fvu_of_blocks((x, nested(x, components)) for x in (embedding[block] for block in blocks))
        table += [{"k": k, "split": part, "fvu": fvu} for k, fvu in zip(counts, fvus, strict=True)]
    return pd.DataFrame(table)


def _counts(n_components: int) -> list[int]:
    """Numbers of components: powers of two, and all."""
    return sorted({2**power for power in range(n_components.bit_length())} | {n_components})
