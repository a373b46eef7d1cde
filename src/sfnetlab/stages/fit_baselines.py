"""Stage fit-baselines: feature tables that need no network of ours: PCA and PLS of embeddings, photometry, nothing."""

import json
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import (
    FORMAT,
    FeatureTable,
    Metrics,
    read_embedding,
    read_survey,
    write_dense_features,
    write_rows,
)
from sfnetlab.errors import DataError
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained
from sfnetlab.plan import BaselineSpec
from sfnetlab.runner import Task, stage_main
from sfnetlab.schema import PCA, PLS, Mean, Photometry
from sfnetlab.settings import Target
from sfnetlab.surveys.catalog import target_rows


def build(spec: BaselineSpec, task: Task) -> Metrics:
    match spec.baseline:
        case PCA():
            return _pca(spec.baseline, task)
        case PLS():
            assert spec.target is not None
            return _pls(spec.baseline, spec.target, task)
        case Photometry():
            catalog = read_survey(task.inputs["survey"]).catalog
            features = photometry_features(catalog, spec.baseline)
            (task.work / "model.json").write_text(json.dumps({"format": FORMAT, "columns": list(features.columns)}))
            write_rows(task.work, catalog)
            write_dense_features(task.work, features.to_numpy())
            return {"n_features": features.shape[1]}
        case Mean():
            catalog = read_survey(task.inputs["survey"]).catalog
            write_rows(task.work, catalog)
            write_dense_features(task.work, np.empty((len(catalog), 0)))
            return {"n_features": 0}


def _pca(settings: PCA, task: Task) -> Metrics:
    from safetensors.numpy import save
    from sklearn import decomposition

    rows, embedding = read_embedding(task.inputs["embedding"])
    train = embedding[np.flatnonzero(rows["split"] == "train")]
    largest = min(train.shape)
    if settings.n_components > largest:
        raise DataError(
            f"features {settings.name!r}: n_components must be at most {largest} "
            f"({train.shape[0]} train rows of {train.shape[1]} dimensions), got {settings.n_components}"
        )
    pca = decomposition.PCA(settings.n_components, svd_solver="full").fit(train.astype(np.float64))
    scores = pca.transform(embedding)
    write_rows(task.work, rows)
    write_dense_features(task.work, scores)
    model = {
        # scikit-learn's are in column order, which safetensors would write as if they were in rows.
        "components": np.ascontiguousarray(pca.components_),
        "mean": pca.mean_,
        "explained_variance": pca.explained_variance_,
    }
    (task.work / "model.safetensors").write_bytes(save(model))
    (task.work / "model.json").write_text(json.dumps({"format": FORMAT, "n_components": settings.n_components}))
    _pca_reconstruction(rows["split"].to_numpy(), embedding, scores, pca.components_, pca.mean_).to_parquet(
        task.work / "reconstruction.parquet", index=False
    )
    return {"explained_variance_ratio": float(pca.explained_variance_ratio_.sum())}


def _pca_reconstruction(
    split: NDArray[np.str_],
    embedding: NDArray[np.float32],
    scores: NDArray[np.float64],
    components: NDArray[np.float64],
    mean: NDArray[np.float64],
) -> pd.DataFrame:
    """FVU against the number of components kept: powers of two, and all."""
    n_components = len(components)
    counts = sorted({2**power for power in range(n_components.bit_length())} | {n_components})
    table = []
    for part in ("train", "valid", "test"):
        chosen = np.flatnonzero(split == part)
        x = np.asarray(embedding[chosen], dtype=np.float64)
        for k in counts:
            x_hat = scores[chosen, :k] @ components[:k] + mean
            table.append({"k": k, "split": part, "fvu": fraction_of_variance_unexplained(x, x_hat)})
    return pd.DataFrame(table)


