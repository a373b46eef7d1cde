"""The convolutional autoencoder: any size, seeds, files."""

import numpy as np
import pytest
import torch

from sfnetlab.errors import ArtifactError
from sfnetlab.models.vae import ConvVAE, as_intensity, load_vae, save_vae


def some_images(n, side, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize("side", [4, 5, 17, 69, 72])
def test_reconstructions_have_the_size_of_the_cutouts(side):
    vae = ConvVAE(side, 3, True).eval()
    assert vae(some_images(2, side)).shape == (2, 3, side, side)


def test_its_tensors_at_69_px_have_the_sizes_of_galaxy_autoencoders():
    vae = ConvVAE(69, 20, True)
    with torch.no_grad():
        assert vae.encoder[:6].eval()(torch.zeros(1, 3, 69, 69)).shape == (1, 32, 18, 18)
    assert vae.encoder[-1].weight.shape == (2 * 20, 32 * 18 * 18)
    assert vae.decoder[0].weight.shape == (32 * 18 * 18, 20)


def test_reconstructions_lie_between_black_and_white():
    pixels = ConvVAE(16, 2, True).eval()(some_images(4, 16))
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_intensities_are_0_for_black_and_1_for_white_channels_first():
    images = torch.zeros((1, 2, 2, 3), dtype=torch.uint8)
    images[0, 1, 0, 2] = 255
    expected = torch.zeros(1, 3, 2, 2)
    expected[0, 2, 1, 0] = 1
    torch.testing.assert_close(as_intensity(images), expected)


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(5)
    a = ConvVAE(8, 2, True, seed=1)
    torch.manual_seed(6)
    b = ConvVAE(8, 2, True, seed=1)
    other = ConvVAE(8, 2, True, seed=2)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.encoder[0].weight, other.encoder[0].weight)


def test_encoding_is_row_independent():
    vae = ConvVAE(12, 3, True).eval()
    images = some_images(5, 12)
    torch.testing.assert_close(vae.encode(images)[2:3], vae.encode(images[2:3]), rtol=1e-5, atol=1e-6)


def test_a_plain_autoencoder_says_a_point():
    posterior = ConvVAE(8, 2, False).eval().posterior(some_images(3, 8))
    assert posterior.mean.shape == (3, 2)
    assert torch.isneginf(posterior.log_variance).all()


@pytest.mark.parametrize("is_variational", [True, False])
def test_what_is_loaded_encodes_and_decodes_as_what_was_saved(tmp_path, is_variational):
    vae = ConvVAE(9, 2, is_variational, seed=3).eval()
    save_vae(tmp_path, vae)
    loaded = load_vae(tmp_path)
    images = some_images(3, 9)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), vae(images))
    assert not loaded.training


def test_a_directory_without_a_model_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"model\.json"):
        load_vae(tmp_path)


@pytest.mark.parametrize(("side", "n_latents"), [(3, 2), (8, 0)])
def test_impossible_sizes_are_refused(side, n_latents):
    with pytest.raises(ValueError, match="at least 4 px"):
        ConvVAE(side, n_latents, True)


def test_the_first_reconstructions_are_about_the_colour_to_start_at():
    vae = ConvVAE(16, 2, True).eval()
    vae.start_at(np.array([0.1, 0.05, 0.02]))
    colour = vae(some_images(4, 16)).mean(dim=(0, 2, 3))
    torch.testing.assert_close(colour, torch.tensor([0.1, 0.05, 0.02]), rtol=0.5, atol=0)
    vae.start_at(np.zeros(3))  # black skies have no logit
    assert torch.isfinite(vae.decoder[-2].bias).all()
