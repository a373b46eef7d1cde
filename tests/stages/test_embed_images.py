"""The stage that runs networks over a survey: its tables, and what it says of how they came about."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from sfnetlab.artifacts import build, read_features, read_manifest, read_survey
from sfnetlab.errors import DataError
from sfnetlab.jobs import Job, Task
from sfnetlab.methods.networks import FrozenEmbeddingSpec, TrainedEmbeddingSpec, Weights
from sfnetlab.models.backbones import make_backbone, weights_sha256
from sfnetlab.models.sfnet import SparseFeatureNetwork, save_network
from sfnetlab.stages import embed_images

N, SIDE = 12, 32
SPLIT = ["train"] * 6 + ["valid"] * 2 + ["test"] * 4
RANDOM = FrozenEmbeddingSpec(
    backbone="test_resnet", weights=Weights(source="random", path=None), image_size=None, seed=3
)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    images = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)
    images[6:] //= 4  # the train rows have other statistics than all rows
    np.save(folder / "images.npy", images)
    pd.DataFrame({"id_str": [str(i) for i in range(N)], "split": SPLIT}).to_parquet(folder / "catalog.parquet")
    (folder / "metrics.json").write_text("{}")
    return folder


def embed(spec, folder, survey, **inputs):
    job = Job(stage="embed-images", version=1, name="e", spec=spec, inputs={})
    places = {"survey": survey, **inputs}

    def make(work):
        return embed_images.build(spec, Task(inputs=places, work=work, device="cpu", job=job))

    build(folder, job, make, config_toml="", device="cpu")
    return job.directory(folder)


def described(directory):
    return json.loads((directory / "model.json").read_text())


def test_a_frozen_encoder_gives_a_row_a_galaxy_in_their_order(survey, tmp_path):
    directory = embed(RANDOM, tmp_path, survey)
    rows, values = read_features(directory)
    assert rows["id_str"].tolist() == [str(i) for i in range(N)]
    about = described(directory)
    images = read_survey(survey).cutouts
    pixels = (images / 255 - np.array(about["pixel_mean"])) / np.array(about["pixel_std"])
    backbone = make_backbone("test_resnet", "random", 3).eval()
    with torch.inference_mode():
        expected = backbone(torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5)


def test_random_weights_get_the_statistics_of_the_train_rows(survey, tmp_path):
    about = described(embed(RANDOM, tmp_path, survey))
    train = read_survey(survey).cutouts[:6].reshape(-1, 3) / 255
    np.testing.assert_allclose(about["pixel_mean"], train.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(about["pixel_std"], train.std(axis=0), rtol=1e-5)
    assert "train rows" in about["source"]


def trained_file(folder, name):
    model = timm.create_model(name, num_classes=0)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.01)
    save_file(model.state_dict(), folder / "w.safetensors")
    return model, Weights(source="sha256:abc", path=folder / "w.safetensors")


def test_the_result_says_how_and_with_which_weights_it_was_made(survey, tmp_path):
    model, weights = trained_file(tmp_path, "test_resnet")
    spec = FrozenEmbeddingSpec(backbone="zoobot:test_resnet", weights=weights, image_size=None, seed=None)
    directory = embed(spec, tmp_path, survey)
    about = described(directory)
    assert (about["pixel_mean"], about["pixel_std"]) == ([0.0] * 3, [1.0] * 3)
    assert (about["image_size"], about["resampling"], about["pooling"]) == (224, "bilinear", "model")
    assert about["weights_sha256"] == weights_sha256(model)
    assert about["n_parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert (about["backbone"], about["weights"]) == ("zoobot:test_resnet", "sha256:abc")
    assert "galaxy-datasets" in about["source"]
    recorded = read_manifest(directory)["files"]["model.json"]["sha256"]
    assert recorded == hashlib.sha256((directory / "model.json").read_bytes()).hexdigest()


def test_random_weights_in_a_file_are_refused(survey, tmp_path):
    save_file(make_backbone("test_resnet", "random", 7).state_dict(), tmp_path / "w.safetensors")
    weights = Weights(source="sha256:abc", path=tmp_path / "w.safetensors")
    spec = FrozenEmbeddingSpec(backbone="test_resnet", weights=weights, image_size=None, seed=None)
    with pytest.raises(DataError, match="never trained"):
        embed(spec, tmp_path, survey)


@pytest.mark.parametrize("k", [None, 4])
def test_a_network_trained_here_gives_what_its_head_sees(survey, tmp_path, k):
    network = SparseFeatureNetwork(make_backbone("test_resnet", "random", 0), "test_resnet", 1, k).eval()
    (tmp_path / "network").mkdir()
    save_network(tmp_path / "network", network)
    directory = embed(TrainedEmbeddingSpec(), tmp_path, survey, network=tmp_path / "network")
    values = read_features(directory).values
    with torch.inference_mode():
        expected = network.features(torch.from_numpy(np.array(read_survey(survey).cutouts))).numpy()
    np.testing.assert_allclose(values if k is None else values.toarray(), expected, rtol=1e-3, atol=1e-5)
    assert described(directory)["weights_sha256"] == weights_sha256(network.encoder.backbone)
