"""Activation maps: the mean of the network's own cells is the activation, for units, latents and components alike."""

import numpy as np
import pytest
import torch
from torch import nn

from sfnetlab.atlas.maps import GRID, MapRequest, how_maps_are_made, make_maps
from sfnetlab.models.backbones import ImageEncoder, make_backbone
from sfnetlab.models.sae import SparseAutoencoder
from sfnetlab.models.sfnet import SparseFeatureNetwork

N = 10
IMAGES = np.random.default_rng(0).integers(0, 255, (N, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    return SparseFeatureNetwork(make_backbone("resnet18", "random", 0), "resnet18", 2, 8).eval()


@pytest.fixture(scope="module")
def embedding(network):
    with torch.no_grad():
        return network.encoder(torch.from_numpy(IMAGES)).numpy()


def request(rows, directions, offsets=None):
    offsets = np.zeros(len(rows)) if offsets is None else offsets
    return MapRequest(np.asarray(rows, dtype=np.intp), lambda entries: directions[entries], offsets)


def made(network, *requests, batch_size=4):
    return make_maps(network.encoder, network.encoder, IMAGES, requests, "exact", device="cpu", batch_size=batch_size)


def test_maps_of_a_residual_network_are_exact(network):
    assert how_maps_are_made(network.encoder, IMAGES[:3], "cpu") == "exact"


def test_maps_of_single_features_are_those_of_the_network_in_the_order_asked(network, embedding):
    with torch.no_grad():
        sparse = network.features(torch.from_numpy(IMAGES)).numpy()
    rows, features = np.nonzero(sparse)
    order = np.random.default_rng(1).permutation(len(rows))
    rows, features = rows[order], features[order]
    maps = made(network, request(rows, np.eye(network.n_features)[features])).maps[0]
    for feature in np.unique(features)[:5]:
        own = features == feature
        with torch.no_grad():
            expected = network.activation_maps(torch.from_numpy(IMAGES[rows[own]]), int(feature)).numpy()
        np.testing.assert_allclose(maps[own], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(maps[:, ::4, ::4].mean(axis=(1, 2)), sparse[rows, features], rtol=1e-4, atol=1e-5)


def test_the_mean_of_a_latents_map_is_its_activation(network, embedding):
    sae = SparseAutoencoder(network.n_features, 30, 5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        sae.W_enc.normal_(generator=generator)
        sae.b_enc.normal_(generator=generator)
        sae.mean.copy_(torch.from_numpy(embedding.mean(axis=0)))
        sae.scale.fill_(0.7)
    latents = sae.encode_csr(embedding).toarray()
    rows, features = np.nonzero(latents)
    directions = sae.W_enc.numpy(force=True).T / 0.7
    offsets = sae.b_enc.numpy(force=True) - directions @ sae.mean.numpy(force=True)
    maps = made(network, request(rows, directions[features], offsets[features])).maps[0]
    np.testing.assert_allclose(maps[:, ::4, ::4].mean(axis=(1, 2)), latents[rows, features], rtol=1e-4, atol=1e-4)


def test_a_latents_map_is_its_gradient_times_the_last_convolutional_map(network):
    """What Grad-CAM without its ReLU gives, up to the offset."""
    direction = np.random.default_rng(2).standard_normal(network.n_features).astype(np.float32)
    maps = made(network, request([0, 1], np.stack([direction] * 2))).maps[0]
    seen = []
    hook = network.encoder.backbone.global_pool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    value = network.encoder(torch.from_numpy(IMAGES[:2])) @ torch.from_numpy(direction)
    hook.remove()
    (gradient,) = torch.autograd.grad(value.sum(), seen[0])
    cells = seen[0].shape[2] * seen[0].shape[3]
    expected = (gradient * seen[0]).sum(dim=1).detach().numpy() * cells
    np.testing.assert_allclose(maps[:, ::4, ::4], expected, rtol=1e-3, atol=1e-4)


def test_what_is_run_is_given_for_each_row_once(network, embedding):
    ones = np.ones((4, network.n_features), np.float32)
    found = made(network, request([7, 2, 2, 5], ones), request([], ones[:0]))
    assert found.rows.tolist() == [2, 5, 7]
    np.testing.assert_allclose(found.outputs, embedding[[2, 5, 7]], rtol=1e-4, atol=1e-5)
    assert [len(maps) for maps in found.maps] == [4, 0]
    np.testing.assert_array_equal(found.maps[0][1], found.maps[0][2])


class Flat(nn.Module):
    """A backbone without a map: each of two features is the mean of one half of the cutout."""

    num_features = 2

    def forward(self, x):
        half = x.shape[3] // 2
        return torch.stack([x[..., :half].mean(dim=(1, 2, 3)), x[..., half:].mean(dim=(1, 2, 3))], dim=1)


def test_by_gradient_a_map_lies_where_the_feature_looks():
    encoder = ImageEncoder(Flat(), mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    assert how_maps_are_made(encoder, IMAGES[:2], "cpu") == "gradient"
    asked = request([3, 4], np.eye(2, dtype=np.float32))
    (maps,) = make_maps(encoder, encoder, IMAGES, [asked], "gradient", device="cpu").maps
    assert maps.shape == (2, GRID, GRID)
    assert maps[0, :, : GRID // 2].min() > 0
    assert maps[0, :, GRID // 2 + 1 :].max() == 0
    assert maps[1, :, : GRID // 2 - 1].max() == 0