def _pls(settings: PLS, target: Target, task: Task) -> Metrics:
    """Scores of all galaxies; the train galaxies that have the target decide what the components are."""
    from safetensors.numpy import save

    rows, embedding = read_embedding(task.inputs["embedding"])
    catalog = read_survey(task.inputs["survey"]).catalog
    labelled = catalog[target_rows(catalog, target, str(task.inputs["survey"])) & (catalog["split"] == "train")]
    train = np.asarray(FeatureTable(rows, embedding).of(labelled["id_str"]), dtype=np.float64)
    rotations, mean = pls_components(settings, train, labelled[list(target.columns)].to_numpy(dtype=np.float64))
    write_rows(task.work, rows)
    write_dense_features(task.work, (embedding - mean) @ rotations)
    (task.work / "model.safetensors").write_bytes(save({"rotations": rotations, "mean": mean}))
    (task.work / "model.json").write_text(json.dumps({"format": FORMAT, "n_components": settings.n_components}))
    return {"n_features": settings.n_components, "n_train": len(labelled)}


def pls_components(
    settings: PLS, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """PLS2 regression: rotations (d, n_components) and the mean (d,), so that scores are (x - mean) @ rotations.

    As for PCA, embeddings (n, d) are centred and not scaled. Labels (n, m) are brought to unit variance, for otherwise
    the unit of one would decide. Components are in the order in which they are found, and the first k are those of a
    PLS of k components.

    Raises
    ------
    DataError
        If there are not as many components: more than rows or dimensions, a constant label, or nothing left to explain.
    """
    import warnings

    from sklearn.cross_decomposition import PLSRegression

    where = f"features {settings.name!r}"
    largest = min(x.shape)
    if settings.n_components > largest:
        raise DataError(
            f"{where}: n_components must be at most {largest} ({x.shape[0]} train rows with target "
            f"{settings.target!r}, of {x.shape[1]} dimensions), got {settings.n_components}"
        )
    spread = y.std(axis=0)
    if np.any(spread == 0):
        raise DataError(f"{where}: target {settings.target!r} is constant on the {len(y)} train rows")
    model = PLSRegression(settings.n_components, scale=False, max_iter=5000)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y residual is constant")  # said below, as an error
        model.fit(x, (y - y.mean(axis=0)) / spread)
    n_found = int(np.count_nonzero(np.any(model.x_weights_ != 0, axis=0)))
    if n_found < settings.n_components or not np.isfinite(model.x_rotations_).all():
        raise DataError(
            f"{where}: after {n_found} components nothing is left to explain of target {settings.target!r}; "
            f"set n_components = {n_found}"
        )
    return np.ascontiguousarray(model.x_rotations_), x.mean(axis=0)


def photometry_features(catalog: pd.DataFrame, settings: Photometry) -> pd.DataFrame:
    """Magnitudes, the colours of neighbouring bands, sizes; every value must be finite.

    Raises
    ------
    DataError
        If a column is missing or holds a value that is not finite.
    """
    wanted = [*settings.magnitudes, *settings.sizes]
    absent = [name for name in wanted if name not in catalog]
    if absent:
        raise DataError(
            f"features {settings.name!r}: the catalogue has no column {', '.join(absent)}; "
            f"name its own with magnitudes = [...] and sizes = [...]"
        )
    features = catalog[wanted].astype(np.float64)
    bad = ~np.isfinite(features.to_numpy())
    if bad.any():
        worst = int(bad.sum(axis=0).argmax())
        raise DataError(
            f"features {settings.name!r}: {int(bad.any(axis=1).sum())} of {len(catalog)} galaxies have photometry that "
            f"is not finite (most in {wanted[worst]}: {int(bad[:, worst].sum())}); leave such columns or galaxies out"
        )
    for blue, red in zip(settings.magnitudes, settings.magnitudes[1:], strict=False):
        features[f"{blue} - {red}"] = catalog[blue] - catalog[red]
    return features


main = partial(stage_main, "fit-baselines")

if __name__ == "__main__":
    raise SystemExit(main())
