"""Partial least squares of embeddings: scikit-learn's scores, on the rows that have the target."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.cross_decomposition import PLSRegression

from sfnetlab.artifacts import read_features, write_dense_features, write_rows
from sfnetlab.errors import DataError
from sfnetlab.jobs import Job, Task
from sfnetlab.methods import decompositions
from sfnetlab.methods.decompositions import BaselineSpec
from sfnetlab.methods.ica import ICA, RestartedICA
from sfnetlab.methods.pca import PCA
from sfnetlab.methods.pls import PLS
from sfnetlab.metrics import tables
from sfnetlab.probes.linear import LinearProbe
from sfnetlab.settings import Target
from sfnetlab.stages import fit_baselines


def embedding_and_labels(n=200, d=10, m=1, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.linspace(0.1, 3, d) + 5
    y = x @ rng.standard_normal((d, m)) + rng.standard_normal((n, m))
    return x, y * 10.0 ** np.arange(m)


def settings(n_components):
    return PLS(name="pls", on="dense", target="lines", n_components=n_components)


def components(n_components, x, y):
    model = settings(n_components).fit(x, y).model
    return model["rotations"], model["mean"]


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_linear_fit_of_the_first_k_scores_is_scikit_learns_pls_of_k_components(m, k):
    x, y = embedding_and_labels(m=m)
    rotations, mean = components(5, x, y)
    scores = ((x - mean) @ rotations)[:, :k]
    standardised = (y - y.mean(axis=0)) / y.std(axis=0)
    oracle = PLSRegression(k, scale=False, max_iter=5000).fit(x, standardised).predict(x)
    found = LinearProbe().fit(scores, standardised, scores, standardised).predict(scores)
    np.testing.assert_allclose(found, oracle.reshape(found.shape), atol=1e-6)


def test_all_components_are_least_squares():
    x, y = embedding_and_labels(d=4)
    rotations, mean = components(4, x, y)
    scores = (x - mean) @ rotations
    np.testing.assert_allclose(
        LinearProbe().fit(scores, y, scores, y).predict(scores), LinearProbe().fit(x, y, x, y).predict(x), atol=1e-6
    )


def test_the_unit_of_a_label_does_not_matter():
    x, y = embedding_and_labels(m=3)
    first, again = (components(3, x, labels)[0] for labels in (y, y * [1, 1e6, 1e-6]))
    np.testing.assert_allclose(first, again, rtol=1e-6, atol=1e-9)


def test_more_components_than_dimensions_are_refused():
    with pytest.raises(DataError, match=r"'pls': n_components must be at most 10 \(200 train rows .* got 11"):
        components(11, *embedding_and_labels())


def test_components_of_what_is_already_explained_are_refused():
    x, _ = embedding_and_labels()
    x -= x.mean(axis=0)
    with pytest.raises(DataError, match=r"after \d+ components nothing is left"):
        components(9, np.repeat(x[:, :1], 10, axis=1), x[:, :1])


def test_a_constant_label_is_refused():
    x, y = embedding_and_labels()
    with pytest.raises(DataError, match="constant on the 200 train rows"):
        components(2, x, np.ones_like(y))


def test_the_stage_fits_train_rows_that_have_the_target_and_scores_all(tmp_path):
    x, y = embedding_and_labels()
    split = np.array(["train"] * 150 + ["test"] * 50)
    y[::7] = np.nan
    catalog = pd.DataFrame({"id_str": [str(i) for i in range(len(x))], "split": split, "label": y[:, 0]})
    for name in ("survey", "embedding", "work"):
        (tmp_path / name).mkdir()
    catalog.to_parquet(tmp_path / "survey/catalog.parquet")
    np.save(tmp_path / "survey/images.npy", np.zeros((len(x), 1), dtype=np.uint8))
    (tmp_path / "survey/metrics.json").write_text("{}")
    shuffled = np.random.default_rng(1).permutation(len(x))
    write_rows(tmp_path / "embedding", catalog.iloc[shuffled])
    write_dense_features(tmp_path / "embedding", x[shuffled])
    inputs = {name: tmp_path / name for name in ("survey", "embedding")}
    job = Job(stage="", version=1, name="", spec=None, inputs={})
    spec = BaselineSpec(baseline=settings(3), target=Target(columns=("label",)))
    fit_baselines.build(spec, Task(inputs=inputs, work=tmp_path / "work", device="cpu", job=job))

    fitted = np.flatnonzero((split == "train") & np.isfinite(y[:, 0]))
    rotations, mean = components(3, x[fitted], y[fitted])
    table = read_features(tmp_path / "work")
    np.testing.assert_allclose(table.of(catalog["id_str"]), (x - mean) @ rotations, rtol=1e-4, atol=1e-4)


def built(folder, x, method):
    """The features, model and reconstruction errors that the stage writes for an embedding."""
    (folder / "work").mkdir(parents=True)
    split = np.array(["train"] * 140 + ["valid"] * 30 + ["test"] * 30)
    rows = pd.DataFrame({"id_str": [str(i) for i in range(len(x))], "split": split})
    write_rows(folder, rows)
    write_dense_features(folder, x)
    job = Job(stage="", version=1, name="pca", spec=None, inputs={})
    task = Task(inputs={"embedding": folder}, work=folder / "work", device="cpu", job=job)
    metrics = fit_baselines.build(BaselineSpec(baseline=method), task)
    fvus = pd.read_parquet(task.work / "reconstruction.parquet")
    return metrics, load_file(task.work / "model.safetensors"), np.array(read_features(task.work).values), fvus


def test_components_of_large_tables_are_those_of_small_ones(tmp_path, monkeypatch):
    x, _ = embedding_and_labels()
    method = PCA(name="pca", on="dense", n_components=5)
    metrics, model, scores, fvus = built(tmp_path / "whole", x, method)
    monkeypatch.setattr(decompositions, "LARGE", 100)
    monkeypatch.setattr(tables, "BLOCK_VALUES", 70)
    again = built(tmp_path / "blocks", x, method)
    assert again[0] == pytest.approx(metrics)
    for name, values in model.items():
        np.testing.assert_allclose(again[1][name], values, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(again[2], scores, rtol=1e-5, atol=1e-5)
    pd.testing.assert_frame_equal(again[3], fvus, rtol=1e-9)


def test_a_large_mean_costs_the_components_no_digits(tmp_path, monkeypatch):
    x = embedding_and_labels()[0].astype(np.float32) + np.float32(1000)
    method = PCA(name="pca", on="dense", n_components=5)
    _, model, _, _ = built(tmp_path / "whole", x, method)
    monkeypatch.setattr(decompositions, "LARGE", 100)
    np.testing.assert_allclose(built(tmp_path / "b", x, method)[1]["components"], model["components"], atol=1e-9)


def test_what_needs_the_rows_is_fitted_to_as_many_as_are_allowed_and_says_so(tmp_path, monkeypatch, caplog):
    x, _ = embedding_and_labels(d=4)
    monkeypatch.setattr(decompositions, "LARGE", 400)
    built(tmp_path / "ica", x, ICA(name="ica", on="dense", n_components=2))
    assert "fitted to 100 of 140 train rows, spread evenly over all" in caplog.text


def test_more_components_than_dimensions_of_a_large_table_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decompositions, "LARGE", 100)
    with pytest.raises(DataError, match="n_components must be at most 10"):
        built(tmp_path / "many", embedding_and_labels()[0], PCA(name="pca", on="dense", n_components=11))


def test_another_start_of_ica_finds_the_same_sources_of_which_there_are_some():
    rng = np.random.default_rng(0)
    x = rng.laplace(size=(3000, 3)) @ rng.normal(size=(3, 3))
    about = {"name": "ica", "on": "dense", "n_components": 3}
    first, other = (ica.fit(x, None).model for ica in (ICA(**about), RestartedICA(**about, start=5)))
    assert not np.array_equal(first["rotations"], other["rotations"])
    sources = [(x - model["mean"]) @ model["rotations"] for model in (first, other)]
    alike = np.abs(np.corrcoef(*sources, rowvar=False)[:3, 3:])
    assert alike.max(axis=0).min() > 0.99
