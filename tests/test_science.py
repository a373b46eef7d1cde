"""What the demo must show of the science, from its own tables; slow, for the demo is run whole."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "sfnetlab", "run", "config/demo.toml", "--out", str(out), "--device", "cpu"]
    command += ["--workers", "2"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return out


@pytest.fixture(scope="module")
def rmse(demo: Path) -> pd.DataFrame:
    table = pd.read_parquet(demo / "fit-probes/comparison/metrics.parquet")
    is_fair = ~table["probe"].str.endswith("_in_sample")
    return table[(table["metric"] == "rmse") & (table["split"] == "test") & is_fair]


def best(rmse: pd.DataFrame, **chosen: object) -> float:
    for column, value in chosen.items():
        rmse = rmse[rmse[column] == value]
    return float(rmse["value"].min())


@pytest.mark.slow
def test_sfnets_lie_between_the_oracle_and_065_of_the_label_scatter(demo, rmse):
    catalog = pd.read_parquet(demo / "prepare-survey/survey/catalog.parquet")
    scatter = catalog.loc[(catalog["split"] == "test") & (catalog["oh_p50"] > 0), "oh_p50"].std()
    heads = rmse[(rmse["features"] == "sfnet") & (rmse["probe"] == "head")]
    assert set(heads["k"]) == {4}
    assert (heads["value"] > best(rmse, kind="oracle")).all()
    assert (heads["value"] < 0.65 * scatter).all()


@pytest.mark.slow
def test_the_controls_come_in_the_expected_order(rmse):
    oracle, mean = best(rmse, kind="oracle"), best(rmse, features="mean")
    photometry, random, dense = (best(rmse, features=name) for name in ("photometry", "random", "dense"))
    assert oracle < photometry < mean
    assert oracle < dense < random < mean


@pytest.mark.slow
def test_the_number_of_features_ever_active_is_reported(demo):
    for seed in range(3):
        table = pd.read_parquet(demo / f"interpret-features/sfnet-k4-seed{seed}/features.parquet")
        assert 4 < len(table) <= 512


@pytest.mark.slow
def test_shuffled_labels_teach_an_sfnet_nothing(tmp_path):
    from sfnetlab.models.backbones import make_backbone
    from sfnetlab.models.sfnet import SparseFeatureNetwork
    from sfnetlab.surveys.mock_population import make_population
    from sfnetlab.surveys.mock_render import render_images
    from sfnetlab.training.network import embed_batches, train_network
    from sfnetlab.training.optimizers import Optimization

    catalog = make_population(3000, 0, 38.0)
    images = np.empty((3000, 32, 32, 3), dtype=np.uint8)
    render_images(catalog, 32, 38.0, 0, images)
    rows = np.flatnonzero(catalog["oh_p50"] > 0)
    train, valid, test = rows[:1500], rows[1500:1600], rows[1600:]

    def test_rmse(labels: np.ndarray, name: str) -> float:
        network = SparseFeatureNetwork(make_backbone("resnet18", "random", 0), "resnet18", 1, 4)
        train_network(
            network, images, labels, train, valid, epochs=8, batch_size=32,
            optimization=Optimization(optimizer="adamw", schedule="one_cycle", learning_rate=1e-3, weight_decay=0.01),
            loss="rmse", augment=True, precision="float32",
            seed=0, device="cpu", checkpoint=tmp_path / name, report=lambda history: None,
        )  # fmt: skip
        predicted = np.concatenate(list(embed_batches(network.predict, images, test, device="cpu")))
        return float(np.sqrt(np.mean((predicted - labels[test]) ** 2)))

    labels = catalog[["oh_p50"]].to_numpy()
    shuffled = labels.copy()
    shuffled[rows] = np.random.default_rng(0).permutation(labels[rows])
    mean_rmse = float(np.sqrt(np.mean((labels[train].mean() - labels[test]) ** 2)))
    shuffled_mean_rmse = float(np.sqrt(np.mean((shuffled[train].mean() - shuffled[test]) ** 2)))
    assert test_rmse(labels, "true") < 0.8 * mean_rmse
    assert test_rmse(shuffled, "shuffled") > 0.99 * shuffled_mean_rmse
