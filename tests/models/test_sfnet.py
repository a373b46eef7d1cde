import json

import numpy as np
import pytest
import torch

from sfnetlab.errors import ArtifactError
from sfnetlab.models.backbones import make_backbone
from sfnetlab.models.sfnet import SparseFeatureNetwork, load_network, save_network
from sfnetlab.models.views import ImageView


def network(k=3, backbone="test_resnet"):
    made = SparseFeatureNetwork(make_backbone(backbone, "random", 0), backbone, n_outputs=2, k=k)
    made.set_statistics(
        pixel_mean=np.array([0.1, 0.2, 0.3]),
        pixel_std=np.array([0.2, 0.2, 0.2]),
        target_mean=np.array([8.7, -1.0]),
        target_std=np.array([0.2, 3.0]),
    )
    torch.nn.init.normal_(made.head.weight, generator=torch.Generator().manual_seed(0))
    return made.eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_at_most_k_features_are_active(images):
    features = network(k=3).features(images)
    assert features.shape == (5, 96)
    assert ((features > 0).sum(dim=1) == 3).all()
    assert (features >= 0).all()


@pytest.mark.parametrize("k", [3, None])
def test_mean_of_the_networks_own_cells_of_an_activation_map_is_the_feature(k):
    model = network(k=k)
    images = torch.randint(0, 256, (5, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    features = model.features(images)
    for feature in range(0, 96, 7):
        maps = model.activation_maps(images, feature)
        assert maps.shape == (5, 6, 6)
        torch.testing.assert_close(maps[:, ::2, ::2].mean(dim=(1, 2)), features[:, feature])


def test_activation_maps_leave_no_hook_behind(images):
    model = network()
    model.activation_maps(images, 0)
    assert not model.encoder.backbone.global_pool._forward_pre_hooks


def test_map_moves_with_the_galaxy(images):
    model = network(k=None)
    blank = torch.zeros((2, 64, 64, 3), dtype=torch.uint8)
    blank[0, :16, :16], blank[1, -16:, -16:] = images[0, :16, :16], images[0, :16, :16]
    feature = int(model.features(blank).std(dim=0).argmax())
    contrast = model.activation_maps(blank, feature)
    contrast = (contrast - model.activation_maps(torch.zeros_like(blank), feature)).abs()
    half = contrast.shape[1] // 2
    assert contrast[0, :half, :half].sum() > contrast[0, half:, half:].sum()
    assert contrast[1, half:, half:].sum() > contrast[1, :half, :half].sum()


def test_map_of_a_feature_that_does_not_exist_is_refused(images):
    with pytest.raises(ValueError, match="96"):
        network().activation_maps(images, 96)


def test_dense_network_gives_the_pooled_output(images):
    dense = network(k=None)
    assert torch.equal(dense.features(images), dense.encoder(images))


def test_prediction_is_features_times_head_weights_plus_bias(images):
    model = network()
    weights, bias = model.head_weights()
    np.testing.assert_allclose(model.predict(images), model.features(images).numpy() @ weights.T + bias, rtol=1e-5)


def test_head_is_a_function_of_the_seed():
    backbone = make_backbone("test_resnet", "random", 0)
    first, same, other = (SparseFeatureNetwork(backbone, "test_resnet", 2, 3, seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_rows_do_not_influence_each_other(images):
    model = network()
    alone = torch.cat([model.features(image[None]) for image in images])
    torch.testing.assert_close(model.features(images), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("k", "backbone"), [(3, "test_resnet"), (None, "test_vit")])
def test_saved_network_is_the_same_network(tmp_path, images, k, backbone):
    original = network(k, backbone)
    save_network(tmp_path, original)
    loaded = load_network(tmp_path)
    assert torch.equal(loaded.predict(images), original.predict(images))
    assert loaded.k == k


@pytest.mark.parametrize(("key", "value"), [("format", 2), ("kind", "sae")])
def test_unknown_format_and_other_models_are_refused(tmp_path, key, value):
    save_network(tmp_path, network())
    description = json.loads((tmp_path / "model.json").read_text()) | {key: value}
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(ArtifactError, match=f"expected {key} .*, found {value!r}"):
        load_network(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
    save_network(tmp_path, network())
    weights = (tmp_path / "model.safetensors").read_bytes()
    save_network(tmp_path, network(backbone="test_vit"))
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(ArtifactError, match="does not hold the weights of this model"):
        load_network(tmp_path)


def test_missing_model_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match=r"model.json: not a readable"):
        load_network(tmp_path)


def test_impossible_k_is_an_error():
    with pytest.raises(ValueError, match=r"k must lie in \[1, 96\]"):
        network(k=97)


# --- quantiles and views ----------------------------------------------------------------------------------------------

LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)


def quantile_network(view=None):
    made = SparseFeatureNetwork(
        make_backbone("test_resnet", "random", 0), "test_resnet", n_outputs=1, k=3, view=view, quantiles=LEVELS
    )
    made.set_statistics(
        pixel_mean=np.full(3, 0.2), pixel_std=np.full(3, 0.2), target_mean=np.array([8.7]), target_std=np.array([0.2])
    )
    torch.nn.init.normal_(made.head.weight, std=3.0, generator=torch.Generator().manual_seed(0))
    return made.eval().requires_grad_(False)


def test_quantiles_never_cross(images):
    predicted = quantile_network().predict(images)
    assert predicted.shape == (5, 5)
    assert (predicted.diff(dim=1) > 0).all()


def test_the_head_reads_stored_features_as_it_reads_cutouts(images):
    for model in (quantile_network(), network(k=3)):
        features = model.features(images).numpy()
        np.testing.assert_allclose(model.read_features(features), model.predict(images), rtol=1e-4, atol=1e-5)


def test_the_median_is_linear_in_the_features(images):
    model = quantile_network()
    weights, bias = model.head_weights()
    assert weights.shape == (1, model.n_features)
    median = model.features(images).numpy() @ weights.T + bias
    np.testing.assert_allclose(median[:, 0], model.predict(images)[:, 2], rtol=1e-4)


def test_quantiles_of_two_columns_are_refused():
    with pytest.raises(ValueError, match="quantiles are of one column"):
        SparseFeatureNetwork(make_backbone("test_resnet", "random", 0), "test_resnet", 2, 3, quantiles=LEVELS)


def test_a_stored_network_keeps_its_view_and_its_quantiles(tmp_path, images):
    model = quantile_network(ImageView(degrade_to=5, colours="grey"))
    save_network(tmp_path, model)
    loaded = load_network(tmp_path)
    torch.testing.assert_close(loaded.predict(images), model.predict(images))
    assert not torch.allclose(loaded.predict(images), quantile_network().predict(images))
