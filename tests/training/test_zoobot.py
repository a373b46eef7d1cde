"""Fine-tuning by Zoobot: what is left is a network of ours, and a killed run ends where an uninterrupted one does."""

import importlib
import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from sfnetlab import config
from sfnetlab.artifacts import read_survey
from sfnetlab.errors import DataError, TrainingError
from sfnetlab.models.backbones import make_backbone
from sfnetlab.models.sfnet import load_network, save_network
from sfnetlab.plan import make_plan
from sfnetlab.runner import Building, build_job
from sfnetlab.training.network import embed_batches, frozen_encoder

zoobot = pytest.importorskip("sfnetlab.training.zoobot", reason="the extra zoobot is not installed", exc_type=DataError)

N, SIDE = 44, 40
TRAIN, VALID = np.arange(2, 35), np.arange(35, N)


def tuning(**changed):
    chosen = {"training_mode": "full", "layer_decay": 0.9, "learning_rate": 3e-3, "weight_decay": 0.05}
    return zoobot.Tuning(**chosen | {"head_dropout": 0.1} | changed)


class KilledError(Exception):
    pass


def silent(history):
    pass


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    brightness = rng.integers(20, 200, N)[:, None, None, None]
    return (brightness + rng.integers(0, 50, (N, SIDE, SIDE, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def targets(images):
    brightness = images.mean(axis=(1, 2, 3)) / 255
    targets = np.stack([8 + brightness, -2 + 10 * brightness], axis=1)
    targets[0] = np.nan  # a row that no one may look at
    return targets


def run(images, targets, directory, *, epochs=3, report=silent, seed=3, backbone="test_resnet", **changed):
    encoder = frozen_encoder(backbone, "random", 5, 32, images, TRAIN)
    return zoobot.finetune(
        encoder,
        backbone,
        images,
        targets,
        TRAIN,
        VALID,
        epochs=epochs,
        batch_size=8,
        tuning=tuning(**changed),
        augment=True,
        seed=seed,
        device="cpu",
        directory=directory,
        report=report,
    )


def numbers(history):
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_s")} for row in history]


@pytest.fixture(scope="module")
def whole(images, targets, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    network, history = run(images, targets, directory / "lightning")
    return network, history, directory


def predicted(network, images, rows):
    return np.concatenate(list(embed_batches(network.predict, images, rows, device="cpu")))


def test_the_network_is_that_of_the_epoch_with_the_least_valid_loss(whole, images, targets):
    network, history, _ = whole
    best = min(history, key=lambda row: row["valid_loss"])
    errors = predicted(network, images, VALID) - targets[VALID]
    np.testing.assert_allclose(np.sqrt(np.mean(errors**2, axis=0)), best["valid_rmse_columns"], rtol=1e-4)
    assert best["valid_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-4)


def test_valid_loss_is_in_standard_deviations_of_the_train_rows(whole, images, targets):
    _, history, _ = whole
    scaled = np.array(history[-1]["valid_rmse_columns"]) / targets[TRAIN].std(axis=0)
    assert history[-1]["valid_loss"] == pytest.approx(np.mean(scaled**2), rel=1e-4)


def test_the_network_on_disk_predicts_the_same(whole, images, tmp_path):
    network = whole[0]
    save_network(tmp_path, network)
    loaded = load_network(tmp_path)
    np.testing.assert_array_equal(predicted(loaded, images, TRAIN), predicted(network, images, TRAIN))
    assert loaded.encoder.image_size == 32


def test_its_features_and_head_give_its_predictions(whole, images):
    network = whole[0]
    features = np.concatenate(list(embed_batches(network.features, images, VALID, device="cpu")))
    weights, bias = network.head_weights()
    np.testing.assert_allclose(features @ weights.T + bias, predicted(network, images, VALID), rtol=1e-4)


def test_history_is_that_of_networks_trained_here(whole):
    history = whole[1]
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["step"] for row in history] == [5, 10, 15]
    assert history[0].keys() >= {"learning_rate", "train_loss", "valid_rmse", "images_per_s", "seconds"}
    json.dumps(history, allow_nan=False)


def test_lightning_writes_nothing_but_its_checkpoints(whole):
    directory = whole[2]
    assert sorted(path.name for path in directory.rglob("*")) == ["best.ckpt", "last.ckpt", "lightning"]


@pytest.mark.parametrize("killed_in_epoch", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_ends_where_an_uninterrupted_one_does(whole, images, targets, tmp_path, killed_in_epoch):
    def killer(history):
        if len(history) == killed_in_epoch + 1:
            raise KilledError

    with pytest.raises(KilledError):
        run(images, targets, tmp_path, report=killer)
    reported = []
    network, history = run(images, targets, tmp_path, report=lambda rows: reported.append(len(rows)))
    assert reported == list(range(killed_in_epoch, 4))
    assert numbers(history) == numbers(whole[1])
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


def test_a_finished_run_is_not_trained_again(whole, images, targets):
    network, history = run(images, targets, whole[2] / "lightning")
    assert history == whole[1]
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in whole[0].state_dict().items())


def test_another_seed_is_another_run(whole, images, targets, tmp_path):
    assert numbers(run(images, targets, tmp_path, epochs=1, seed=4)[1]) != numbers(whole[1])[:1]


def test_the_global_generator_is_left_alone(images, targets, tmp_path):
    before = torch.get_rng_state()
    run(images, targets, tmp_path, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_it_learns(images, targets, tmp_path):
    network, _ = run(images, targets[:, :1], tmp_path, epochs=8)
    rmse = np.sqrt(np.mean((predicted(network, images, VALID) - targets[VALID, :1]) ** 2))
    assert rmse < 0.5 * targets[VALID, 0].std()


def test_head_only_leaves_the_encoder_as_it_was(images, targets, tmp_path):
    start = make_backbone("test_resnet", "random", 5).state_dict()
    network, _ = run(images, targets, tmp_path, epochs=1, training_mode="head_only")
    assert all(torch.equal(value, start[name]) for name, value in network.encoder.backbone.named_parameters())


def test_a_transformer_can_be_fine_tuned(images, targets, tmp_path):
    network, _ = run(images, targets, tmp_path, epochs=1, backbone="test_vit")
    (tmp_path / "saved").mkdir()
    save_network(tmp_path / "saved", network)
    loaded = load_network(tmp_path / "saved")
    np.testing.assert_array_equal(predicted(loaded, images, VALID), predicted(network, images, VALID))


def test_a_loss_that_is_not_finite_stops_it(images, targets, tmp_path):
    with pytest.raises(TrainingError, match=r"epoch [12] of 2 is not finite; lower the learning rate"):
        run(images, targets, tmp_path, epochs=2, learning_rate=1e30)


def test_targets_that_are_not_finite_are_an_error(images, targets, tmp_path):
    broken = targets.copy()
    broken[TRAIN[0]] = np.nan
    with pytest.raises(DataError, match="train rows are not finite"):
        run(images, broken, tmp_path)


def test_without_zoobot_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "zoobot.pytorch.training.finetune", None)
    monkeypatch.delitem(sys.modules, "sfnetlab.training.zoobot")
    with pytest.raises(DataError, match="uv sync --extra zoobot"):
        importlib.import_module("sfnetlab.training.zoobot")


TOML = """
name = "test"
[survey]
kind = "mock"
n_galaxies = 120
image_size = 32
[targets.metallicity]
columns = ["oh_p50"]
[probes]
kinds = ["linear"]
budgets = []
n_bootstrap = 100
[[features]]
name = "tuned"
kind = "zoobot"
target = "metallicity"
backbone = "resnet18"
weights = "random"
epochs = 1
batch_size = 16
"""


CHAIN = ("prepare-survey/survey", "finetune-zoobot/tuned-seed0", "embed-images/tuned-seed0", "fit-probes/tuned-seed0")


@pytest.mark.slow
def test_its_head_is_probed_like_that_of_any_network_trained_here(tmp_path):
    """From the configuration to the comparison: prepare, fine-tune, embed, probe."""
    path = tmp_path / "test.toml"
    path.write_text(TOML)
    for job in make_plan(config.load(path, ())):
        if str(job) in CHAIN:
            build_job(Building(root=tmp_path, config_toml="", device="cpu"), job)
    survey = read_survey(tmp_path / "prepare-survey/survey")
    metrics = pd.read_parquet(tmp_path / "fit-probes/tuned-seed0/metrics.parquet")
    assert set(metrics["kind"]) == {"zoobot"}
    head = metrics[(metrics["probe"] == "head") & (metrics["split"] == "test") & (metrics["metric"] == "rmse")]
    measured = survey.catalog["oh_p50"] > 0
    test = np.flatnonzero((survey.catalog["split"] == "test") & measured)
    made = tmp_path / "finetune-zoobot/tuned-seed0"
    errors = predicted(load_network(made), survey.cutouts, test)[:, 0] - survey.catalog["oh_p50"].to_numpy()[test]
    assert head["value"].item() == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-3)
    assert not list(made.rglob("*.ckpt"))
