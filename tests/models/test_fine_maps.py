"""Finer maps of a trained ResNet: its own map is among their cells, and nothing else of the network changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sfnetlab.metrics.maps import is_fine
from sfnetlab.models.backbones import ImageEncoder, make_backbone
from sfnetlab.models.fine_maps import last_map, with_fine_maps


def encoder_of(name, seed, image_size=None):
    """An encoder whose batch norms are not those of a fresh network, as training would leave them."""
    backbone = make_backbone(name, "random", seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator).mul_(0.1)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
    return ImageEncoder(backbone, (0.2,) * 3, (0.1,) * 3, image_size).eval()


def images_of(side, n=2, seed=0):
    return torch.randint(256, (n, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=12)
@given(
    st.sampled_from(["resnet18", "resnet10t", "test_resnet"]),
    st.integers(0, 100),
    st.integers(33, 100),
)
def test_every_second_or_fourth_cell_of_the_finer_map_is_the_networks_own(name, seed, side):
    encoder, images = encoder_of(name, seed), images_of(side, seed=seed)
    with torch.no_grad():
        coarse, fine = last_map(encoder, images), last_map(with_fine_maps(encoder, images[:1]), images)
    assert is_fine(fine)
    step = next(step for step in (1, 2, 4, 8) if fine[0, 0, ::step, ::step].shape == coarse.shape[2:])
    torch.testing.assert_close(fine[:, :, ::step, ::step], coarse, rtol=1e-4, atol=1e-4 * float(coarse.abs().max()))


@pytest.mark.parametrize(
    ("name", "side", "cells"),
    [("resnet18", 64, 8), ("resnet18", 96, 6), ("resnet18", 160, 5), ("resnet50", 64, 8), ("resnet18", 32, 8)],
)
def test_no_more_strides_are_replaced_than_five_cells_take(name, side, cells):
    encoder = encoder_of(name, 0)
    with torch.no_grad():
        fine = last_map(with_fine_maps(encoder, images_of(side)), images_of(side))
    assert fine.shape[2:] == (cells, cells)


def test_the_network_stays_what_it_was():
    encoder, images = encoder_of("resnet18", 1), images_of(64)
    with torch.no_grad():
        before = encoder(images)
        with_fine_maps(encoder, images)
        assert torch.equal(encoder(images), before)


def test_a_map_that_is_fine_enough_is_left_as_it_is():
    encoder = encoder_of("resnet18", 0)
    assert with_fine_maps(encoder, images_of(160)) is encoder


@pytest.mark.parametrize(("name", "side"), [("test_vit", 160), ("test_convnext", 64), ("test_efficientnet", 64)])
def test_other_backbones_are_left_as_they_are(name, side):
    encoder = encoder_of(name, 0)
    assert with_fine_maps(encoder, images_of(side)) is encoder


def test_a_block_that_averages_over_its_map_is_left_as_it_is():
    encoder = encoder_of("ecaresnet26t", 0)
    assert with_fine_maps(encoder, images_of(64)) is encoder


def test_cutouts_too_small_for_finer_maps_are_left_as_they_are():
    encoder = encoder_of("resnet18", 0)
    assert with_fine_maps(encoder, images_of(16)) is encoder
