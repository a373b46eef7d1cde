"""What a network is shown of a cutout: areas weighed, flux kept, colours as said, each cutout by itself."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab.errors import DataError
from sfnetlab.models.views import ImageView, square_shares


def cutouts(n=3, side=12, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8))


def slow_means(image, n):
    """Area-weighted means by cutting every pixel into n × n parts, each of which lies in one square alone."""
    side = image.shape[0]
    fine = image.astype(float).repeat(n, axis=0).repeat(n, axis=1)
    return fine.reshape(n, side, n, side, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("n", [1, 2, 5, 7, 12])
def test_each_pixel_left_is_the_mean_over_its_square_areas_weighed(n):
    images = cutouts()
    found = ImageView(degrade_to=n, keep_size=False)(images).numpy()
    np.testing.assert_allclose(found, [slow_means(image, n) for image in images.numpy()], rtol=1e-5)


@given(side=st.integers(1, 40), n=st.integers(1, 40))
def test_degrading_and_drawing_large_again_keep_the_flux(side, n):
    shares = square_shares(side, n)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-12)  # each pixel is given away whole
    np.testing.assert_allclose(shares.sum(axis=1), side / n, rtol=1e-12)  # squares are of one size


@pytest.mark.parametrize("n", [1, 5, 8, 12])
def test_drawn_at_its_own_size_a_cutout_has_its_mean(n):
    images = cutouts()
    shown = ImageView(degrade_to=n)(images)
    assert shown.shape == images.shape
    torch.testing.assert_close(shown.mean(dim=(1, 2)), images.float().mean(dim=(1, 2)), rtol=1e-5, atol=1e-3)


def test_a_divisor_is_drawn_as_blocks_of_one_value():
    shown = ImageView(degrade_to=4)(cutouts())
    blocks = shown.reshape(3, 4, 3, 4, 3, 3)
    assert (blocks.std(dim=(2, 4)) < 1e-4).all()


def test_all_pixels_are_the_cutout_itself():
    images = cutouts()
    for view in (ImageView(), ImageView(degrade_to=12)):
        torch.testing.assert_close(view(images), images.float())


def test_more_pixels_than_there_are_is_an_error():
    with pytest.raises(DataError, match="12 px to 13 px; degrade_to must be at most 12"):
        ImageView(degrade_to=13)(cutouts())


@pytest.mark.parametrize(("colours", "band"), [("red", 0), ("green", 1), ("blue", 2)])
def test_one_band_stands_in_all_three(colours, band):
    images = cutouts()
    shown = ImageView(colours=colours)(images)
    for channel in range(3):
        torch.testing.assert_close(shown[..., channel], images[..., band].float())


def test_grey_is_the_mean_of_the_bands():
    images = cutouts()
    torch.testing.assert_close(ImageView(colours="grey")(images)[..., 2], images.float().mean(dim=3))


def test_shuffled_bands_are_the_same_bands_in_all_orders():
    images = cutouts(n=120, side=6)
    shown = ImageView(colours="shuffled")(images)
    torch.testing.assert_close(shown.sort(dim=3).values, images.float().sort(dim=3).values)
    orders = {
        tuple(int(torch.equal(s[..., c], i[..., 0].float())) for c in range(3))
        for s, i in zip(shown, images, strict=True)
    }
    assert orders == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}


def test_the_order_of_shuffled_bands_does_not_depend_on_how_the_cutout_lies():
    view, images = ImageView(colours="shuffled"), cutouts(n=20)
    torch.testing.assert_close(view(images.rot90(1, (1, 2))), view(images).rot90(1, (1, 2)))
    torch.testing.assert_close(view(images.flip(2)), view(images).flip(2))


def test_blur_is_a_gaussian_that_keeps_the_flux():
    from scipy.ndimage import gaussian_filter

    images = cutouts()
    shown = ImageView(blur_sigma_px=1.5)(images).numpy()
    oracle = gaussian_filter(images.numpy().astype(float), (0, 1.5, 1.5, 0), mode="reflect")
    np.testing.assert_allclose(shown, oracle, rtol=1e-4)


def test_what_is_shown_of_a_cutout_does_not_depend_on_its_neighbours():
    view, images = ImageView(degrade_to=5, colours="shuffled", blur_sigma_px=0.7), cutouts(n=6)
    torch.testing.assert_close(view(images)[2:3], view(images[2:3]))


def test_turning_and_showing_commute():
    view, images = ImageView(degrade_to=5, blur_sigma_px=1.0), cutouts()
    torch.testing.assert_close(view(images.rot90(1, (1, 2))), view(images).rot90(1, (1, 2)), rtol=1e-5, atol=1e-3)
