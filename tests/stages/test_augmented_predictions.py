"""Predictions averaged over the symmetries of a cutout are made with every network that was trained here."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.artifacts import write_dense_features, write_rows
from sfnetlab.files import create_array
from sfnetlab.jobs import Job, TableSpec, Task
from sfnetlab.metrics.tidy import AUGMENTED
from sfnetlab.models.backbones import make_backbone
from sfnetlab.models.sfnet import SparseFeatureNetwork, save_network
from sfnetlab.plan import ProbeSpec
from sfnetlab.schema import Probes
from sfnetlab.settings import Target
from sfnetlab.stages import fit_probes
from sfnetlab.stages.fit_probes import value_predictions
from sfnetlab.stages.samples import Sample

N = 90


def settings(kind, **probes):
    return ProbeSpec(
        table=TableSpec(features="net", kind=kind, k=None, seed=0),
        targets={"y": Target(columns=("y",))},
        classes={},
        probes=Probes(**probes, n_bootstrap=100, test_time_augmentation=True),
        head_target="y",
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A survey of noise, a network and its features of them."""
    root = tmp_path_factory.mktemp("augmented")
    rng = np.random.default_rng(0)
    columns = {"id_str": [f"g{i}" for i in range(N)], "split": np.repeat(["train", "valid", "test"], N // 3)}
    table = pd.DataFrame(columns).assign(y=rng.normal(size=N))
    for name in ("survey", "features", "network"):
        (root / name).mkdir()
    table.to_parquet(root / "survey/catalog.parquet")
    images = rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    create_array(root / "survey/images.npy", images.shape, "uint8")[:] = images
    (root / "survey/metrics.json").write_text("{}")
    network = SparseFeatureNetwork(make_backbone("test_resnet", "random", 0), "test_resnet", 1, None).eval()
    save_network(root / "network", network)
    write_rows(root / "features", table)
    write_dense_features(root / "features", rng.normal(size=(N, network.n_features)))
    return root


@pytest.mark.parametrize("kind", ["sfnet", "encoder", "zoobot"])
def test_head_and_probes_of_a_network_trained_here_predict_augmented_too(kind, root, tmp_path):
    spec = settings(kind, kinds=("ridge",), budgets=())
    job = Job(stage="fit-probes", version=1, name="net", spec=spec, inputs={})
    inputs = {name: root / name for name in ("survey", "features", "network")}
    fit_probes.build(spec, Task(inputs=inputs, work=tmp_path, device="cpu", job=job))
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    assert set(predictions["probe"]) == {"head", "head_augmented", "ridge", "ridge_augmented"}


def test_with_turned_cutouts_head_and_probes_are_means_over_them_on_test_galaxies_alone():
    rng = np.random.default_rng(0)
    split = np.array(["train", "valid", "test"]).repeat(N // 3)
    X = rng.normal(size=(N, 5))
    y = X[:, :1] + 0.1 * rng.normal(size=(N, 1))
    test = split == "test"
    turned = [X[test] + shift for shift in (-0.3, 0.5)]
    one = settings("sfnet", kinds=("linear",), budgets=(2,))
    found = {(p.probe, p.n_features_used): p.values for p in value_predictions(one, Sample(X, split), y, None, turned)}
    assert set(found) == {("linear", 5), (f"linear{AUGMENTED}", 5), ("linear", 2)}
    augmented = found[f"linear{AUGMENTED}", 5]
    assert np.isnan(augmented[~test]).all()
    slope = np.linalg.lstsq(np.c_[X, np.ones(N)][split == "train"], y[split == "train"], rcond=None)[0]
    np.testing.assert_allclose(augmented[test], np.c_[X[test] + 0.1, np.ones(test.sum())] @ slope, rtol=1e-6)
