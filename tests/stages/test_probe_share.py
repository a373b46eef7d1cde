"""Rows that are left to probes: nothing that learns from a label is given theirs."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.artifacts import write_dense_features, write_rows
from sfnetlab.jobs import Job, Task
from sfnetlab.methods.decompositions import build_decomposition
from sfnetlab.methods.networks import NetworkSpec, Weights
from sfnetlab.methods.pls import PLS
from sfnetlab.settings import Target, Training
from sfnetlab.stages import train_sfnet
from sfnetlab.surveys.catalog import FOR_PROBES

N = 90
SPLIT = np.resize(["train", "train", "train", "valid", "test"], N)
LEFT = (SPLIT == "train") & (np.arange(N) % 3 == 0)
TARGET = Target(columns=("y",))


def survey(directory, y):
    directory.mkdir()
    ids = [f"g{i:02d}" for i in range(N)]
    catalog = pd.DataFrame({"id_str": ids, "split": SPLIT, "y": y, FOR_PROBES: LEFT})
    catalog.to_parquet(directory / "catalog.parquet")
    np.save(directory / "images.npy", np.zeros((N, 8, 8, 3), dtype=np.uint8))
    (directory / "metrics.json").write_text("{}")
    return catalog


def job(stage, spec):
    return Job(stage=stage, version=1, name="x", spec=spec, inputs={})


def test_a_network_is_not_trained_on_them(tmp_path, monkeypatch):
    survey(tmp_path / "survey", np.arange(N) / N)
    given = {}

    def trained(network, images, labels, train, valid, **settings):
        given.update(train=train, valid=valid)
        return [{"epoch": 0, "train_loss": 0.0, "valid_rmse": 0.0, "precision": "float32"}]

    monkeypatch.setattr("sfnetlab.training.network.train_network", trained)
    weights = Weights(source="random", path=None)
    spec = NetworkSpec(
        backbone="test_resnet", k=None, target=TARGET, training=Training(), weights=weights, seed=0, view=None
    )
    (tmp_path / "work").mkdir()
    task = Task(
        inputs={"survey": tmp_path / "survey"}, work=tmp_path / "work", device="cpu", job=job("train-sfnet", spec)
    )
    train_sfnet.build(spec, task)
    np.testing.assert_array_equal(given["train"], np.flatnonzero((SPLIT == "train") & ~LEFT))
    np.testing.assert_array_equal(given["valid"], np.flatnonzero(SPLIT == "valid"))


@pytest.fixture
def components(tmp_path):
    """What PLS makes of an embedding and labels."""
    embedding = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)

    def made(name, y):
        catalog = survey(tmp_path / f"survey-{name}", y)
        features, work = tmp_path / f"features-{name}", tmp_path / f"pls-{name}"
        features.mkdir()
        work.mkdir()
        write_rows(features, catalog)
        write_dense_features(features, embedding)
        settings = PLS(name="pls", on="dense", target="t", n_components=2)
        inputs = {"survey": tmp_path / f"survey-{name}", "embedding": features}
        task = Task(inputs=inputs, work=work, device="cpu", job=job("fit-baselines", settings))
        build_decomposition(settings, TARGET, task)
        return np.load(work / "features.npy")

    return made


def test_pls_does_not_see_their_labels(components):
    y = np.random.default_rng(1).normal(size=N)
    first = components("first", y)
    np.testing.assert_array_equal(components("left", np.where(LEFT, -y, y)), first)
    assert not np.allclose(components("train", np.where((SPLIT == "train") & ~LEFT, -y[::-1], y)), first)
